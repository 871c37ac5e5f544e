"""Finite networks beside the limit of infinite width: losses over training, mean deviation and spread."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from rich.console import Console

from runner.analysis.columns import distinct, groups, plain, records, show
from runner.analysis.limit import QUANTITIES, approach, curves_of_limit
from runner.analysis.selection import choose, default_facets, facet_label, with_series
from runner.store import Store
from runner.views import alt
from runner.views.captions import sweep_words
from runner.views.fit import panel
from runner.views.laws import because_notes, slope_lines
from runner.views.picture import Picture, conditions, names
from runner.views.scales import value_channel, width_scale
from runner.views.style import OWN, Layout, concat, layered, legend, rows_of, series_scales, theme
from runner.views.terminal import plain_table, short
from runner.views.view import View

_HEADINGS = {
    "loss_mean": "loss", "loss_adjusted": "adj", "loss_adjusted_error": "+-", "loss_spread": "spread",
    "loss_worst": "worst", "kernel_adjusted": "kernel\nadj", "kernel_adjusted_error": "+-",
    "kernel_spread": "spread", "kernel_apart": "apart",
}  # fmt: skip
"""Of the printed table, in percent."""
_TICKS = [0, 1, 10, 100, 1000, 10_000, 100_000]


def limit(
    store: Store, facet: str | Sequence[str] | None = None, where: str | Sequence[str] = (), all: bool = False
) -> View:
    """Return networks of each width beside their limit of infinite width: losses, deviation, spread, slopes.

    Args:
        facet: One limit per value of these keys, ``none`` for a single one (the config's ``facet``).
        where: Conditions that choose cells, ``gamma=1`` or ``width=64,128``.
        all: Whether to take the cells of all launches, not only those of the newest.
    """
    where = conditions(where)
    cells = choose(store, where, all)
    facets = default_facets(store, ("width",)) if facet is None else names(facet)
    table, fits = approach(cells, store.trace, facets)
    curves = curves_of_limit(cells, store.trace, facets)
    words = sweep_words(cells, store.config, where, ("width", *facets))
    return View(
        table,
        _caption(table, fits, facets, words),
        lambda layout: chart(table, fits, curves, facets, layout),
        len(table.drop_duplicates([*facets])) + len(_kinds(table)),
        lambda out: _print(table, fits, facets, out),
        {"facets": facets},
        {"slopes": fits, "curves": curves},
    )


def _kinds(table: pd.DataFrame) -> list[tuple[str, str]]:
    """Return the panels against width: quantities, and their mean deviation or spread."""
    return [
        (quantity, of)
        for quantity in QUANTITIES
        for of in ("mean", "spread")
        if (table[_shown(quantity, of)].abs() > 0).any()
    ]


def _shown(quantity: str, of: str) -> str:
    """Return the column that a panel shows; of means the one that its slope is fitted to."""
    return f"{quantity}_adjusted" if of == "mean" else f"{quantity}_{of}"


def chart(
    table: pd.DataFrame, fits: pd.DataFrame, curves: pd.DataFrame, facets: Sequence[str], layout: Layout
) -> Any:
    """Return the losses of each facet, the limit in black, then deviations and spreads against width."""
    widths = [show(width) for width in distinct(curves["width"])]
    table, fits = (with_series(frame, facets) for frame in (table, fits))
    series = list(dict.fromkeys(table["series"]))
    charts = [
        _losses(facet_label(facets, values), part, widths, series, layout)
        for values, part in groups(curves, [curves[facet] for facet in facets])
    ]
    across = width_scale(table["width"])
    for quantity, of in _kinds(table):
        value = table[_shown(quantity, of)].abs()
        error = table[f"{quantity}_adjusted_error"] if of == "mean" else 0.0
        points = table.assign(value=value, low=value - error, high=value + error)
        points = points[points["value"] > 0]
        points["low"] = points["low"].clip(lower=points["value"] / 10)  # a bar to below 0 has no end there
        mine = fits[(fits["quantity"] == quantity) & (fits["of"] == of)]
        title = f"{quantity}: {'mean deviation' if of == 'mean' else 'spread over seeds'}"
        charts.append(panel(title, points, mine, series, layout, across, "width"))
    return concat(charts, layout, most=3, own=OWN)


def _losses(
    title: str, curves: pd.DataFrame, widths: Sequence[str], series: Sequence[str], layout: Layout
) -> Any:
    """Return the losses of one facet over steps: a colour per width, black the limit, dashed the lazy one."""
    scale = series_scales(widths, ordered=True)["color"]
    if layout.paper:  # panels share their colours there: those of widths and of facets are told apart
        others = series_scales(series, ordered=False)["color"]
        scale = alt.Scale(domain=[*widths, *series], range=[*scale.range, *others.range])
    rows = curves.assign(series=curves["width"].map(show))
    log = bool((rows[["value", "limit", "lazy"]] > 0).all(axis=None))
    x = alt.X(
        "step:Q", scale=alt.Scale(type="symlog"),
        axis=alt.Axis(title="step", values=_TICKS, labelExpr="format(datum.value, '~s')"),
    )  # fmt: skip
    shown = [*widths, *series] if layout.paper else widths
    strokes = legend(
        shown, layout, None if layout.paper else "width", 6,
        symbolType="stroke", symbolStrokeWidth=2, symbolOpacity=1,
    )  # fmt: skip
    color = alt.Color("series:N", scale=scale, legend=strokes)
    base = alt.Chart(rows_of(rows[["series", "step", "value", "low", "high"]])).encode(x=x, color=color)
    infinite = rows.drop_duplicates("step").sort_values("step")
    layers = [
        base.mark_area(opacity=0.15).encode(y=alt.Y("low:Q", title=None), y2=alt.Y2("high")),
        base.mark_line(strokeWidth=1.4).encode(y=value_channel(log)),
    ]
    dashed: dict[str, Any] = {"strokeDash": [4, 3], "opacity": 0.7}
    solid: dict[str, Any] = {}
    for name, style in (("lazy", dashed), ("limit", solid)):
        line = alt.Chart(rows_of(infinite[["step", name]].rename(columns={name: "value"})))
        layers.append(
            line.mark_line(strokeWidth=2, stroke=theme("ink"), **style).encode(x=x, y=value_channel(log))
        )
    more: dict[str, Any] = {} if layout.paper else {"subtitle": ["black: infinite width; dashed: lazy"]}
    return layered(layers, alt.TitleParams(title or "train loss", **more), *layout.size(220, 0.7, 80))


def _slopes(fits: pd.DataFrame, facets: Sequence[str]) -> list[str]:
    """Return the slopes in words, a line for each quantity and facet."""
    lines = []
    for (quantity, of), part in groups(with_series(fits, facets), [fits["quantity"], fits["of"]]):
        if part["slope"].notna().any():
            lines += [
                f"{quantity} {of}, {line}" for line in slope_lines(part[part["slope"].notna()], signed=True)
            ]
    return lines


def _caption(table: pd.DataFrame, fits: pd.DataFrame, facets: Sequence[str], shared: str) -> str:
    """Return the caption, the slopes included."""
    return (
        "Training losses of networks of finite width, mean and range over seeds, beside infinite width "
        "(black) and its lazy limit (dashed); then the mean deviation and the spread over seeds of the area "
        "under the loss curve, relative to the limit's, and of the kernel on probes along that of the limit, "
        f"mean over steps. {shared} Bars are standard errors, lines the fits: of means weighted by their "
        "errors, 95 % intervals by profile likelihood; of spreads least squares in both logarithms, by a "
        "bootstrap over seeds. Dotted lines have theory's slope. Largest standard error of a limit by "
        f"sampling: {short(plain(table['limit_error'].max()))}. "
        f"Slopes: {'; '.join(_slopes(fits, facets)) or 'none'}."
    )


def _print(table: pd.DataFrame, fits: pd.DataFrame, facets: Sequence[str], out: Console) -> None:
    """Print the deviations, one table per facet, and the slopes."""
    for values, part in groups(table, [table[facet] for facet in facets]):
        view = plain_table(facet_label(facets, values))
        for heading in ("width", *_HEADINGS.values(), "seeds"):
            view.add_column(heading, justify="right", no_wrap=True, header_style="dim", vertical="bottom")
        for row in records(part):
            values_ = (row[name] for name in _HEADINGS)
            view.add_row(show(row["width"]), *map(_percent, values_), str(row["seeds"]))
        out.print(view)
        if (left := plain(part["kernel_left"].iloc[0])) is not None:
            out.print(f"kernel apart at any width, without the spread: {100 * left:.2f} %", style="dim")
        out.print()
    if lines := _slopes(fits, facets):
        out.print("slopes against width, 95 %:")
        out.print("\n".join(f"  {line}" for line in lines))
    notes = [
        "percent. loss: mean over seeds of (area under the loss curve) / (the limit's) - 1; adj, +-: without "
        "what the start explains of it, and its standard error; worst: of the mean loss, at a measured step; "
        "kernel: the same on probes, along the limit's; apart: in all directions, RMS over seeds and steps",
        f"limit: standard error by sampling up to {short(plain(table['limit_error'].max()))}"
        if table["limit_error"].max() > 0
        else "limit: exact",
    ]
    notes += because_notes(records(fits))
    out.print("\n".join(notes), style="dim")


def _percent(share: float | None) -> str:
    """Return a share in percent, in six characters at most: eleven columns fit into a line of 80."""
    if share is None:
        return "-"
    digits = ".2f" if abs(share) < 0.9999 else ".0f" if abs(share) < 999 else ".0e"
    return f"{100 * share:{digits}}"


PICTURE = Picture(
    limit,
    (
        "runner limit outputs/infinite_width",
        "runner limit --where gamma=1 --facet depth --out limit.pdf",
        "runner limit outputs/infinite_width --json",
    ),
)
