"""Training curves."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from rich.columns import Columns
from rich.console import Console

from runner.analysis.columns import distinct, groups, plain, records, show
from runner.analysis.curves import DEFAULT_METRICS
from runner.analysis.curves import curves as over_steps
from runner.analysis.moment import at_level
from runner.analysis.selection import choose, default_facets, facet_label
from runner.store import Store
from runner.views import alt
from runner.views.braille import LEAST_WIDTH, Line, chart
from runner.views.captions import sweep_words
from runner.views.lettering import wrapped
from runner.views.picture import METRICS, Picture, conditions, names
from runner.views.scales import Scale, column_words, value_channel, value_scale
from runner.views.style import DASHES, Layout, concat, layered, legend, rows_of, series_scales, turned
from runner.views.terminal import drawable, plain_table, short, some
from runner.views.view import View

FIELDS = ("series", "line", "step", "value", "low", "high")
"""What a row of a panel's data holds; ``line`` tells apart curves of one series."""
_TICKS = [0, 1, 10, 100, 1000, 10_000, 100_000, 1_000_000]


def curves(
    store: Store, metric: str | Sequence[str] | None = None, by: str = "width",
    facet: str | Sequence[str] | None = None, where: str | Sequence[str] = (), all: bool = False,
    at: str | None = None,
) -> View:  # fmt: skip
    """Return training curves: measures over steps, median and range of the seeds.

    Args:
        metric: Columns of trace or layers; ``layers.NAME`` where both have one of that name.
        by: One curve per value of this key.
        facet: One panel per value of these keys, ``none`` for a single one (the config's ``facet``).
        where: Conditions that choose cells, ``lr=0.1`` or ``width=64,128``.
        all: Whether to take the cells of all launches, not only those of the newest.
        at: Where to look at each cell: at the moment when a measure came to a level, ``train_loss=0.02``.
    """
    where, store = conditions(where), at_level(store, at)
    cells = choose(store, where, all)
    facets = default_facets(store, (by,)) if facet is None else names(facet)
    chosen = names(metric or DEFAULT_METRICS)
    table = over_steps(cells, store.trace, store.layers, chosen, by, facets)
    columns = len(table.drop_duplicates(list(facets))) if facets else 1
    return View(
        table,
        f"{', '.join(chosen)} over optimizer steps, one curve per {by}. "
        f"{sweep_words(cells, store.config, where, (by, *facets))} Curves are medians over "
        "the seeds that were still training, bands reach from the smallest to the largest.",
        lambda layout: _chart(table, facets, by, layout),
        columns * len(table.drop_duplicates(["metric", "layer"])),
        lambda out: _print(table, facets, by, out),
        {"facets": facets, "by": by, "at": store.config.get("at")},
        across=columns,
    )


def _chart(table: pd.DataFrame, facets: Sequence[str], by: str, layout: Layout) -> Any:
    """Return one panel per facet and measure (and layer), with a curve and its range per value of ``by``."""
    values = distinct(table[by])
    series = [show(value) for value in values]
    ordered = all(isinstance(value, (int, float)) for value in values)
    table = table.assign(series=table[by].map(show), line=table[by].map(show))
    shared = {tuple(words): _value_axis(rows) for words, rows in _kinds(table)}
    last = float(table["step"].max())
    parts = {
        facet_label(facets, facet): {tuple(words): rows for words, rows in _kinds(part)}
        for facet, part in groups(table, [table[key] for key in facets])
    }
    most = min(max(map(len, parts.values()), default=1), 4)
    panels = [(label, words) for label, kinds in parts.items() for words in kinds]
    if layout.paper:  # the facets side by side, so that a row has the axis of its measure
        panels = [(label, words) for words in shared for label in parts]
    charts = []
    for label, words in panels:
        name, up = " ".join((column_words(words[0]), *words[1:])).replace("_", " "), shared[words]
        heading = ", ".join(word for word in (label, name) if word)
        if layout.paper and len(parts) > 1:
            up = replace(up, title=wrapped(name, _size(layout)[1] * 1.15, layout.font + 1))
            heading = label
        rows = parts[label].get(words, table.iloc[:0])  # none where all cells of a facet diverged
        charts.append(curve_panel(rows, heading, by, series, ordered, layout, (up, last)))
    return concat(charts, layout, most=most if most > 1 else 4)


def _value_axis(rows: pd.DataFrame) -> Scale:
    """Return the axis of a measure, logarithmic where it is positive but at init."""
    later = rows.loc[rows["step"] > 0, "value"].dropna()
    log = bool((later > 0).all()) and bool((rows["value"].dropna() >= 0).all())
    return value_scale(rows[["value", "low", "high"]].stack(), log=log)


def _size(layout: Layout) -> tuple[float, float]:
    return layout.size(220, 0.62, 80)


def _kinds(part: pd.DataFrame) -> list[tuple[list[str], pd.DataFrame]]:
    """Return measure (and layer) and their rows, in the order asked for, layers as they follow each other."""
    keys = [(row["metric"], plain(row["layer"])) for row in records(part)]
    return [
        ([word for word in kind if word], part[[key == kind for key in keys]]) for kind in dict.fromkeys(keys)
    ]


def curve_panel(
    rows: pd.DataFrame, title: str, by: str, series: Sequence[str] | None, ordered: bool, layout: Layout,
    shared: tuple[Scale, float] | None = None,
) -> Any:  # fmt: skip
    """Return one measure over steps.

    Args:
        rows: Columns :data:`FIELDS`.
        series: Their names, in order; None lets the data say.
        ordered: Whether they are numbers.
        shared: Axis of the values and last step of all panels; None lets the data of this one say.
    """
    look: dict[str, Any] = {"symbolType": "stroke", "symbolStrokeWidth": 2, "symbolOpacity": 1}
    names = legend(series or (), layout, by, 6, **look)
    if series is None:
        colors: Any = alt.Scale(range=list(series_scales(range(6), ordered=False)["color"].range))
        dashes: Any = alt.Scale(range=list(DASHES))
    else:
        colors = series_scales(series, ordered)["color"]
        dashes = alt.Scale(domain=list(series), range=turned(DASHES, len(series)))
    # A movement is zero at step 0, where a logarithm is not; an error may reach zero, and is drawn linearly.
    later = rows[rows["step"] > 0]
    positive = bool((later["value"].dropna() > 0).all()) and bool((rows["value"].dropna() >= 0).all())
    if shared is not None:
        positive = shared[0].log
    if positive:
        rows = rows[rows["value"] > 0]
        rows = rows.assign(low=rows["low"].where(rows["low"] > 0, rows["value"]))
    span: dict[str, Any] = {} if shared is None else {"domain": [0, shared[1]], "nice": False}
    x = alt.X(
        "step:Q",
        scale=alt.Scale(type="symlog", **span),
        # One format per label: a common one would give all of them the prefix of the largest.
        axis=alt.Axis(
            title="step",
            values=_TICKS,
            labelExpr="format(datum.value, '~s')",
            labelOverlap="parity",
            labelSeparation=3,
        ),
    )
    color = alt.Color("series:N", scale=colors, legend=names)
    y = value_channel(positive) if shared is None else shared[0].encode(alt.Y, "value")
    dash = alt.StrokeDash("series:N", scale=dashes, legend=names if series else None)
    base = alt.Chart(rows_of(rows[list(FIELDS)])).encode(x=x, color=color)
    low = alt.Y("low:Q", title=None) if shared is None else shared[0].encode(alt.Y, "low")
    area = base.mark_area(opacity=0.18).encode(y=low, y2=alt.Y2("high"), detail=alt.Detail("line:N"))
    line = base.mark_line(strokeWidth=1.6, strokeJoin="round").encode(
        y=y, detail=alt.Detail("line:N"), strokeDash=dash
    )
    layers = [area, line]
    if not layout.paper:
        tooltip = [
            alt.Tooltip("series:N", title=by), alt.Tooltip("step:Q", title="step"),
            alt.Tooltip("value:Q", title="value", format=".3~g"),
        ]  # fmt: skip
        layers.append(base.mark_point(filled=True, size=22, opacity=1).encode(y=y, tooltip=tooltip))
    return layered(layers, title, *_size(layout))


def _print(table: pd.DataFrame, facets: Sequence[str], by: str, out: Console) -> None:
    """Draw charts on a terminal that shows braille; elsewhere print tables."""
    if drawable(out):
        _draw(table, facets, by, out)
    else:
        _print_tables(table, facets, by, out)
    seeds = int(table["seeds"].max()) if len(table) else 0
    of = f"median of {seeds} seeds" if seeds > 1 else "one seed"
    out.print(f"{of} at measured steps; --json and --csv have their range", style="dim")


def _draw(table: pd.DataFrame, facets: Sequence[str], by: str, out: Console) -> None:
    """Draw a chart of curves per facet and measure, as many side by side as there is room for."""
    values = distinct(table[by])
    ordered = all(isinstance(value, (int, float)) for value in values)
    series = [show(value) for value in values]
    styles = dict(zip(series, series_scales(series, ordered)["color"].range, strict=True))
    parts = [
        (", ".join(word for word in (facet_label(facets, facet), *words) if word), rows)
        for facet, part in groups(table, [table[facet] for facet in facets])
        for words, rows in _kinds(part)
    ]
    last = max(float(table["step"].max()), 1.0)
    across = (
        lambda steps: np.log1p(steps) / np.log1p(last),
        [float(tick) for tick in _TICKS if tick <= last],
    )
    side = max(1, min(len(parts), 4, (out.width + 2) // _CHART))
    width = min(max(LEAST_WIDTH, (out.width + 2) // side - 2), 100, out.width)
    charts = []
    for title, rows in parts:
        lines = [
            Line(show(value[0]), styles[show(value[0])], curve["step"].to_numpy(), curve["value"].to_numpy())
            for value, curve in groups(rows, [rows[by]])
        ]
        charts.append(chart(lines, title, across, _value_axis(rows), width, _ROWS))
    out.print(Columns(charts, padding=(0, 2, 1, 0)))
    out.print(f"{by}: at the right end of its curve; steps on a logarithmic axis", style="dim")


_CHART, _ROWS = 60, 10
"""Characters across for one more chart beside the others, and rows of one."""


def _print_tables(table: pd.DataFrame, facets: Sequence[str], by: str, out: Console) -> None:
    """Print one table per facet and measure (and layer): curves downwards, steps across.

    Steps that do not fit are left out, never the first and the last.
    """
    for values, part in groups(table, [table[facet] for facet in facets]):
        for words, rows in _kinds(part):
            view = plain_table(", ".join(word for word in (facet_label(facets, values), *words) if word))
            steps = some(distinct(rows["step"]), max(2, (out.width - len(by) - 4) // 10))
            view.add_column(by, justify="right", header_style="dim")
            for step in steps:
                view.add_column(f"{step:g}", justify="right", no_wrap=True, header_style="dim")
            for value, curve in groups(rows, [rows[by]]):
                at = dict(zip(curve["step"], curve["value"], strict=True))
                view.add_row(show(value[0]), *(short(at.get(step)) for step in steps))
            out.print(view)
            out.print()


PICTURE = Picture(
    curves,
    (
        "runner curves outputs/digits --where lr=0.1 --where parameterization=ntk,mup",
        "runner curves --by lr --where width=256 --metric train_loss,ntk_change --out curves.pdf",
        "runner curves --by seed --where width=256 --where lr=0.1 --metric movement_spectral --csv",
    ),
    {"metric": METRICS},
)
