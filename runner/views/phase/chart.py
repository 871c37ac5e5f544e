"""The phase diagram: which regime, or which value of a measure, at each point of the grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from runner.analysis.columns import distinct, groups, records
from runner.analysis.phase import Axes, boundary, edges, is_scattered
from runner.analysis.regime import COLORS, LETTERS, MARKS, TEXT_COLORS, marks_of
from runner.analysis.selection import facet_label
from runner.views import alt
from runner.views.phase.colors import color_channel
from runner.views.phase.critical import critical_lines
from runner.views.phase.key import lines_key
from runner.views.phase.letters import Letters, letter_marks, letter_size, panel_size, unstruck
from runner.views.scales import Scale, column_title, shared_scale
from runner.views.style import (
    INK,
    PAPER,
    Layout,
    concat,
    layered,
    rows_of,
    theme,
)  # fmt: skip

_PALE = 0.45
Over = Callable[[tuple[Any, ...], Scale, Scale], "Overlay"]
"""Values of a panel's facets and the scales of its axes -> what is drawn over its points."""
CELLS, LETTERED = "cells", "letters"
"""What the names of layers begin with."""


@dataclass(frozen=True, slots=True)
class Overlay:
    """What is drawn over the points of a panel.

    Attributes:
        below: Layers below its letters.
        above: Layers above them.
        lines: Lines of the layers above, ``x`` and ``y``, which no letter may cross in print.
    """

    below: Sequence[Any] = ()
    above: Sequence[Any] = ()
    lines: Sequence[pd.DataFrame] = ()


def phase_chart(
    grid: pd.DataFrame, axes: Axes, title: str, lr_unit: str | None, layout: Layout,
    over: Over | None = None,
) -> alt.ConcatChart:  # fmt: skip
    """Return the phase diagram: one panel per facet.

    Rectangles reach to the midpoints between neighbouring points, coloured by regime (with its letter, so
    that the figure reads without colour) or by the median of a numeric column; solid lines mark where the
    regime changes, a dashed one the critical learning rate 2 / lambda_max. On a screen a finer one marks
    4 / lambda_max, and dotted ones lr * lambda_max in decades off 2: the second axis of an absolute lr. In
    print no line crosses a letter: theory's leave it out, and it gives way to what ``over`` draws.

    Args:
        grid: As returned by :func:`runner.analysis.phase.phase_grid`.
        lr_unit: Unit of ``lr`` in all cells, for the axis titles.
        over: From the values of a panel's facets and its scales to what is drawn over the points.
    """
    panels = list(groups(grid, [grid[facet] for facet in axes.facets]))
    x, y = (shared_scale(grid, key, panels, column_title(key, lr_unit)) for key in (axes.x, axes.y))
    if layout.paper:
        x, y = x.at_decades(), y.at_decades()
    lines = boundary(grid, axes)
    lines_by_facet = dict(groups(lines, [lines[facet] for facet in axes.facets]))
    flags = [flag for flag in MARKS if (grid[flag] > 0).any()]
    color, parts = color_channel(axes, grid, layout), [part for _, part in panels]
    context = _Context(axes, x, y, color, layout, parts, flags)
    key = lines_key(grid, len(lines) > 0, layout)
    charts = [
        _panel(
            place, facet_label(axes.facets, values), part, lines_by_facet.get(values), context,
            over(values, x, y) if over else Overlay(), () if place else key,
        )
        for place, (values, part) in enumerate(panels)
    ]  # fmt: skip
    return concat(charts, layout, title=title, subtitle=_subtitle(grid, axes))


def _subtitle(grid: pd.DataFrame, axes: Axes) -> str:
    """Return what the reader must know beyond the legend."""
    seeds = int(grid["seeds"].max())
    if axes.color != "regime":
        return f"median of {seeds} seeds" if seeds > 1 else "one seed"
    tied = grid["second"].notna()
    pale = "; pale: seeds disagree" if ((grid["share"] < 1) & ~tied).any() else ""
    halves = "; halves: a tie" if tied.any() else ""
    return f"majority of {seeds} seeds{pale}{halves}" if seeds > 1 else "one seed"


@dataclass(frozen=True, slots=True)
class _Context:
    """What all panels of one diagram have in common."""

    axes: Axes
    x: Scale
    y: Scale
    color: Any
    layout: Layout
    parts: Sequence[pd.DataFrame]
    flags: Sequence[str]
    """Flags that some point has."""


def _panel(
    place: int, title: str, part: pd.DataFrame, lines: pd.DataFrame | None, context: _Context,
    over: Overlay, key: Sequence[Any],
) -> Any:  # fmt: skip
    """Return one facet: cells, then lines, then letters, then what is chosen."""
    axes, layout = context.axes, context.layout
    scales = (context.x.encode(alt.X, "x"), context.y.encode(alt.Y, "y"))
    width, height = panel_size(part, axes, layout, context.parts)
    frame = _rectangles(part, axes).assign(panel=title)
    if axes.color == "regime":
        frame = _halved(frame, context.x.log)
    size = letter_size(part, axes, layout, width, height) if axes.color == "regime" else 0.0
    letters = Letters.of(frame, (context.x, context.y), (width, height), size)
    line, label = critical_lines(part, axes, letters, scales, layout)
    layers = [
        *_white(frame, scales, axes),
        _cells(frame, context, scales).properties(name=f"{CELLS}{place}"),
        *_lines(lines, scales),
        *over.below,
        *line,
        *letter_marks(
            unstruck(frame, letters, over.lines) if layout.paper else frame, scales, size,
            f"{LETTERED}{place}", layout,
        ),
        *label,
        *over.above,
        *key,
        *(() if layout.paper else _on_screen(frame, scales, context)),
    ]  # fmt: skip
    return layered(layers, title, width, height)


def bordered(part: pd.DataFrame, axes: Axes) -> pd.DataFrame:
    """Return the places of a panel's points, ``x`` and ``y``, with the borders of their rectangles."""
    frame = pd.DataFrame({"x": part[axes.x].astype(float), "y": part[axes.y].astype(float)})
    for name, key in (("x", axes.x), ("y", axes.y)):
        values = np.array(distinct(frame[name]))
        borders = edges(values, key)
        index = np.searchsorted(values, frame[name])
        frame[f"{name}0"], frame[f"{name}1"] = borders[index], borders[index + 1]
    if is_scattered(part, axes):
        for _, column in frame.groupby("x"):
            borders = edges(np.sort(column["y"].to_numpy()), axes.y)
            index = np.argsort(np.argsort(column["y"].to_numpy()))
            frame.loc[column.index, ["y0", "y1"]] = np.stack([borders[index], borders[index + 1]], axis=1)
    return frame


def _rectangles(part: pd.DataFrame, axes: Axes) -> pd.DataFrame:
    """Return the points of a panel: borders, regime, value."""
    regime = part["regime"].astype(object).where(part["regime"].notna(), None)
    letters = regime.map(LETTERS) + pd.Series(
        [marks_of(row) for row in records(part)], part.index, dtype=object
    )
    second = part["second"].astype(object).where(part["second"].notna(), None)
    agreed = ((part["share"] == 1) | second.notna()).to_numpy()
    fills = [
        PAPER if name is None else COLORS[name] if whole else _pale(COLORS[name])
        for name, whole in zip(regime, agreed, strict=True)
    ]
    inks = [TEXT_COLORS[name] if name and whole else INK for name, whole in zip(regime, agreed, strict=True)]
    return bordered(part, axes).assign(
        id=part.index,
        regime=regime,
        second=second,
        letter=letters.where(regime.notna(), np.where(part["failed"] > 0, "!", "")),
        **{flag: part[flag] for flag in MARKS},
        agreed=agreed,
        fill=fills,
        ink=inks,
        share=part["share"],
        seeds=part["seeds"],
        value=part["value"],
    )


def _halved(frame: pd.DataFrame, log: bool) -> pd.DataFrame:
    """Return the rectangles with two halves side by side where seeds tie, one of each regime."""
    tied = frame["second"].notna()
    if not tied.any():
        return frame
    halves, there, back = frame[tied], np.log if log else np.asarray, np.exp if log else np.asarray
    left, right = there(halves["x0"]), there(halves["x1"])
    middle = (left + right) / 2
    others = halves["second"]
    first = halves.assign(x=back((left + middle) / 2), x1=back(middle))
    more = halves.assign(
        x=back((middle + right) / 2), x0=back(middle), regime=others, letter=others.map(LETTERS),
        fill=others.map(COLORS), ink=others.map(TEXT_COLORS),
    )  # fmt: skip
    return pd.concat([frame[~tied], first, more], ignore_index=True)


def _white(frame: pd.DataFrame, scales: tuple[Any, Any], axes: Axes) -> list[Any]:
    """Return white below the pale points, which are pale on a dark page, too."""
    pale = frame[~frame["agreed"]]
    if pale.empty or axes.color != "regime":
        return []
    base = alt.Chart(rows_of(pale)).mark_rect(fill=PAPER)
    return [
        base.encode(x=renamed(scales[0], "x0"), x2=alt.X2("x1"), y=renamed(scales[1], "y0"), y2=alt.Y2("y1"))
    ]


def _cells(frame: pd.DataFrame, context: _Context, scales: tuple[Any, Any]) -> Any:
    """Return the rectangles of a panel."""
    axes, shown = context.axes, "regime" if context.axes.color == "regime" else "value"
    x, y = renamed(scales[0], "x0"), renamed(scales[1], "y0")
    rects = (
        alt.Chart(rows_of(frame))
        .mark_rect(stroke=theme("paper"), strokeWidth=0.5)
        .transform_filter(f"isValid(datum.{shown})")
        .encode(x=x, x2=alt.X2("x1"), y=y, y2=alt.Y2("y1"), color=context.color)
    )
    if axes.color != "regime":
        return rects
    whole = {"test": "datum.agreed", "value": 1.0}
    return rects.encode(fillOpacity=alt.FillOpacityValue(_PALE, condition=whole))


def _tooltips(context: _Context) -> list[Any]:
    """Return what is said of the point under the pointer."""
    axes = context.axes
    shown = [alt.Tooltip("panel:N", title=", ".join(axes.facets))] if axes.facets else []
    shown += [alt.Tooltip(f"{name}:Q", title=key) for name, key in (("x", axes.x), ("y", axes.y))]
    shown += [
        alt.Tooltip("regime:N", title="regime"),
        alt.Tooltip("share:Q", title="seeds that agree", format=".0%"),
        alt.Tooltip("seeds:Q", title="seeds"),
    ]
    shown += [alt.Tooltip(f"{flag}:Q", title=flag.replace("_", " "), format=".0%") for flag in context.flags]
    if axes.color != "regime":
        shown.append(alt.Tooltip("value:Q", title=axes.color, format=".3~g"))
    return shown


def _on_screen(frame: pd.DataFrame, scales: tuple[Any, Any], context: _Context) -> list[Any]:
    """Return what the pointer meets wherever it is over a point, on top of all."""
    base = alt.Chart(rows_of(frame)).encode(
        x=renamed(scales[0], "x0"), x2=alt.X2("x1"), y=renamed(scales[1], "y0"), y2=alt.Y2("y1")
    )
    target = base.mark_rect(fill="transparent", stroke=None, cursor="pointer")
    return [target.encode(tooltip=_tooltips(context))]


def _pale(color: str) -> str:
    """Return what a colour looks like on white at the opacity that says that seeds disagree."""
    parts = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(_PALE * part + (1 - _PALE) * 255):02X}" for part in parts)


def _lines(lines: pd.DataFrame | None, scales: tuple[Any, Any]) -> list[Any]:
    """Return the regime boundary of a panel, dark over a light casing so that it shows on any colour."""
    if lines is None:
        return []
    base = alt.Chart(rows_of(lines[["x", "y", "x2", "y2"]]))
    encoding = {"x": scales[0], "x2": alt.X2("x2"), "y": scales[1], "y2": alt.Y2("y2")}
    return [
        base.mark_rule(
            clip=True, stroke=color, strokeWidth=width, strokeCap="round"
        ).encode(**encoding)
        for color, width in ((PAPER, 3.4), (INK, 1.6))
    ]  # fmt: skip


def renamed(channel: Any, field: str) -> Any:
    """Return the same channel over another field."""
    copy = channel.copy()
    copy.shorthand = f"{field}:Q"
    return copy
