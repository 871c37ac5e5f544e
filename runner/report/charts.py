"""The phase diagram as an Altair specification."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from runner.analysis.columns import distinct, groups
from runner.analysis.phase import SHARPNESS_CRITICAL, Axes, boundary, edges
from runner.analysis.selection import facet_label
from runner.regime import COLORS, LETTERS, REGIMES, TEXT_COLORS
from runner.report.scales import Scale, column_title, shared_scale

if TYPE_CHECKING:
    import altair as alt

INK = "#1A1A1A"
FONT = "Helvetica, Arial, Liberation Sans, sans-serif"
_PALE = 0.45
_CRITICAL = "2/λmax"


def phase_chart(
    grid: pd.DataFrame, axes: Axes, title: str = "", lr_unit: str | None = None
) -> alt.ConcatChart:
    """Return the phase diagram: one panel per facet.

    Rectangles reach to the midpoints between neighbouring points, coloured by regime (with its letter, so
    that the figure reads without colour) or by the median of a numeric column; lines mark where the regime
    changes, a dashed one the critical learning rate 2 / lambda_max, and dotted ones lr * lambda_max in
    decades off it: the second axis of an absolute lr.

    Args:
        grid: As returned by :func:`runner.analysis.phase.phase_grid`.
        axes: The axes of the grid.
        title: Heading of the figure.
        lr_unit: Unit of ``lr`` in all cells, for the axis titles.
    """
    import altair as alt

    panels = list(groups(grid, [grid[facet] for facet in axes.facets]))
    x, y = (shared_scale(grid, key, panels, column_title(key, lr_unit)) for key in (axes.x, axes.y))
    lines = boundary(grid, axes)
    lines_by_facet = dict(groups(lines, [lines[facet] for facet in axes.facets]))
    columns = _columns_of(len(panels))
    color = _color(axes, grid)
    charts = []
    for place, (values, part) in enumerate(panels):
        scales = (x.encode(alt.X, "x"), y.encode(alt.Y, "y", labels=place % columns == 0))
        frame = _rectangles(part, axes)
        line, label = _critical(part, axes, x, y, scales)
        layers = [
            _cells(frame, axes, scales, color),
            *_lines(lines_by_facet.get(values), scales),
            *line,
            *(_letters(frame, scales) if axes.color == "regime" else ()),
            *label,
        ]
        width, height = _size(part, axes)
        charts.append(
            alt.layer(*layers).properties(title=facet_label(axes.facets, values), width=width, height=height)
        )
    figure = alt.concat(*charts, columns=columns, spacing={"row": 24, "column": 44})
    if title:
        figure = figure.properties(title=alt.TitleParams(title, subtitle=_subtitle(grid, axes)))
    return _styled(figure)


def _rectangles(part: pd.DataFrame, axes: Axes) -> pd.DataFrame:
    """Return the points of a panel with the borders of their rectangles, without those that have no color."""
    frame = pd.DataFrame({"x": part[axes.x].astype(float), "y": part[axes.y].astype(float)})
    for name in ("x", "y"):
        values = np.array(distinct(frame[name]))
        borders = edges(values)
        index = np.searchsorted(values, frame[name])
        frame[f"{name}0"], frame[f"{name}1"] = borders[index], borders[index + 1]
    if axes.color != "regime":
        return frame.assign(value=part["value"]).dropna(subset=["value"])
    frame = frame.assign(regime=part["regime"], letter=part["regime"].map(LETTERS), agreed=part["share"] == 1)
    frame = frame[frame["regime"].notna()]
    fills = [
        COLORS[regime] if agreed else _pale(COLORS[regime])
        for regime, agreed in zip(frame["regime"], frame["agreed"], strict=True)
    ]
    inks = [TEXT_COLORS[regime] for regime in frame["regime"]]
    return frame.assign(fill=fills, ink=np.where(frame["agreed"], inks, INK))


def _cells(frame: pd.DataFrame, axes: Axes, scales: tuple[Any, Any], color: Any) -> Any:
    """Return the rectangles of a panel."""
    import altair as alt

    x, y = _renamed(scales[0], "x0"), _renamed(scales[1], "y0")
    rects = (
        alt.Chart(_records(frame))
        .mark_rect(stroke="#FFFFFF", strokeWidth=0.5)
        .encode(x=x, x2="x1", y=y, y2="y1", color=color)
    )
    if axes.color != "regime":
        return rects
    return rects.encode(fillOpacity=alt.condition("datum.agreed", alt.value(1.0), alt.value(_PALE)))


def _letters(frame: pd.DataFrame, scales: tuple[Any, Any]) -> list[Any]:
    """Return the letters of a panel, each over a halo that keeps lines from striking it out."""
    import altair as alt

    base = alt.Chart(_records(frame)).encode(x=scales[0], y=scales[1], text="letter:N")
    halo = base.mark_text(fontSize=11, fontWeight="bold", strokeWidth=5, strokeJoin="round").encode(
        stroke=alt.Stroke("fill:N", scale=None), color=alt.Color("fill:N", scale=None)
    )
    return [halo, base.mark_text(fontSize=11, fontWeight="bold").encode(color=alt.Color("ink:N", scale=None))]


def _pale(color: str) -> str:
    """Return what a colour looks like on white at the opacity that says that seeds disagree."""
    parts = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(_PALE * part + (1 - _PALE) * 255):02X}" for part in parts)


def _lines(lines: pd.DataFrame | None, scales: tuple[Any, Any]) -> list[Any]:
    """Return the regime boundary of a panel, dark over a light casing so that it shows on any colour."""
    import altair as alt

    if lines is None:
        return []
    base = alt.Chart(_records(lines[["x", "y", "x2", "y2"]]))
    encoding = {"x": scales[0], "x2": "x2", "y": scales[1], "y2": "y2"}
    return [
        base.mark_rule(clip=True, stroke=color, strokeWidth=width, strokeCap="round").encode(**encoding)
        for color, width in (("#FFFFFF", 3.4), (INK, 1.6))
    ]


def _critical(
    part: pd.DataFrame, axes: Axes, x: Scale, y: Scale, scales: tuple[Any, Any]
) -> tuple[list[Any], list[Any]]:
    """Return the line of the critical learning rate, and its label at the right of the panel or in it."""
    import altair as alt

    known = part.dropna(subset=["critical"]).groupby(axes.x, observed=True)["critical"].median()
    if known.empty:
        return [], []
    line = _to_borders(known.index.to_numpy(float), known.to_numpy(float), x)
    ticks, tick_labels = _sharpness_axis(line, x, y, scales)
    base = alt.Chart(_records(line))
    drawn = ticks + [
        base.mark_line(clip=True, stroke=color, strokeWidth=width, strokeDash=dash).encode(
            x=scales[0], y=scales[1]
        )
        for color, width, dash in (("#FFFFFF", 4.0, [1, 0]), (INK, 1.8, [5, 4]))
    ]
    inside = line[line["y"].between(*y.domain)]
    if inside.empty:
        return drawn, tick_labels
    at_border = inside["x"].iloc[-1] == x.domain[1]
    place: dict[str, Any] = {"align": "left", "dx": 3} if at_border else {"align": "left", "dx": 6, "dy": -12}
    base = alt.Chart(_records(inside.iloc[[-1]])).encode(x=scales[0], y=scales[1])
    halo = base.mark_text(
        text=_CRITICAL, fontSize=10, stroke="#FFFFFF", strokeWidth=4, strokeJoin="round", **place
    )
    return drawn, [*tick_labels, halo, base.mark_text(text=_CRITICAL, fontSize=10, color=INK, **place)]


def _sharpness_axis(
    critical: pd.DataFrame, x: Scale, y: Scale, scales: tuple[Any, Any]
) -> tuple[list[Any], list[Any]]:
    """Return the second axis of an absolute lr, lr * lambda_max: thin lines in decades off 2, labelled.

    Where y is in units of the critical lr already, the first axis says the same.
    """
    import altair as alt

    if (critical["y"] == SHARPNESS_CRITICAL).all():
        return [], []
    lines, labels = [], []
    for decade in (-2, -1, 1, 2):
        line = critical.assign(y=critical["y"] * 10.0**decade)
        base = alt.Chart(_records(line))
        lines.append(
            base.mark_line(clip=True, stroke=INK, strokeWidth=0.7, strokeDash=[1, 3]).encode(
                x=scales[0], y=scales[1]
            )
        )
        end = line.iloc[[-1]]
        if end["y"].between(*y.domain).all() and end["x"].iloc[0] == x.domain[1]:
            text = f"{SHARPNESS_CRITICAL * 10.0**decade:g}/λmax"
            mark = alt.Chart(_records(end)).mark_text(text=text, fontSize=8, color=INK, align="left", dx=3)
            labels.append(mark.encode(x=scales[0], y=scales[1]))
    return lines, labels


def _to_borders(x: np.ndarray, y: np.ndarray, axis: Scale) -> pd.DataFrame:
    """Return a line through the points, carried on straight to the borders of the panel."""
    across, up = np.log(x) if axis.log else x, np.log(y)
    ends = np.log(axis.domain) if axis.log else np.asarray(axis.domain)
    slopes = np.diff(up) / np.diff(across) if len(x) > 1 else np.zeros(1)
    first, last = up[0] + slopes[0] * (ends[0] - across[0]), up[-1] + slopes[-1] * (ends[1] - across[-1])
    return pd.DataFrame({"x": [axis.domain[0], *x, axis.domain[1]], "y": np.exp([first, *up, last])})


def _color(axes: Axes, grid: pd.DataFrame) -> Any:
    """Return the color channel: regimes by name, or a number on viridis."""
    import altair as alt

    if axes.color == "regime":
        present = [regime for regime in REGIMES if (grid["regime"] == regime).any()]
        scale = alt.Scale(domain=present, range=[COLORS[regime] for regime in present])
        labels = " : ".join(
            f"datum.value == '{regime}' ? '{LETTERS[regime]}  {regime}'" for regime in REGIMES
        )
        return alt.Color(
            "regime:N",
            scale=scale,
            legend=alt.Legend(
                title=None, orient="top", offset=2, symbolType="square", labelExpr=f"{labels} : datum.value"
            ),
        )
    values = grid["value"].dropna()
    log = len(values) > 0 and values.min() > 0 and values.max() > 10 * values.min()
    scale = alt.Scale(scheme="viridis", type="log" if log else "linear", nice=False, zero=False)
    return alt.Color(
        "value:Q", scale=scale, legend=alt.Legend(title=column_title(axes.color), format=".3~g", tickCount=5)
    )


def _size(part: pd.DataFrame, axes: Axes) -> tuple[int, int]:
    """Return width and height of a panel that leave room for a letter in each rectangle."""
    return (
        int(np.clip(34 * part[axes.x].nunique(), 150, 420)),
        int(np.clip(22 * part[axes.y].nunique(), 130, 420)),
    )


def _columns_of(panels: int) -> int:
    """Return how many panels stand side by side: two rows of four rather than five and three."""
    return panels if panels <= 4 else math.ceil(panels / math.ceil(panels / 4))


def _subtitle(grid: pd.DataFrame, axes: Axes) -> str:
    """Return what the reader must know beyond the legend."""
    seeds = int(grid["seeds"].max())
    if axes.color != "regime":
        return f"median of {seeds} seeds" if seeds > 1 else "one seed"
    pale = "; pale: seeds disagree" if (grid["share"] < 1).any() else ""
    return f"majority of {seeds} seeds{pale}" if seeds > 1 else "one seed"


def _renamed(channel: Any, field: str) -> Any:
    """Return the same channel over another field."""
    copy = channel.copy()
    copy.shorthand = f"{field}:Q"
    return copy


def _records(frame: pd.DataFrame) -> Any:
    """Return rows as inline data, rounded so that the same table gives the same bytes on any machine."""
    import altair as alt

    rows: list[Mapping[str, Any]] = [
        {str(key): float(f"{value:.9g}") if isinstance(value, float) else value for key, value in row.items()}
        for row in frame.astype(object).to_dict("records")
    ]
    return alt.InlineData(values=[{k: None if v != v else v for k, v in row.items()} for row in rows])


def _styled(chart: alt.ConcatChart) -> alt.ConcatChart:
    """Return the chart with the look of a paper's figure."""
    styled: alt.ConcatChart = (
        chart.configure(font=FONT, background="#FFFFFF", padding=8)
        .configure_view(stroke="#888888", strokeWidth=0.8)
        .configure_axis(
            grid=False,
            labelFontSize=10,
            titleFontSize=11,
            titleFontWeight="normal",
            labelColor=INK,
            titleColor=INK,
            tickColor="#888888",
            domain=False,
        )
        .configure_title(
            fontSize=12,
            subtitleFontSize=10,
            subtitleColor="#555555",
            anchor="start",
            color=INK,
            fontWeight="bold",
        )
        .configure_legend(
            labelFontSize=11, titleFontSize=11, titleFontWeight="normal", symbolStrokeWidth=0, labelColor=INK
        )
    )
    return styled
