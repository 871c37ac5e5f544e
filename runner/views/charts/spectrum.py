"""The spectrum of the kernel at init against width, and what the network won over that kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from runner.analysis.columns import column, distinct
from runner.analysis.regime import COLORS, LETTERS, REGIMES
from runner.analysis.selection import facet_label
from runner.views.charts.scales import column_title, number_scale, width_scale
from runner.views.charts.style import Layout, concat, rows_of, series_scales, theme

if TYPE_CHECKING:
    import altair as alt

SPECTRUM = ("lambda_max_init", "lambda_min_init", "condition_number_init", "effective_rank")
GAINS = ("ntk_gain", "transfer_gain")


def spectrum_chart(
    cells: pd.DataFrame, facets: Sequence[str], layout: Layout | None = None
) -> alt.ConcatChart | None:
    """Return the spectrum against width, one panel per measure that was taken, a point per distinct network.

    Args:
        cells: Rows of the ``cells`` table.
        facets: Keys with one series per combination of values.
        layout: The room for it.

    Returns:
        None where nothing was measured.
    """
    layout = layout or Layout()
    named = cells.assign(series=_series(cells, facets))
    series = [str(name) for name in distinct(named["series"])]
    charts = []
    for measure in SPECTRUM:
        part = _measured(named, measure).drop_duplicates(["series", "width", measure])
        if len(part):
            charts.append(_against_width(part, measure, series, layout))
    return concat(charts, layout, most=3) if charts else None


def gain_chart(cells: pd.DataFrame, facets: Sequence[str], layout: Layout | None = None) -> Any | None:
    """Return what training won over the kernel at init, against how far the kernel moved: a point per cell.

    Args:
        cells: Rows of the ``cells`` table.
        facets: Keys to name when the pointer is over a point.
        layout: The room for it.

    Returns:
        None where no gain was measured.
    """
    layout = layout or Layout()
    named = cells.assign(series=_series(cells, facets), regime=cells["regime"].astype(object))
    charts = []
    for measure in GAINS:
        part = _measured(named, measure)
        part = part[(pd.to_numeric(part["ntk_change"]) > 0) & part["regime"].notna()] if len(part) else part
        if len(part):
            charts.append(_against_change(part, measure, layout))
    return concat(charts, layout, most=3) if charts else None


def _against_width(part: pd.DataFrame, measure: str, series: Sequence[str], layout: Layout) -> Any:
    import altair as alt

    channels = series_scales(series, ordered=False)
    legend = alt.Legend(title=None, orient="top", columns=4, symbolSize=50)
    rows = part[["series", "width", measure]].rename(columns={measure: "value"})
    log = bool((rows["value"] > 0).all())
    y = alt.Y(
        "value:Q",
        scale=number_scale(log),
        axis=alt.Axis(title=None, format="~g", tickCount=4),
    )
    width = layout.panel or 210
    return (
        alt.Chart(rows_of(rows))
        .mark_point(size=36, strokeWidth=1.4)
        .encode(
            x=width_scale(part["width"]).encode(alt.X, "width"),
            y=y,
            color=alt.Color("series:N", scale=channels["color"], legend=legend),
            shape=alt.Shape("series:N", scale=channels["shape"], legend=legend),
            tooltip=["series:N", "width:Q", alt.Tooltip("value:Q", title=measure, format=".3~g")],
        )
        .properties(title=measure.replace("_", " "), width=width, height=max(90, 0.72 * width))
    )


def _against_change(part: pd.DataFrame, measure: str, layout: Layout) -> Any:
    import altair as alt

    rows = part[["series", "regime", "width", "lr", "ntk_change", measure]].rename(columns={measure: "value"})
    rows = rows.assign(letter=rows["regime"].map(LETTERS))
    present = [regime for regime in REGIMES if (rows["regime"] == regime).any()]
    color = alt.Color(
        "regime:N",
        scale=alt.Scale(domain=present, range=[COLORS[regime] for regime in present]),
        legend=alt.Legend(title=None, orient="top", symbolStrokeWidth=0),
    )
    x = alt.X(
        "ntk_change:Q",
        scale=alt.Scale(type="log"),
        axis=alt.Axis(title=column_title("ntk_change"), format="~g", tickCount=5),
    )
    y = alt.Y("value:Q", axis=alt.Axis(title=None, format="~g", tickCount=5))
    tooltip: list[Any] = ["series:N", "regime:N", "width:Q", "lr:Q"]
    tooltip += [alt.Tooltip("value:Q", title=measure, format=".3~g")]
    shape = alt.Shape("regime:N", legend=None)
    base = alt.Chart(rows_of(rows)).encode(x=x, y=y)
    marks = base.mark_point(filled=True, size=45, opacity=0.9, stroke=theme("muted"), strokeWidth=0.5)
    width = layout.panel or 210
    zero = alt.Chart(rows_of(pd.DataFrame({"value": [0.0]}))).mark_rule(
        strokeDash=[2, 2], color=theme("muted")
    )
    return alt.layer(zero.encode(y=y), marks.encode(color=color, shape=shape, tooltip=tooltip)).properties(
        title=measure.replace("_", " "), width=width, height=max(90, 0.72 * width)
    )


def _series(cells: pd.DataFrame, facets: Sequence[str]) -> list[str]:
    keys = [column(cells, facet, "--facet") for facet in facets]
    return [facet_label(facets, values) for values in zip(*keys, strict=True)] if keys else [""] * len(cells)


def _measured(cells: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Return the cells with a finite value of a measure."""
    if measure not in cells:
        return cells.iloc[:0]
    value = pd.to_numeric(cells[measure]).astype(float)
    return cells[value.abs() < float("inf")]
