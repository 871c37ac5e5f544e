"""Whether the best learning rate transfers across width."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from rich.console import Console

from runner.analysis.columns import distinct, groups, plain, records, show
from runner.analysis.moment import at_level
from runner.analysis.phase import Axes
from runner.analysis.selection import choose, default_facets, facet_label, with_series
from runner.analysis.transfer import lr_curves
from runner.analysis.transfer import transfer as best_rates
from runner.store import Store
from runner.views import alt
from runner.views.captions import sweep_words
from runner.views.picture import COLUMN, Part, Picture, Section, conditions, names
from runner.views.scales import column_title, lr_unit, number_scale, range_bars, value_channel, width_scale
from runner.views.style import Layout, concat, layered, rows_of, series_scales
from runner.views.terminal import MISSING, plain_table, short
from runner.views.view import View

METRIC = "train_loss"


def transfer(
    store: Store,
    metric: str = METRIC,
    facet: str | Sequence[str] | None = None,
    where: str | Sequence[str] = (),
    all: bool = False,
    at: str | None = None,
) -> View:
    """Return the best learning rate at each width, and whether it transfers.

    Args:
        metric: What shall be small.
        facet: One panel per value of these keys, ``none`` for a single one (the config's ``facet``).
        where: Conditions that choose cells, ``lr=0.1`` or ``width=64,128``.
        all: Whether to take the cells of all launches, not only those of the newest.
        at: Where to look at each cell: at the moment when a measure came to a level, ``train_loss=0.02``.
    """
    where, store = conditions(where), at_level(store, at)
    cells = choose(store, where, all)
    facets = default_facets(store, ("width", "lr")) if facet is None else names(facet)
    losses, best = lr_curves(cells, metric, facets), best_rates(cells, metric, facets)
    return View(
        best,
        _caption(best, facets, metric, sweep_words(cells, store.config, where, ("width", "lr", *facets))),
        lambda layout: chart(losses, best, facets, metric, lr_unit(cells), layout),
        1 + (len(losses.drop_duplicates(list(facets))) if facets else 1),
        lambda out: _print(best, facets, metric, out),
        {"facets": facets, "metric": metric, "at": store.config.get("at")},
    )


def chart(
    losses: pd.DataFrame, best: pd.DataFrame, facets: Sequence[str], metric: str, lr_unit: str | None,
    layout: Layout,
) -> Any:  # fmt: skip
    """Return the loss along the learning rate, a curve per width, and the best rate against width."""
    widths = [show(width) for width in distinct(losses["width"])]
    charts = [
        _losses(part, facet_label(facets, values), widths, metric, lr_unit, layout, named=place == 0)
        for place, (values, part) in enumerate(groups(losses, [losses[facet] for facet in facets]))
    ]
    return concat([*charts, _best(best, facets, lr_unit, layout)], layout, most=3, own=True)


def _losses(
    part: pd.DataFrame, title: str, widths: Sequence[str], metric: str, lr_unit: str | None, layout: Layout,
    named: bool,
) -> Any:  # fmt: skip
    """Return the panel of one facet: loss along lr, its smallest marked."""
    rows = part.dropna(subset=["value"]).assign(series=part["width"].map(show))
    rows = rows[["series", "lr", "value", "seeds", "best"]]
    legend = alt.Legend(title="width", orient="top", columns=2 if layout.paper else 6, symbolType="stroke")
    color = alt.Color(
        "series:N", scale=series_scales(widths, ordered=True)["color"], legend=legend if named else None
    )
    axis = alt.Axis(title=column_title("lr", lr_unit), format="~g", tickCount=4)
    x = alt.X("lr:Q", scale=number_scale(log=True), axis=axis)
    y = value_channel(bool((rows["value"] > 0).all()), metric.replace("_", " "))
    base = alt.Chart(rows_of(rows)).encode(x=x, y=y, color=color)
    tooltip = [
        alt.Tooltip("series:N", title="width"), alt.Tooltip("lr:Q", format=".3~g"),
        alt.Tooltip("value:Q", title=metric, format=".3~g"), alt.Tooltip("seeds:Q"),
    ]  # fmt: skip
    smallest = base.mark_point(shape="diamond", filled=True, size=70, opacity=1).transform_filter(
        "datum.best"
    )
    layers = [base.mark_line(strokeWidth=1.5), smallest]
    if not layout.paper:
        layers.append(base.mark_point(filled=True, size=18, opacity=1).encode(tooltip=tooltip))
    return layered(layers, title, *layout.size())


def _best(best: pd.DataFrame, facets: Sequence[str], lr_unit: str | None, layout: Layout) -> Any:
    """Return the panel of best learning rates: flat is transfer."""
    named = with_series(best, facets).dropna(subset=["best_lr"])
    rows = named[["series", "width", "best_lr", "low", "high", "at_end"]]
    channels = series_scales(list(dict.fromkeys(named["series"])), ordered=False)
    legend = alt.Legend(title=None, orient="top", columns=2, symbolSize=50)
    color = alt.Color("series:N", scale=channels["color"], legend=legend)
    x = width_scale(best["width"]).encode(alt.X, "width")
    y = value_channel(True, "best " + column_title("lr", lr_unit), "best_lr")
    base, known = (alt.Chart(rows_of(part)) for part in (rows, rows.dropna(subset=["low"])))
    line = base.mark_line(strokeWidth=1.4).encode(x=x, y=y, color=color)
    marks = base.mark_point(filled=True, size=40, opacity=1).encode(
        x=x, y=y, color=color, shape=alt.Shape("series:N", scale=channels["shape"], legend=legend),
        tooltip=[
            alt.Tooltip("series:N"), alt.Tooltip("width:Q"), alt.Tooltip("best_lr:Q", format=".3~g"),
            alt.Tooltip("at_end:N"),
        ],
    )  # fmt: skip
    shown = [
        f"{row['series']}: {_drift(row)} doublings per doubling"
        for row in records(named.drop_duplicates("series"))
        if plain(row["drift"]) is not None
    ]
    heading: Any = "best learning rate"
    if shown and not layout.paper:
        heading = alt.TitleParams(heading, subtitle=shown)
    bars = [range_bars(known, x, color)] if rows["low"].notna().any() else []
    return layered([*bars, line, marks], heading, *layout.size())


def _caption(best: pd.DataFrame, facets: Sequence[str], metric: str, shared: str) -> str:
    """Return the caption, the drifts included."""
    drifts = [
        f"{row['series'] or 'all'} {_drift(row)}"
        for row in records(with_series(best, facets).drop_duplicates("series"))
        if plain(row["drift"]) is not None
    ]
    drift = f" Doublings of the best learning rate per doubling of the width: {', '.join(drifts)}."
    drift += " A question mark: the grid is too coarse to tell." if best["too_coarse"].any() else ""
    ends = " Some best learning rates lie at an end of the grid." if best["at_end"].any() else ""
    return (
        f"{metric} along the learning rate, and the best learning rate against width. {shared} Losses are "
        "geometric means over seeds, left out where one diverged; diamonds mark the smallest. Best rates "
        "lie at the vertex of a parabola through the smallest loss and its neighbours. Bars: 95 % "
        f"bootstrap over seeds.{drift if drifts else ''}{ends}"
    )


def _print(best: pd.DataFrame, facets: Sequence[str], metric: str, out: Console) -> None:
    """Print the best learning rates, one row per facet, in as many pieces as the terminal asks for."""
    rows = [
        (facet_label(facets, values), part)
        for values, part in groups(best, [best[facet] for facet in facets])
    ]
    widths = distinct(best["width"])
    each = max(1, (out.width - max(5, *(len(name) for name, _ in rows)) - 22) // 10)
    for start in range(0, len(widths), each):
        piece = widths[start : start + each]
        view = plain_table("(continued)" if start else f"lr of the smallest {metric}")
        for heading in ("width", *map(str, piece), "drift"):
            view.add_column(heading, justify="left" if heading == "width" else "right", no_wrap=True)
        for name, part in rows:
            found = {row["width"]: row for row in records(part)}
            texts = [
                short(found[n]["best_lr"]) + ("*" if found[n]["at_end"] else "") if n in found else MISSING
                for n in piece
            ]
            view.add_row(name, *texts, _drift(part.iloc[0]))
        out.print(view)
    notes = ["drift: doublings of the best lr per doubling of the width, 95 % over seeds; 0 is transfer"]
    if best["too_coarse"].any():
        notes.append("?: grid too coarse, the interval is wider than the drift")
    if best["at_end"].any():
        notes.append("*: an end of the grid, the true best may lie beyond")
    out.print("\n".join(notes), style="dim")


def _drift(row: Mapping[str, Any] | pd.Series) -> str:
    """Return the drift with its interval, and a question mark where that is wider than the drift."""
    drift, low, high = (plain(row[name]) for name in ("drift", "drift_low", "drift_high"))
    if drift is None:
        return "-"
    interval = "" if low is None else f" [{low:+.2f}, {high:+.2f}]"
    return f"{drift:+.2f}{interval}{'?' if row['too_coarse'] else ''}"


def _on_page(store: Store, cells: pd.DataFrame, axes: Axes) -> Part:
    """Return the best learning rates of the cells of the page."""
    losses, best = lr_curves(cells, METRIC, axes.facets), best_rates(cells, METRIC, axes.facets)
    return Part(chart(losses, best, axes.facets, METRIC, lr_unit(cells), Layout()))


PICTURE = Picture(
    transfer,
    (
        "runner transfer",
        "runner transfer outputs/digits --metric test_loss --out transfer.pdf",
        "runner transfer --where parameterization=sp,mup --json",
    ),
    {"metric": COLUMN},
)
SECTIONS = [
    Section(
        "transfer",
        "Best learning rate against width",
        "Where the best learning rate stays put as width grows, it can be tuned on a narrow "
        "network and used on a wide one (muTransfer: Yang et al., arXiv 2203.03466).",
        _on_page,
        (125, 180, 290),
        "No best learning rates",
    )
]
