"""Whether the best learning rate transfers across width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from runner.analysis.columns import distinct, groups, plain, records, show
from runner.analysis.selection import facet_label
from runner.views.charts.scales import column_title, number_scale, width_scale
from runner.views.charts.style import Layout, concat, layered, rows_of, series_scales

if TYPE_CHECKING:
    import altair as alt


def transfer_chart(
    losses: pd.DataFrame,
    best: pd.DataFrame,
    facets: Sequence[str],
    metric: str,
    lr_unit: str | None = None,
    title: str = "",
    layout: Layout | None = None,
) -> alt.ConcatChart:
    """Return the loss along the learning rate, one curve per width, and the best learning rate against width.

    Args:
        losses: As returned by :func:`runner.analysis.transfer.lr_curves`.
        best: As returned by :func:`runner.analysis.transfer.transfer`.
        facets: Their facets: a panel of losses each, a series of best learning rates each.
        metric: The loss.
        lr_unit: Unit of ``lr``, for the axis titles.
        title: Heading of the figure.
        layout: The room for it.
    """
    layout = layout or Layout()
    widths = [show(width) for width in distinct(losses["width"])]
    charts = [
        _losses(part, facet_label(facets, values), widths, metric, lr_unit, layout, named=place == 0)
        for place, (values, part) in enumerate(groups(losses, [losses[facet] for facet in facets]))
    ]
    charts.append(_best(best, facets, lr_unit, layout))
    return concat(charts, layout, most=3, title=title, own=True)


def _losses(
    part: pd.DataFrame,
    title: str,
    widths: Sequence[str],
    metric: str,
    lr_unit: str | None,
    layout: Layout,
    named: bool,
) -> Any:
    """Return the panel of one facet: loss along lr, its smallest marked."""
    import altair as alt

    rows = part.dropna(subset=["value"]).assign(series=part["width"].map(show))
    rows = rows[["series", "lr", "value", "seeds", "best"]]
    legend = alt.Legend(title="width", orient="top", columns=2 if layout.paper else 6, symbolType="stroke")
    color = alt.Color(
        "series:N", scale=series_scales(widths, ordered=True)["color"], legend=legend if named else None
    )
    x = alt.X(
        "lr:Q",
        scale=alt.Scale(type="log"),
        axis=alt.Axis(title=column_title("lr", lr_unit), format="~g", tickCount=4),
    )
    positive = bool((rows["value"] > 0).all())
    y = alt.Y(
        "value:Q",
        scale=number_scale(positive),
        axis=alt.Axis(title=metric.replace("_", " "), format="~g", tickCount=4),
    )
    base = alt.Chart(rows_of(rows)).encode(x=x, y=y, color=color)
    tooltip = [
        alt.Tooltip("series:N", title="width"), alt.Tooltip("lr:Q", format=".3~g"),
        alt.Tooltip("value:Q", title=metric, format=".3~g"), alt.Tooltip("seeds:Q"),
    ]  # fmt: skip
    smallest = base.mark_point(shape="diamond", filled=True, size=70, opacity=1).transform_filter(
        "datum.best"
    )
    width = layout.panel or 210
    layers = [base.mark_line(strokeWidth=1.5), smallest]
    if not layout.paper:
        layers.append(base.mark_point(filled=True, size=18, opacity=1).encode(tooltip=tooltip))
    return layered(layers, title, width, max(90, 0.72 * width))


def _best(best: pd.DataFrame, facets: Sequence[str], lr_unit: str | None, layout: Layout) -> Any:
    """Return the panel of best learning rates: flat is transfer."""
    import altair as alt

    named = best.assign(
        series=[facet_label(facets, [row[facet] for facet in facets]) for row in records(best)]
    )
    named = named.dropna(subset=["best_lr"])
    series = list(dict.fromkeys(named["series"]))
    rows = named[["series", "width", "best_lr", "low", "high", "at_end"]]
    channels = series_scales(series, ordered=False)
    legend = alt.Legend(title=None, orient="top", columns=2, symbolSize=50)
    color = alt.Color("series:N", scale=channels["color"], legend=legend)
    x = width_scale(best["width"]).encode(alt.X, "width")
    axis = alt.Axis(title="best " + column_title("lr", lr_unit), format="~g", tickCount=4)
    y = alt.Y("best_lr:Q", scale=alt.Scale(type="log"), axis=axis)
    base, known = (alt.Chart(rows_of(part)) for part in (rows, rows.dropna(subset=["low"])))
    bars = known.mark_rule(strokeWidth=1.4).encode(
        x=x, y=alt.Y("low:Q", scale=alt.Scale(type="log")), y2="high", color=color
    )
    line = base.mark_line(strokeWidth=1.4).encode(x=x, y=y, color=color)
    marks = base.mark_point(filled=True, size=40, opacity=1).encode(
        x=x, y=y, color=color, shape=alt.Shape("series:N", scale=channels["shape"], legend=legend),
        tooltip=["series:N", "width:Q", alt.Tooltip("best_lr:Q", format=".3~g"), "at_end:N"],
    )  # fmt: skip
    drifts = dict(zip(named["series"], named["drift"], strict=True))
    shown = [
        f"{name}: {drift:+.2f} doublings per doubling"
        for name, drift in drifts.items()
        if plain(drift) is not None
    ]
    width = layout.panel or 210
    heading = (
        alt.TitleParams("best learning rate", subtitle=shown)
        if shown and not layout.paper
        else "best learning rate"
    )
    return layered(
        [*([bars] if rows["low"].notna().any() else []), line, marks], heading, width, max(90, 0.72 * width)
    )
