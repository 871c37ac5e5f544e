"""Measures against width, with their fits, their seeds' range and the slope that theory gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from runner.analysis.columns import plain, records
from runner.analysis.selection import facet_label
from runner.views.charts.scales import width_scale
from runner.views.charts.style import Layout, concat, layered, rows_of, series_scales

if TYPE_CHECKING:
    import altair as alt


def scaling_chart(
    points: pd.DataFrame,
    fits: pd.DataFrame,
    facets: Sequence[str],
    title: str = "",
    layout: Layout | None = None,
) -> alt.ConcatChart:
    """Return one log-log panel per metric (and role of a layer): points, fitted lines, theory's slopes.

    A point is the geometric mean of the seeds, its bar their range; the line is the fit, its legend the
    slope; dotted is theory's slope, drawn through the middle of the fit.

    Args:
        points: As returned by :func:`runner.analysis.exponents.fit_points`.
        fits: As returned by :func:`runner.analysis.exponents.fit`.
        facets: Their facets: one series each.
        title: Heading of the figure.
        layout: The room for it.
    """
    layout = layout or Layout()
    points, fits = (
        frame.assign(series=[facet_label(facets, [row[facet] for facet in facets]) for row in records(frame)])
        for frame in (points, fits)
    )
    series = list(dict.fromkeys(fits["series"]))
    # In the order asked for, which sorting would lose.
    panels = list(dict.fromkeys(_panel_keys(fits)))
    charts = []
    for key in panels:
        part = points[[found == key for found in _panel_keys(points)]]
        if len(part):
            charts.append(
                _panel(key, part, fits[[found == key for found in _panel_keys(fits)]], series, layout)
            )
    return concat(charts, layout, most=3, title=title)


def _panel_keys(frame: pd.DataFrame) -> list[tuple[Any, ...]]:
    """Return metric, role and layer of each row."""
    return [tuple(plain(row[key]) for key in ("metric", "role", "layer")) for row in records(frame)]


def _panel(
    values: tuple[Any, ...], points: pd.DataFrame, fits: pd.DataFrame, series: Sequence[str], layout: Layout
) -> Any:
    """Return the panel of one metric."""
    import altair as alt

    metric, role, layer = values
    channels = series_scales(series, ordered=False)
    legend = alt.Legend(title=None, orient="top", columns=4, symbolSize=50, symbolOpacity=1)
    color = alt.Color("series:N", scale=channels["color"], legend=legend)
    x = width_scale(points["width"]).encode(alt.X, "width")
    y = alt.Y("value:Q", scale=alt.Scale(type="log"), axis=alt.Axis(title=None, format="~g", tickCount=4))
    base = alt.Chart(rows_of(points[["width", "value", "low", "high", "seeds", "series"]]))
    bars = base.mark_rule(strokeWidth=1.4).encode(
        x=x, y=alt.Y("low:Q", scale=alt.Scale(type="log")), y2="high", color=color
    )
    marks = base.mark_point(filled=True, size=36, opacity=1).encode(
        x=x, y=y, color=color, shape=alt.Shape("series:N", scale=channels["shape"], legend=legend),
        tooltip=["series:N", "width:Q", alt.Tooltip("value:Q", format=".3~g"), "seeds:Q"],
    )  # fmt: skip
    fitted, predicted = _lines(points, fits)
    layers = [bars]
    for frame, style in (
        (predicted, {"strokeDash": [2, 3], "strokeWidth": 1.6, "opacity": 0.75}),
        (fitted, {"strokeWidth": 1.4}),
    ):
        if len(frame):
            layers.append(alt.Chart(rows_of(frame)).mark_line(**style).encode(x=x, y=y, color=color))
    name = f"{metric}, {layer} ({role})" if layer is not None else str(metric)
    name = name.replace("_", " ")
    width = layout.panel or 210
    slopes: dict[str, Any] = (
        {} if layout.paper else {"subtitle": slope_lines(fits)}
    )  # in print the caption says them
    heading = alt.TitleParams(name, **slopes)
    return layered([*layers, marks], heading, width, max(90, 0.72 * width))


def _lines(points: pd.DataFrame, fits: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the ends of the fitted lines and of theory's, which cross in the middle of the points."""
    fitted: list[dict[str, Any]] = []
    predicted: list[dict[str, Any]] = []
    for fit in records(fits):
        part = points[points["series"] == fit["series"]]
        if plain(fit["slope"]) is None or part.empty:
            continue
        widths, logs = part["width"].to_numpy(float), np.log(part["value"].to_numpy(float))
        middle, height = np.log(widths).mean(), logs.mean()
        for slope, rows in ((fit["slope"], fitted), (plain(fit["theory"]), predicted)):
            for width in () if slope is None else (widths.min(), widths.max()):
                value = float(np.exp(height + slope * (np.log(width) - middle)))
                rows.append({"width": width, "value": value, "series": fit["series"]})
    return pd.DataFrame(fitted), pd.DataFrame(predicted)


def slope_lines(fits: pd.DataFrame) -> list[str]:
    """Return the fitted slopes with their intervals and theory's, one line per series."""
    lines = []
    for fit in records(fits):
        slope, low, theory = plain(fit["slope"]), plain(fit["low"]), plain(fit["theory"])
        if slope is None:
            lines.append(f"{fit['series']}: fewer than three widths")
            continue
        interval = "" if low is None else f" [{low:.2f}, {fit['high']:.2f}]"
        lines.append(
            f"{fit['series']}: {slope:.2f}{interval}" + ("" if theory is None else f", theory {theory:g}")
        )
    return lines
