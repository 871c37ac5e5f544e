"""Training curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from runner.analysis.columns import distinct, groups, plain, records, show
from runner.analysis.selection import facet_label
from runner.views.charts.scales import number_scale
from runner.views.charts.style import DASHES, Layout, concat, layered, rows_of, series_scales

if TYPE_CHECKING:
    import altair as alt

FIELDS = ("series", "line", "step", "value", "low", "high")
"""What a row of a panel's data holds; ``line`` tells apart curves of one series."""


def curves_chart(
    table: pd.DataFrame,
    facets: Sequence[str],
    by: str,
    title: str = "",
    layout: Layout | None = None,
) -> alt.ConcatChart:
    """Return one panel per facet and measure (and layer), with a curve and its range per value of ``by``.

    Args:
        table: As returned by :func:`runner.analysis.curves.curves`.
        facets: Its facets.
        by: The key that tells its curves apart.
        title: Heading of the figure.
        layout: The room for it.
    """
    layout = layout or Layout()
    values = distinct(table[by])
    series = [show(value) for value in values]
    ordered = all(isinstance(value, (int, float)) for value in values)
    table = table.assign(series=table[by].map(show), line=table[by].map(show))
    charts, most = [], 1
    for facet, part in groups(table, [table[key] for key in facets]):
        # In the order asked for, layers as they follow each other.
        kinds = list(dict.fromkeys((row["metric"], plain(row["layer"])) for row in records(part)))
        most = max(most, min(len(kinds), 4))
        for metric, layer in kinds:
            same = [(row["metric"], plain(row["layer"])) == (metric, layer) for row in records(part)]
            name = " ".join(word for word in (metric, layer) if word).replace("_", " ")
            heading = ", ".join(word for word in (facet_label(facets, facet), name) if word)
            charts.append(curve_panel(part[same], heading, by, series, ordered, layout))
    return concat(charts, layout, most=most if most > 1 else 4, title=title)


def curve_panel(
    rows: pd.DataFrame, title: str, by: str, series: Sequence[str] | None, ordered: bool, layout: Layout
) -> Any:
    """Return one measure over steps.

    Args:
        rows: Columns :data:`FIELDS`.
        title: Heading of the panel.
        by: What the series are.
        series: Their names, in order; None lets the data say.
        ordered: Whether they are numbers.
        layout: The room for it.
    """
    import altair as alt

    legend = alt.Legend(
        title=by,
        orient="top",
        columns=3 if layout.paper else 6,
        symbolType="stroke",
        symbolStrokeWidth=2,
        symbolOpacity=1,
    )
    if series is None:
        colors: Any = alt.Scale(range=list(series_scales(range(6), ordered=False)["color"].range))
        dashes: Any = alt.Scale(range=list(DASHES))
    else:
        colors = series_scales(series, ordered)["color"]
        dashes = alt.Scale(domain=list(series), range=[DASHES[i % 6] for i in range(len(series))])
    # A movement is zero at step 0, where a logarithm is not; an error may reach zero, and is drawn linearly.
    later = rows[rows["step"] > 0]
    positive = bool((later["value"].dropna() > 0).all()) and bool((rows["value"].dropna() >= 0).all())
    if positive:
        rows = rows[rows["value"] > 0]
        rows = rows.assign(low=rows["low"].where(rows["low"] > 0, rows["value"]))
    x = alt.X(
        "step:Q",
        scale=alt.Scale(type="symlog"),
        # One format per label: a common one would give all of them the prefix of the largest.
        axis=alt.Axis(title="step", values=_TICKS, labelExpr="format(datum.value, '~s')"),
    )
    y = alt.Y(
        "value:Q",
        scale=number_scale(positive),
        axis=alt.Axis(title=None, format="~g", tickCount=4),
    )
    color = alt.Color("series:N", scale=colors, legend=legend)
    base = alt.Chart(rows_of(rows[list(FIELDS)]))
    area = base.mark_area(opacity=0.18).encode(
        x=x, y=alt.Y("low:Q", title=None), y2="high", color=color, detail="line:N"
    )
    line = base.mark_line(strokeWidth=1.6, strokeJoin="round").encode(
        x=x,
        y=y,
        color=color,
        detail="line:N",
        strokeDash=alt.StrokeDash("series:N", scale=dashes, legend=legend if series else None),
    )
    layers = [area, line]
    if not layout.paper:
        tooltip = [
            alt.Tooltip("series:N", title=by), alt.Tooltip("step:Q", title="step"),
            alt.Tooltip("value:Q", title="value", format=".3~g"),
        ]  # fmt: skip
        layers.append(
            base.mark_point(filled=True, size=22, opacity=1).encode(x=x, y=y, color=color, tooltip=tooltip)
        )
    width = layout.panel or 220
    return layered(layers, title, width, max(80, 0.62 * width))


_TICKS = [0, 1, 10, 100, 1000, 10_000, 100_000, 1_000_000]
