"""Whether the best learning rate transfers across width, or along another key, and where training breaks."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

from runner.analysis.columns import distinct, groups, records, show
from runner.analysis.edges import stable_rates
from runner.analysis.moment import at_level
from runner.analysis.selection import choose, default_facets, facet_label, with_series
from runner.analysis.transfer import lr_curves
from runner.analysis.transfer import transfer as best_rates
from runner.store import Store
from runner.views import alt
from runner.views.captions import (
    AT_EDGE,
    BEST_INTERVAL,
    hollow_words,
    repeated,
    sweep_words,
    twin_series,
)
from runner.views.drift import (
    EDGE,
    PUT,
    drift_laws,
    drift_lines,
    drift_table,
    is_bound,
    rate_words,
    said_of,
)
from runner.views.laws import (
    AGREEMENT,
    BY_PROFILE,
    FITTED,
    THEORY,
    law_lines,
    sentence,
)
from runner.views.picture import COLUMN, PIECES, Picture, conditions, names
from runner.views.scales import Scale, column_title, column_words, log_scale, lr_unit, range_bars, value_scale
from runner.views.style import TWIN, Layout, concat, layered, legend, rows_of, series_scales
from runner.views.terminal import MISSING, plain_table
from runner.views.view import View

METRIC = "train_loss"
_OWN = ("stroke", "fill", "shape")
"""Channels of the panel of rates; colours are those of the losses."""


def transfer(
    store: Store,
    metric: str = METRIC,
    facet: str | Sequence[str] | None = None,
    where: str | Sequence[str] = (),
    all: bool = False,
    at: str | None = None,
    x: str = "width",
    pieces: str | int | None = None,
    edge: bool = False,
) -> View:
    """Return the best learning rate at each width, and whether it transfers; or along another key.

    Args:
        metric: What shall be small.
        facet: One panel per value of these keys, ``none`` for a single one (the config's ``facet``).
        where: Conditions that choose cells, ``lr=0.1`` or ``width=64,128``.
        all: Whether to take the cells of all launches, not only those of the newest.
        at: Where to look at each cell: at the moment when a measure came to a level, ``train_loss=0.02``.
        x: Numeric key along which the rate may drift.
        pieces: Of the drift, each with a slope; auto is as many as the data support (1, against another x
            auto).
        edge: The largest stable learning rate instead of the best, beside theory.
    """
    where, store = conditions(where), at_level(store, at)
    cells = choose(store, where, all)
    facets = default_facets(store, (x, "lr")) if facet is None else names(facet)
    losses = lr_curves(cells, metric, facets, x)
    rates = stable_rates(cells, facets, x, pieces) if edge else best_rates(cells, metric, facets, x, pieces)
    shared = f"{sweep_words(cells, store.config, where, (x, 'lr', *facets))} {hollow_words(cells)}".strip()
    return View(
        rates,
        _caption(rates, facets, metric, shared, x),
        lambda layout: chart(losses, rates, facets, metric, lr_unit(cells), layout, x, repeated(cells)),
        1 + (len(losses.drop_duplicates(list(facets))) if facets else 1),
        lambda out: _print(rates, facets, metric, out, x),
        {"facets": facets, "metric": metric, "at": store.config.get("at"), "x": x},
    )


def chart(
    losses: pd.DataFrame, rates: pd.DataFrame, facets: Sequence[str], metric: str, lr_unit: str | None,
    layout: Layout, x: str = "width", same: Collection[str] = (),
) -> Any:  # fmt: skip
    """Return the rate against the key, and the loss along the learning rate, a curve per value of the key.

    Args:
        same: Parameterizations whose networks are those of one before.
    """
    values = [show(value) for value in distinct(losses[x])]
    found = losses.dropna(subset=["value"])
    positive = bool((found["value"] > 0).all())
    scales = (
        value_scale(found["lr"], column_title("lr", lr_unit)),
        value_scale(found["value"], column_words(metric), positive),
    )
    charts = [
        _losses(part, facet_label(facets, found), values, metric, scales, layout, x)
        for found, part in groups(losses, [losses[facet] for facet in facets])
    ]
    # The answer first, then the losses that it comes from.
    return concat([_rates(rates, facets, lr_unit, layout, x, same), *charts], layout, most=3, own=_OWN)


def _rate_of(rates: pd.DataFrame) -> tuple[str, str]:
    """Return the column of the learning rate, and its words."""
    return ("edge", "largest stable") if "edge" in rates else ("best_lr", "best")


def _losses(
    part: pd.DataFrame, title: str, values: Sequence[str], metric: str, scales: tuple[Scale, Scale],
    layout: Layout, key: str,
) -> Any:  # fmt: skip
    """Return the panel of one facet: loss along lr, its smallest marked."""
    rows = part.dropna(subset=["value"]).assign(series=part[key].map(show))
    rows = rows[["series", "lr", "value", "seeds", "best"]]
    names = legend(values, layout, key, 6, symbolType="stroke", symbolStrokeWidth=2)
    color = alt.Color(
        "series:N",
        scale=series_scales(values, ordered=True)["color"],
        legend=names,
    )
    x, y = scales[0].encode(alt.X, "lr"), scales[1].encode(alt.Y, "value")
    base = alt.Chart(rows_of(rows)).encode(x=x, y=y, color=color)
    tooltip = [
        alt.Tooltip("series:N", title=key), alt.Tooltip("lr:Q", format=".3~g"),
        alt.Tooltip("value:Q", title=metric, format=".3~g"), alt.Tooltip("seeds:Q"),
    ]  # fmt: skip
    smallest = base.mark_point(
        shape="diamond", filled=True, size=36 if layout.paper else 70, opacity=1
    ).transform_filter("datum.best")
    layers = [base.mark_line(strokeWidth=1.5), smallest]
    if not layout.paper:
        layers.append(base.mark_point(filled=True, size=18, opacity=1).encode(tooltip=tooltip))
    return layered(layers, title, *layout.size())


def _rates(
    rates: pd.DataFrame, facets: Sequence[str], lr_unit: str | None, layout: Layout, key: str,
    same: Collection[str],
) -> Any:  # fmt: skip
    """Return the panel of learning rates: flat is transfer, and open marks without bars are bounds.

    No line joins bounds: it would be flat, and look like transfer.
    """
    rate, words = _rate_of(rates)
    rates = rates.assign(bound=is_bound(rates))
    named = with_series(rates, facets).dropna(subset=[rate]).rename(columns={key: "x", rate: "value"})
    rows = named[["series", "x", "value", "low", "high", "bound"]]
    twin, size = named["series"].isin(twin_series(named, same)), 30.0 if layout.paper else 40.0
    # Of twins the one in front is larger and pale, so that both are seen.
    rows = rows.assign(
        filled=np.where(rows["bound"], 0.0, np.where(twin, 0.3, 1.0)), size=np.where(twin, TWIN, 1.0) * size
    )
    series = list(dict.fromkeys(named["series"]))
    channels = series_scales(series, ordered=False)
    # On a screen below the panel, so that titles side by side are as high.
    below: dict[str, Any] = {} if layout.paper else {"orient": "bottom", "symbolOpacity": 1, "titleLimit": 0}
    unit = None if layout.paper else f"drift: doublings of the rate per doubling of {key_words(key)}, 95 %"
    names = legend(series, layout, unit, columns=2, says=said_of(rates, facets), **below)
    # Not by the channel of the losses' colours: both legends stand above the panels in print.
    stroke = alt.Stroke("series:N", scale=channels["color"], legend=names)
    fill = alt.Fill("series:N", scale=channels["color"], legend=names)
    x = log_scale(rates[key], key).encode(alt.X, "x")
    # The heading says which rate it is, and its unit has little room.
    title = column_title("lr", lr_unit)
    up = value_scale(rows[["value", "low", "high"]].stack(), f"best {title}" if rate == "best_lr" else title)
    y = up.encode(alt.Y, "value")
    sure = rows[rows["low"].notna() & ~rows["bound"]]
    base, known = (alt.Chart(rows_of(part)) for part in (rows, sure))
    marks = base.mark_point(opacity=1, strokeWidth=0.8 if layout.paper else 1.4).encode(
        x=x, y=y, fill=fill, stroke=stroke,
        fillOpacity=alt.FillOpacity("filled:Q", scale=None), size=alt.Size("size:Q", scale=None),
        shape=alt.Shape("series:N", scale=channels["shape"], legend=names),
        tooltip=[
            alt.Tooltip("series:N"), alt.Tooltip("x:Q", title=key),
            alt.Tooltip("value:Q", title=rate, format=".3~g"), alt.Tooltip("bound:N"),
        ],
    )  # fmt: skip
    if "piece" in rates:
        fitted, predicted = law_lines(rows, drift_laws(rates, facets))
        lines = [
            alt.Chart(rows_of(frame)).mark_line(**style).encode(x=x, y=y, stroke=stroke, detail="piece:N")
            for frame, style in ((predicted, THEORY), (fitted, FITTED))
            if len(frame)
        ]
    else:
        told = alt.Chart(rows_of(rows[~rows["bound"]]))
        lines = [told.mark_line(strokeWidth=1.4).encode(x=x, y=y, stroke=stroke)]
    bars = [range_bars(known, x, up, stroke=stroke)] if len(sure) else []
    return layered([*bars, *lines, marks], f"{words} learning rate", *layout.size())


def _caption(rates: pd.DataFrame, facets: Sequence[str], metric: str, shared: str, x: str) -> str:
    """Return the caption, the drifts included."""
    rate, words = _rate_of(rates)
    kind = f" with {BY_PROFILE}" if "piece" in rates else ""
    drifts = drift_lines(rates, facets).values()
    drift = (
        f" Doublings of the {words} learning rate per doubling of {key_words(x)}{kind}: {'; '.join(drifts)}."
    )
    drift += f" {sentence(PUT)}"
    if rate == "edge":
        method = (
            "Largest stable rates are geometric means over seeds of the middle between the largest rate "
            "that did not diverge and the smallest that did; bars reach from one to the other. Solid lines "
            "are fits, dotted ones have theory's slope."
        )
        ends = " Where a seed diverged nowhere or everywhere, there is none." if rates["at_end"].any() else ""
    else:
        method = (
            f"{BEST_INTERVAL.format(x=x)}. Open marks without bars are bounds: the last rate before "
            "divergence, or an end of the grid."
        )
        ends = " No drift is fitted through bounds." if is_bound(rates).any() else ""
        ends += " Some best learning rates lie at an end of the grid." if rates["at_end"].any() else ""
    return (
        f"The {words} learning rate against {x}, and {metric} along the learning rate. {shared} Losses are "
        "geometric means over seeds, left out where one diverged; diamonds mark the smallest. "
        f"{method}{drift if drifts else ''}{ends}"
    )


def _print(rates: pd.DataFrame, facets: Sequence[str], metric: str, out: Console, x: str) -> None:
    """Print the learning rates, one row per facet, in as many tables as the terminal asks for."""
    rate, words = _rate_of(rates)
    rows = [
        (facet_label(facets, values), part)
        for values, part in groups(rates, [rates[facet] for facet in facets])
    ]
    values = distinct(rates[x])
    named = max(len(x), *(len(name) for name, _ in rows))
    each = max(1, (out.width - named) // 10)
    for start in range(0, len(values), each):
        piece = values[start : start + each]
        title = f"lr of the smallest {metric}" if rate == "best_lr" else "largest stable lr"
        view = plain_table("(continued)" if start else title)
        for heading in (x, *map(show, piece)):
            view.add_column(heading, justify="left" if heading == x else "right", no_wrap=True)
        for name, part in rows:
            found = {row[x]: row for row in records(part)}
            texts = [rate_words(found[n], rate) if n in found else MISSING for n in piece]
            view.add_row(name, *texts)
        out.print(view)
    out.print()
    out.print(drift_table(rates, rows))
    kind = "by profile likelihood" if "piece" in rates else "of seeds and grid"
    notes = [f"drift: doublings of the {words} lr per doubling of {key_words(x)}, 95 % {kind}", PUT]
    if "verdict" in rates and rates["verdict"].notna().any():
        notes.append(AGREEMENT)
    if rates["at_end"].any():
        beyond = "a seed diverged nowhere or everywhere, the edge lies beyond the grid"
        ends = "an end of the grid, the true best may lie beyond"
        notes.append(f"*: {beyond if rate == 'edge' else ends}")
    if rates.get("at_edge", pd.Series(dtype=bool)).any():
        notes.append(f"{EDGE}: {AT_EDGE}")
    out.print("\n".join(notes), style="dim")


def key_words(x: str) -> str:
    """Return the key in a sentence."""
    return "the width" if x == "width" else x


PICTURE = Picture(
    transfer,
    (
        "runner transfer",
        "runner transfer outputs/digits --metric test_loss --out transfer.pdf",
        "runner transfer --where parameterization=sp,mup --json",
        "runner transfer outputs/rich --x gamma --edge",
    ),
    {"metric": COLUMN, "pieces": PIECES},
)
