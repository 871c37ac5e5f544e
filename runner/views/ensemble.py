"""Networks of several seeds averaged: variance, bias and loss of what they predict, against width."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from rich.console import Console

from runner.analysis.axes import calm_conditions
from runner.analysis.columns import groups, records, show, show_values
from runner.analysis.ensemble import LEAST_SEEDS, ensembles, kept_split, predictions_of
from runner.analysis.exponents import counted_as
from runner.analysis.moment import at_level
from runner.analysis.phase import Axes
from runner.analysis.selection import choose, default_facets, facet_label, select, with_series
from runner.errors import UserError
from runner.store import Store
from runner.views import alt
from runner.views.captions import sweep_words
from runner.views.fit import panel
from runner.views.laws import because_notes, slope_lines
from runner.views.picture import Option, Part, Picture, Section, conditions, names
from runner.views.scales import Scale, log_scale, range_bars, value_scale
from runner.views.style import Layout, concat, layered, legend, rows_of, series_scales
from runner.views.terminal import plain_table, short
from runner.views.view import View

_PANELS = {"loss": ("mean_loss", "ensemble_loss"), "error rate": ("mean_error", "ensemble_error")}
"""Title of a panel to what it shows of one network and of the average."""


def ensemble(
    store: Store,
    x: str = "width",
    split: str | None = None,
    step: int | None = None,
    facet: str | Sequence[str] | None = None,
    where: str | Sequence[str] = (),
    all: bool = False,
    at: str | None = None,
) -> View:
    """Return what networks that differ in their seed alone predict: variance, bias, loss of the average.

    Args:
        x: Numeric key that ensembles are set against.
        split: Samples: test, probe or train (the first of them that the measure predictions kept).
        step: Measured step to look at (the last of each cell).
        facet: One line per value of these keys, ``none`` for a single one (the config's ``facet``).
        where: Conditions that choose cells, ``lr=0.1`` or ``width=64,128``.
        all: Whether to take the cells of all launches, not only those of the newest.
        at: Where to look at each cell: at the moment when a measure came to a level, ``train_loss=0.02``.
    """
    if at is not None and step is not None:
        raise UserError(f"--step must be left out where --at says where to look, got {step}; drop one")
    where = conditions(where)
    # Before a moment is looked for: whether there is anything to look at.
    split = kept_split(_of(store, choose(store, where, all)), split)
    store = at_level(store, at, outputs=True)
    cells = choose(store, where, all)
    facets = default_facets(store, (x,)) if facet is None else names(facet)
    table, slopes = _measured(store, cells, facets, x, split, step, moment=at is not None)
    words = sweep_words(cells, store.config, where, (x, *facets))
    return View(
        table,
        _caption(table, slopes, facets, f"{words}{_when(step, at)}", x, split),
        lambda layout: chart(table, slopes, facets, layout, x),
        1 + len(_panels(table)),
        lambda out: _print(table, slopes, facets, out, x, split),
        {"x": x, "split": split, "step": step, "facets": facets, "at": store.config.get("at")},
        {"slopes": slopes},
    )


def _of(store: Store, cells: pd.DataFrame) -> pd.DataFrame:
    """Return the outputs that were kept of some cells."""
    outputs = store.outputs
    return outputs[outputs["cell_id"].isin(cells["cell_id"])]


def _measured(
    store: Store, cells: pd.DataFrame, facets: Sequence[str], x: str, split: str, step: int | None = None,
    moment: bool = False,
) -> tuple[pd.DataFrame, pd.DataFrame]:  # fmt: skip
    """Return the ensembles and the slopes of some cells, at a step or where their trace ends."""
    ends = store.trace.groupby("cell_id", observed=True)["step"].max() if moment else None
    wanted = step if ends is None else {str(cell): int(last) for cell, last in ends.items()}
    kept = predictions_of(_of(store, cells), split, wanted)
    return ensembles(cells, kept, facets, x, held_out=split != "train")


def _panels(table: pd.DataFrame) -> list[str]:
    return [title for title, (one, _) in _PANELS.items() if table[one].notna().any()]


def chart(
    table: pd.DataFrame, slopes: pd.DataFrame, facets: Sequence[str], layout: Layout, x: str = "width"
) -> Any:
    """Return the variance with its fits, and the losses (and error rates) of one network and of the average.

    Bars are 95 % intervals; lines through losses join the points.
    """
    table, slopes = (with_series(frame, facets) for frame in (table, slopes))
    series = list(dict.fromkeys(table["series"]))
    points = _bounded(table, "variance")
    points = points[(points["value"] > 0) & (points[x] > 0)]
    charts = []
    table = table[table[x] > 0]
    across = log_scale(table[x], x)
    if len(points):
        charts.append(panel("variance over seeds", points, slopes, series, layout, across, x))
    charts += [_losses(title, table, series, layout, across, x) for title in _panels(table)]
    return concat(charts, layout, most=3)


def _losses(
    title: str, table: pd.DataFrame, series: Sequence[str], layout: Layout, across: Scale, key: str
) -> Any:
    """Return the panel of a loss: filled and solid of one network, open and dashed of their average."""
    channels = series_scales(series, ordered=False)
    names = legend(series, layout, symbolOpacity=1)
    color = alt.Color("series:N", scale=channels["color"], legend=names)
    shape = alt.Shape("series:N", scale=channels["shape"], legend=names)
    one, average = _PANELS[title]
    log = bool((table[[one, average]].dropna() > 0).all(axis=None))
    layers = []
    lines = {
        name: _bounded(table, name).rename(columns={key: "x"}).dropna(subset=["value"])
        for name in (one, average)
    }
    shown = ["value", "low", "high"] if log else ["value"]
    up = value_scale(pd.concat([rows[shown].stack() for rows in lines.values()]), log=log)
    x, y = across.encode(alt.X, "x"), up.encode(alt.Y, "value")
    for name, dash in ((one, [1, 0]), (average, [5, 3])):
        rows = lines[name][["x", "value", "low", "high", "series", "seeds"]]
        base = alt.Chart(rows_of(rows)).encode(x=x, color=color)
        tooltip = [alt.Tooltip("series:N"), alt.Tooltip("x:Q", title=key, format=".3~g")]
        tooltip += [alt.Tooltip("value:Q", title=name, format=".3~g"), alt.Tooltip("seeds:Q")]
        marks = base.mark_point(filled=name == one, size=20 if layout.paper else 36, opacity=1)
        layers += [
            base.mark_line(strokeWidth=1.4, strokeDash=dash).encode(y=y),
            *([range_bars(base, x, up, color=color)] if log else []),
            marks.encode(y=y, shape=shape, tooltip=tooltip),
        ]
    # In print the caption says it.
    more: dict[str, Any] = {} if layout.paper else {"subtitle": ["dashed: of the average"]}
    return layered(layers, alt.TitleParams(title, **more), *layout.size())


def _bounded(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return the rows with a column as value, low and high: the value itself where a log axis has no bar."""
    value = table[name]
    low, high = (table.get(f"{name}_{end}", value) for end in ("low", "high"))
    known = low > 0
    return table.assign(value=value, low=low.where(known, value), high=high.where(known, value))


def _when(step: int | None, at: str | None) -> str:
    return "" if at is not None else " At the last step kept." if step is None else f" At step {step}."


def _caption(
    table: pd.DataFrame, slopes: pd.DataFrame, facets: Sequence[str], shared: str, x: str, split: str
) -> str:
    """Return the caption, the slopes included."""
    lines = slope_lines(with_series(slopes, facets))
    losses = (
        f"Beside it {' and '.join(_panels(table))}: solid of one network, mean over seeds, dashed of the "
        "average of their outputs. "
        if _panels(table)
        else ""
    )
    return (
        f"Ensembles over seeds against {x}: the variance over {show_values(table['seeds'])} seeds of the "
        f"outputs f, summed over outputs, mean over {show_values(table['samples'])} {split} samples. {shared}"
        f" {losses}Bars are 95 % intervals by a jackknife over seeds, solid lines through the variance "
        "least-squares fits in both logarithms, dotted ones have theory's slope. Slopes with 95 % intervals: "
        f"{'; '.join(lines)}."
    )


def _print(
    table: pd.DataFrame, slopes: pd.DataFrame, facets: Sequence[str], out: Console, x: str, split: str
) -> None:
    """Print the ensembles, one table per facet; a narrow terminal has no interval of the variance."""
    columns = {"variance": "variance", "relative": "relative_variance", "loss": "mean_loss"}
    columns |= {
        "averaged": "ensemble_loss",
        "bias": "bias",
        "error": "mean_error",
        "avg err": "ensemble_error",
    }
    columns = {name: of for name, of in columns.items() if table[of].notna().any()}
    wide = out.width >= 100
    for values, part in groups(table, [table[facet] for facet in facets]):
        view = plain_table(facet_label(facets, values))
        view.add_column(x, justify="right", no_wrap=True, header_style="dim")
        headings = [*columns]
        if wide:
            headings.insert(1, "95% interval")
        for heading in (*headings, "seeds", *(["out"] if part["left_out"].any() else [])):
            view.add_column(heading, justify="right", no_wrap=True, header_style="dim")
        for row in records(part):
            texts = {name: short(row[of]) for name, of in columns.items()}
            low, high = short(row["variance_low"]), short(row["variance_high"])
            texts["95% interval"] = "-" if low == "-" else f"[{low}, {high}]"
            counts = [row["seeds"], *([row["left_out"] or ""] if part["left_out"].any() else [])]
            view.add_row(show(row[x]), *(texts[name] for name in headings), *map(str, counts))
        out.print(view)
        out.print()
    named = with_series(slopes, facets)
    if named["slope"].notna().any():
        out.print(f"slope of log variance against log {x}, 95 %:")
        out.print("\n".join(f"  {line}" for line in slope_lines(named[named["slope"].notna()])))
    out.print("\n".join(_notes(table, slopes, x, split)), style="dim")


def _notes(table: pd.DataFrame, slopes: pd.DataFrame, x: str, split: str) -> list[str]:
    """Return what must be known of the numbers, a line each."""
    notes = [
        f"variance over seeds of f, summed over outputs, mean over {show_values(table['samples'])} {split} "
        "samples; relative: to the mean square of the averaged f"
    ]
    if table["mean_loss"].notna().any():
        notes.append("loss: of one network, mean over seeds; averaged: of the average of f over the seeds")
    else:
        notes.append("no losses: the outputs of this store were kept without their targets; sweep anew")
    if table["bias"].notna().any():
        notes.append("bias: loss of infinitely many averaged, averaged - variance / (2 seeds)")
    if table["seeds"].min() < LEAST_SEEDS:
        notes.append("no variance with one seed, no interval with fewer than three")
    if slopes["slope"].isna().any():
        notes.append(f"no slope with fewer than three {counted_as(x)}")
    notes += because_notes(records(slopes))
    if table["left_out"].any():
        notes.append("out: cells left out (diverged, failed, or without outputs there)")
    return list(dict.fromkeys(notes))


def _on_page(store: Store, cells: pd.DataFrame, axes: Axes) -> Part | None:
    """Return the ensembles at the learning rate that most cells survived; nothing without outputs."""
    if not cells["output_rows"].notna().any():
        return None
    where = calm_conditions(cells, axes)
    part = select(cells, where)
    facets = tuple(facet for facet in axes.facets if facet != "width")
    table, slopes = _measured(store, part, facets, "width", kept_split(_of(store, part)))
    words = " ".join(f"--where {condition}" for condition in where)
    return Part(
        chart(table, slopes, facets, Layout()),
        sweep_words(part, store.config, where, ("width", *facets)),
        f"runner ensemble {store.path} {words} --facet {','.join(facets) or 'none'}".replace("  ", " "),
    )


PICTURE = Picture(
    ensemble,
    (
        "runner ensemble outputs/vyas2023",
        "runner ensemble --where lr=1 --split train --out ensemble.pdf",
        "runner ensemble outputs/rich --x gamma --at train_loss=0.05 --json",
    ),
    {"split": Option("SPLIT"), "step": Option("N", read=int)},
)
SECTIONS = [
    Section(
        "ensemble",
        "Ensembles over seeds",
        "Networks that differ in their seed alone. Variance of their outputs, its slope, dotted theory's, "
        "and loss of one of them (solid) and of the average of their outputs (dashed), on held-out samples "
        "where these were kept. Bars: 95 % intervals over seeds.",
        _on_page,
        (105, 190, 290),
        "No ensembles",
    )
]
