"""The diagram of exponents: colours on both sides of zero, and the line where the slope is zero."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from rich.text import Text

from runner.analysis.columns import groups, plain
from runner.analysis.exponents import counted_as
from runner.analysis.phase import Axes
from runner.analysis.selection import facet_label
from runner.analysis.slopes import BOUNDS, Slope, slope_grid, slope_zeros
from runner.store import Store
from runner.views import alt
from runner.views.captions import common_words, step_words, sweep_words
from runner.views.phase.chart import bordered, renamed
from runner.views.phase.colors import gradient_legend
from runner.views.phase.letters import panel_size
from runner.views.phase.terminal import print_points
from runner.views.scales import Scale, column_title, column_words, lr_unit, shared_scale
from runner.views.style import INK, PAPER, Layout, concat, layered, rows_of, theme
from runner.views.terminal import MISSING
from runner.views.view import View

_LINES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "slope": ("solid", "the slope is zero", {"strokeWidth": 1.8}),
    "bound": ("dashed", "a bound of its 95 % interval is", {"strokeWidth": 0.9, "strokeDash": [4, 2]}),
    "theory": ("dotted", "theory's slope is", {"strokeWidth": 1.6, "strokeDash": [1.5, 3]}),
}
"""Kind of line: how it looks in a word, what is zero there, its marks."""


def slope_view(
    store: Store, cells: pd.DataFrame, axes: Axes, slope: Slope, where: Sequence[str] = (),
    points: pd.DataFrame | None = None,
) -> View:  # fmt: skip
    """Return the diagram of the slopes of some cells.

    Args:
        store: The store that they are of.
        cells: Rows of its ``cells``.
        axes: What is shown.
        slope: The slope that ``axes.color`` asks for.
        where: The conditions that chose the cells, for the caption.
        points: What is shown of them, where it is not these rows: themselves at each step.

    Raises:
        UserError: As :func:`runner.analysis.slopes.slope_grid`.
    """
    grid = slope_grid(cells if points is None else points, store.trace, store.layers, axes, slope)
    zeros = slope_zeros(grid, axes)
    keys = (axes.x, axes.y, *axes.facets, slope.key)
    title, unit = common_words(cells, keys), lr_unit(cells)
    return View(
        grid,
        _caption(grid, zeros, axes, slope, sweep_words(cells, store.config, where, keys)),
        lambda layout: _chart(grid, zeros, axes, slope, "" if layout.paper else title, unit, layout),
        len(grid.drop_duplicates(list(axes.facets))) if axes.facets else 1,
        lambda out: print_points(grid, axes, out, _cell, _legend(grid, slope)),
        {"x": axes.x, "y": axes.y, "facets": axes.facets, "color": axes.color, "at": store.config.get("at")},
        {"zeros": zeros},
    )


def _words(zeros: pd.DataFrame) -> str:
    """Return what the lines that there are mean."""
    shown = set(_kinds(zeros))
    return "; ".join(f"{look}: where {what}" for kind, (look, what, _) in _LINES.items() if kind in shown)


def _kinds(zeros: pd.DataFrame) -> pd.Series:
    """Return the kind of each line: the two bounds look the same."""
    return zeros["of"].replace(dict.fromkeys(BOUNDS, "bound"))


def _caption(grid: pd.DataFrame, zeros: pd.DataFrame, axes: Axes, slope: Slope, shared: str) -> str:
    """Return the caption."""
    panels = f", one panel per {' and '.join(axes.facets)}" if axes.facets else ""
    lines = f" {_words(zeros).capitalize()}, interpolated between the points." if len(zeros) else ""
    return (
        f"{str(slope).capitalize()}, over {axes.x} and {axes.y}{panels}. {shared} {len(grid)} points. Each "
        f"point shows the least-squares slope in both logarithms of geometric means over the seeds.{lines}"
        f"{step_words(axes)}"
    )


def _chart(
    grid: pd.DataFrame, zeros: pd.DataFrame, axes: Axes, slope: Slope, title: str, unit: str | None,
    layout: Layout,
) -> alt.ConcatChart:  # fmt: skip
    """Return one panel per facet: rectangles coloured by the slope, and lines where it is zero."""
    panels = list(groups(grid, [grid[facet] for facet in axes.facets]))
    lines = dict(groups(zeros, [zeros[facet] for facet in axes.facets]))
    scales = tuple(shared_scale(grid, key, panels, column_title(key, unit)) for key in (axes.x, axes.y))
    if layout.paper:
        scales = tuple(scale.at_decades() for scale in scales)
    parts = [part for _, part in panels]
    color = _color(grid, slope, layout)
    charts = [
        _panel(
            facet_label(axes.facets, facet), part, lines.get(facet), axes, slope, scales, color,
            panel_size(part, axes, layout, parts),
        )
        for facet, part in panels
    ]  # fmt: skip
    return concat(charts, layout, title=title, subtitle=_words(zeros))


def _panel(
    title: str, part: pd.DataFrame, lines: pd.DataFrame | None, axes: Axes, slope: Slope,
    scales: Sequence[Scale], color: Any, size: tuple[float, float],
) -> Any:  # fmt: skip
    """Return one facet."""
    x, y = scales[0].encode(alt.X, "x"), scales[1].encode(alt.Y, "y")
    measured = ["slope", *BOUNDS, "theory", counted_as(slope.key), "seeds", "cells", "left_out"]
    frame = bordered(part, axes).join(part[measured])
    told = [alt.Tooltip(f"{name}:Q", title=key) for name, key in (("x", axes.x), ("y", axes.y))]
    told += [alt.Tooltip(f"{name}:Q", title=name, format=".3~g") for name in measured]
    rects = (
        alt.Chart(rows_of(frame))
        .mark_rect(stroke=theme("paper"), strokeWidth=0.5)
        .transform_filter("isValid(datum.slope)")
        .encode(x=renamed(x, "x0"), x2="x1", y=renamed(y, "y0"), y2="y1", color=color, tooltip=told)
    )
    drawn = [] if lines is None else _lines(lines, (x, y))
    return layered([rects, *drawn], title, *size)


def _lines(zeros: pd.DataFrame, scales: tuple[Any, Any]) -> list[Any]:
    """Return the lines of a panel, the slope's on top, over a light casing of its own."""
    found = []
    for kind, (_, _, style) in reversed(_LINES.items()):
        part = zeros[_kinds(zeros) == kind]
        if part.empty:
            continue
        named = part["of"] + part["line"].astype(str)
        # In the order of the rows: a line may turn back in x.
        rows = rows_of(part[["x", "y"]].assign(line=named, order=range(len(part))))
        base = alt.Chart(rows).encode(x=scales[0], y=scales[1], detail="line:N", order="order:Q")
        if kind == "slope":
            found.append(base.mark_line(clip=True, stroke=PAPER, strokeWidth=style["strokeWidth"] + 1.4))
        found.append(base.mark_line(clip=True, stroke=INK, **style))
    return found


def _color(grid: pd.DataFrame, slope: Slope, layout: Layout) -> Any:
    """Return the color channel: as blue below zero as orange above it."""
    most = grid["slope"].abs().max()
    most = float(most) if most > 0 else 1.0
    scale = alt.Scale(scheme="blueorange", domain=[-most, most], nice=False)
    words = column_words(slope.metric) + (f" of {slope.layer}" if slope.layer else "")
    title = [f"slope of {words}", f"against {slope.key.replace('_', ' ')}"]
    return alt.Color("slope:Q", scale=scale, legend=gradient_legend(title, layout.paper, ".2~f"))


def _cell(row: Mapping[str, Any]) -> Text:
    """Return the text of one point: its slope, marked where it may as well be zero."""
    slope, low, high = (plain(row[name]) for name in ("slope", *BOUNDS))
    if slope is None:
        return Text(MISSING)
    return Text(f"{round(slope, 2) + 0.0:.2f}" + ("~" if low is not None and low <= 0 <= high else ""))


def _legend(grid: pd.DataFrame, slope: Slope) -> Text:
    """Return what the numbers mean."""
    legend = Text(str(slope), style="dim")
    if grid[BOUNDS[0]].notna().any():
        legend.append("; ~ its 95% interval over seeds holds zero")
    else:
        legend.append("; one seed: no intervals")
    if grid["slope"].isna().any():
        legend.append(f"; {MISSING} fewer than three values")
    return legend
