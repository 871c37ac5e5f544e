"""The phase diagram, the exponents and the results of cells as rich tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from runner.analysis.columns import distinct, groups, plain, records, show
from runner.analysis.phase import SHARPNESS_CRITICAL, Axes
from runner.analysis.regime import COLORS, LETTERS, REGIMES, TEXT_COLORS
from runner.analysis.selection import facet_label

MISSING = "."
_CRITICAL = "2/lambda"


def phase_tables(grid: pd.DataFrame, axes: Axes, width: int) -> list[Table]:
    """Return one table per facet: y downwards from its largest value, x across.

    Args:
        grid: As returned by :func:`runner.analysis.phase.phase_grid`.
        axes: The axes of the grid.
        width: Columns of the terminal; a table that is too wide is continued below.
    """
    return [
        table
        for values, part in groups(grid, [grid[facet] for facet in axes.facets])
        for table in _facet_tables(part, axes, facet_label(axes.facets, values), width)
    ]


def fit_tables(table: pd.DataFrame, facets: Sequence[str], width: int) -> list[Table]:
    """Return one table of exponents per facet, theory beside measurement.

    Args:
        table: As returned by :func:`runner.analysis.exponents.fit`.
        facets: The facets of the fit.
        width: Columns of the terminal; a narrow one does without the counts.
    """
    tables = []
    counts = ("data", "out") if width >= 64 else ()
    headings = ("metric", "layer", "slope", "95% interval", "theory", *counts)
    for values, part in groups(table, [table[facet] for facet in facets]):
        view = Table(
            box=None,
            title=facet_label(facets, values) or None,
            title_justify="left",
            title_style="bold",
            pad_edge=False,
        )
        for heading in headings:
            named = heading in ("metric", "layer")
            view.add_column(
                heading,
                justify="left" if named else "right",
                no_wrap=not named,
                overflow="fold",
                header_style="dim",
            )
        # A metric that this facet never measured says nothing here; --json has the row.
        for row in records(part[part["cells"] > 0]):
            view.add_row(*_fit_row(row)[: len(headings)])
        tables.append(view)
    return tables


def fit_notes(table: pd.DataFrame) -> str:
    """Return what the reader of the exponents must know."""
    notes = ["slope of log metric against log width; interval: bootstrap over seeds", "data: seeds x widths"]
    if table["low"].isna().any():
        notes.append("no interval with one seed at a width, no slope with fewer than three widths")
    if (table["left_out"] > 0).any():
        notes.append("out: cells left out (diverged, failed, or a value that is zero or null)")
    return "\n".join(notes)


def curve_tables(table: pd.DataFrame, facets: Sequence[str], by: str, width: int) -> list[Table]:
    """Return one table per facet and measure (and layer): curves downwards, steps across.

    Args:
        table: As returned by :func:`runner.analysis.curves.curves`.
        facets: Its facets.
        by: The key that tells its curves apart.
        width: Columns of the terminal; steps that do not fit are left out, never the first and the last.
    """
    views = []
    kinds = [(row["metric"], plain(row["layer"])) for row in records(table)]
    for values, part in groups(table, [table[facet] for facet in facets]):
        for metric, layer in dict.fromkeys(kinds):
            same = part[[(row["metric"], plain(row["layer"])) == (metric, layer) for row in records(part)]]
            if same.empty:
                continue
            words = [facet_label(facets, values), metric, layer or ""]
            view = _plain_table(", ".join(word for word in words if word))
            steps = _some(distinct(same["step"]), max(2, (width - len(by) - 4) // 10))
            view.add_column(by, justify="right", header_style="dim")
            for step in steps:
                view.add_column(f"{step:g}", justify="right", no_wrap=True, header_style="dim")
            for value, curve in groups(same, [same[by]]):
                at = dict(zip(curve["step"], curve["value"], strict=True))
                view.add_row(show(value[0]), *(_number(at.get(step)) for step in steps))
            views.append(view)
    return views


def transfer_tables(best: pd.DataFrame, facets: Sequence[str], metric: str, width: int) -> list[Table]:
    """Return the best learning rates, one row per facet, in as many pieces as the terminal asks for.

    Args:
        best: As returned by :func:`runner.analysis.transfer.transfer`.
        facets: Its facets.
        metric: What is small at the best learning rate.
        width: Columns of the terminal.
    """
    rows = [
        (facet_label(facets, values), part)
        for values, part in groups(best, [best[facet] for facet in facets])
    ]
    widths = distinct(best["width"])
    lead = max(5, *(len(name) for name, _ in rows)) + 8
    each = max(1, (width - lead) // 10)
    views = []
    for start in range(0, len(widths), each):
        view = _plain_table(f"lr of the smallest {metric}" if not start else "(continued)")
        for heading in ("width", *map(str, widths[start : start + each]), "drift"):
            view.add_column(heading, justify="left" if heading == "width" else "right", no_wrap=True)
        for name, part in rows:
            found = {row["width"]: row for row in records(part)}
            texts = [
                _number(found[n]["best_lr"]) + ("*" if found[n]["at_end"] else "") if n in found else MISSING
                for n in widths[start : start + each]
            ]
            drift = plain(part["drift"].iloc[0])
            view.add_row(name, *texts, "-" if drift is None else f"{drift:+.2f}")
        views.append(view)
    return views


def _plain_table(title: str) -> Table:
    return Table(box=None, title=title or None, title_justify="left", title_style="bold", pad_edge=False)


def _some(values: Sequence[Any], most: int) -> list[Any]:
    """Return at most so many of the values, evenly chosen, the first and the last among them."""
    if len(values) <= most:
        return list(values)
    return [values[round(place * (len(values) - 1) / (most - 1))] for place in range(most)]


def results_table(cells: pd.DataFrame, keys: Sequence[str], most: int = 12) -> Table:
    """Return the main results of a few cells, one row each.

    Args:
        cells: Rows of the ``cells`` table.
        keys: Columns that tell the cells apart.
        most: Rows shown.
    """
    shown = [*keys, "status", "regime", "train_loss", "ntk_change", "feature_movement"]
    view = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for key in shown:
        view.add_column(key, justify="left" if key in ("status", "regime", "parameterization") else "right")
    for row in records(cells.head(most)):
        view.add_row(*(_number(row[key]) for key in shown))
    if len(cells) > most:
        view.caption = f"{len(cells) - most} more"
    return view


def count_line(cells: pd.DataFrame, planned: int | None = None) -> str:
    """Return how many cells there are of each status and regime, as one line."""
    status = cells["status"].astype(object).value_counts().to_dict()
    regime = cells["regime"].astype(object).value_counts().to_dict()
    words = [f"{status[name]} {name}" for name in ("ok", "diverged", "failed") if status.get(name)]
    if planned is not None and planned > len(cells):
        words.append(f"{planned - len(cells)} missing")
    regimes = [f"{regime[name]} {name}" for name in REGIMES if regime.get(name)]
    return f"{len(cells)} cells: {', '.join(words)}" + (f"; regimes: {', '.join(regimes)}" if regimes else "")


def _facet_tables(part: pd.DataFrame, axes: Axes, title: str, width: int) -> list[Table]:
    """Return the table of one facet, in as many pieces as the width of the terminal asks for."""
    xs, ys = distinct(part[axes.x]), distinct(part[axes.y])[::-1]
    texts = {(plain(row[axes.x]), plain(row[axes.y])): _cell(row, axes) for row in records(part)}
    heads, labels = dict(zip(xs, _labels(xs), strict=True)), dict(zip(ys, _labels(ys), strict=True))
    critical = _critical_row(part, axes)
    room = 1 + max(
        len(text) for text in [*heads.values(), *critical.values(), *(text.plain for text in texts.values())]
    )
    lead = 1 + max(len(text) for text in [*labels.values(), axes.y, axes.x, _CRITICAL if critical else ""])
    each = max(1, (width - lead) // room)
    tables = []
    for start in range(0, len(xs), each):
        piece = xs[start : start + each]
        heading = f"{title} (continued)".strip() if start else title
        view = Table(
            box=None,
            show_header=False,
            title=heading or None,
            title_justify="left",
            title_style="bold",
            padding=0,
        )
        for place in range(len(piece) + 1):
            view.add_column(no_wrap=True, width=room if place else lead)
        view.add_row(Text(f"{axes.y:>{lead - 1}}"))
        for y in ys:
            view.add_row(
                f"{labels[y]:>{lead - 1}}", *(_centred(texts.get((x, y), Text(MISSING)), room) for x in piece)
            )
        if critical:
            view.add_row(_CRITICAL, *(_centred(Text(critical.get(x, "")), room) for x in piece), style="dim")
        view.add_row(f"{axes.x:>{lead - 1}}", *(_centred(Text(heads[x], style="bold"), room) for x in piece))
        tables.append(view)
    return tables


def _labels(values: Sequence[Any]) -> list[str]:
    """Return the values of an axis, to three digits where that tells them apart."""
    short = [f"{value:.3g}" if isinstance(value, float) else show(value) for value in values]
    return short if len(set(short)) == len(values) else [show(value) for value in values]


def _critical_row(part: pd.DataFrame, axes: Axes) -> dict[Any, str]:
    """Return the critical lr of each x, nothing where it is 2 everywhere by its unit."""
    known = part.dropna(subset=["critical"])
    if (known["critical"] == SHARPNESS_CRITICAL).all():
        return {}
    medians = known.groupby(axes.x, observed=True)["critical"].median()
    texts = {plain(x): (f"{value:.2g}", f"{value:.1g}") for x, value in medians.items()}
    # No wider than a letter with its share: two tables then stand side by side on 80 columns.
    return {x: exact if len(exact) <= 5 else rough for x, (exact, rough) in texts.items()}


def _cell(row: Mapping[str, Any], axes: Axes) -> Text:
    """Return the text of one point, with its regime as background."""
    if axes.color != "regime":
        return Text(_number(row["value"]))
    regime = plain(row["regime"])
    if regime is None:
        return Text("!" if row["failed"] else MISSING)
    share = f" {100 * row['share']:.0f}%" if row["share"] < 1 else ""
    return Text(LETTERS[regime] + share, style=f"{TEXT_COLORS[regime]} on {COLORS[regime]}")


def _centred(text: Text, room: int) -> Text:
    """Return the text in the middle of its field, the background reaching to both ends."""
    left = (room - len(text)) // 2
    return Text(" " * left + text.plain + " " * (room - left - len(text)), style=text.style)


def phase_legend(grid: pd.DataFrame, axes: Axes) -> Text:
    """Return what the letters and the last row mean."""
    seeds = int(grid["seeds"].max())
    legend = Text()
    if axes.color == "regime":
        for regime in REGIMES:
            legend.append(f" {LETTERS[regime]} ", style=f"{TEXT_COLORS[regime]} on {COLORS[regime]}")
            legend.append(f" {regime}  ")
        if (grid["failed"] > 0).any():
            legend.append(" !  failed")
        if seeds > 1:
            legend.append(f"\nmajority of {seeds} seeds, share where they disagree", style="dim")
    else:
        legend.append(f"{axes.color}" + (f", median of {seeds} seeds" if seeds > 1 else ""), style="dim")
    critical = grid["critical"].dropna()
    if len(critical):
        at = "2" if (critical == SHARPNESS_CRITICAL).all() else f"the row {_CRITICAL}"
        legend.append(f"\ncritical lr (MSE, full batch): 2 / lambda_max at init, here {at}", style="dim")
    return legend


def _fit_row(row: Mapping[str, Any]) -> list[str]:
    """Return the cells of one line of the table of exponents."""
    slope, low, high, theory = (plain(row[key]) for key in ("slope", "low", "high", "theory"))
    layer = "" if plain(row["layer"]) is None else str(row["layer"])
    role = "" if plain(row["role"]) is None or str(row["role"]) in layer else f" ({row['role']})"
    return [
        row["metric"],
        layer + role,
        "-" if slope is None else f"{slope:.2f}",
        "-" if low is None else f"[{low:.2f}, {high:.2f}]",
        "" if theory is None else f"{theory:g}",
        f"{row['seeds']}x{row['widths']}",
        str(row["left_out"] or ""),
    ]


def _number(value: Any) -> str:
    """Return a value in a table: numbers to three digits, null as a dash."""
    value = plain(value)
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else show(value)
