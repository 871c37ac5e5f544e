"""The phase diagram on a terminal: letters with colour, and a legend."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import pandas as pd
from rich.columns import Columns
from rich.console import Console
from rich.table import Table
from rich.text import Text

from runner.analysis.columns import distinct, groups, plain, records, show
from runner.analysis.phase import Axes
from runner.analysis.regime import COLORS, LETTERS, REGIMES, TEXT_COLORS, marks_of, marks_words
from runner.analysis.selection import facet_label
from runner.views.phase.blocks import Blocks
from runner.views.phase.critical import critical_of
from runner.views.terminal import MISSING, drawable, plain_table, short, some


def print_phase(
    grid: pd.DataFrame,
    axes: Axes,
    out: Console,
    traces: Mapping[tuple[Any, ...], Sequence[float]] | None = None,
) -> None:
    """Print the diagram of a :func:`runner.analysis.phase.phase_grid` as :func:`print_points` does.

    A terminal shows a measure in blocks on the scale of its colours, each with the letter of its regime, the
    value and, where its trace is given, how it came about.

    Args:
        traces: From facets, x and y of a point to its values over the measured steps.
    """
    if axes.color == "regime" or not drawable(out):
        print_points(grid, axes, out, lambda row: _cell(row, axes), phase_legend(grid, axes))
        return
    blocks = Blocks.of(grid, axes, traces or {}, out.width)
    legend = Text.assemble(blocks.legend(axes.color), "\n", phase_legend(grid, axes))
    print_points(grid, axes, out, blocks.cell, legend)


def print_points(
    grid: pd.DataFrame, axes: Axes, out: Console, cell: Callable[[Mapping[str, Any]], Text], legend: Text
) -> None:
    """Print one table per facet, y downwards from its largest value and x across, and the legend.

    On a terminal a bar and an underline mark where the regime changes.

    Args:
        grid: One row per point: the facet keys, x and y.
        out: Where to; a table that is too wide for it is continued below. On a terminal, of a table that is
            higher than the window only as many rows are shown as fit, evenly chosen.
        cell: From a row to its text.
        legend: What the texts mean.
    """
    values = distinct(grid[axes.y])
    shown = some(values, max(_LEAST_ROWS, out.height - _OTHER_ROWS)) if out.is_terminal else values
    seen = grid[grid[axes.y].isin(shown)]
    tables = [
        table
        for facet, part in groups(seen, [seen[key] for key in axes.facets])
        for table in _facet_tables(
            part,
            axes,
            facet_label(axes.facets, facet),
            out.width,
            cell,
            changes(part, axes) if drawable(out) else {},
        )
    ]
    out.print(Columns(tables, padding=(0, 2)))
    out.print(legend)
    if len(shown) < len(values):
        out.print(
            f"{len(shown)} of {len(values)} values of {axes.y}; --json, --csv and --out have all", style="dim"
        )


_LEAST_ROWS, _OTHER_ROWS = 6, 9
"""Rows of a diagram in any window, and those around it: heading, axes, legend and the prompt."""


def _facet_tables(
    part: pd.DataFrame, axes: Axes, title: str, width: int, cell: Callable[[Mapping[str, Any]], Text],
    borders: Mapping[tuple[Any, Any], tuple[bool, bool]],
) -> list[Table]:  # fmt: skip
    """Return the table of one facet, in as many pieces as the width of the terminal asks for."""
    xs, ys = distinct(part[axes.x]), distinct(part[axes.y])[::-1]
    texts = {(plain(row[axes.x]), plain(row[axes.y])): cell(row) for row in records(part)}
    heads, labels = dict(zip(xs, _labels(xs), strict=True)), dict(zip(ys, _labels(ys), strict=True))
    critical = _critical_row(part, axes) if "critical" in part else {}
    named = _critical_name(part) if critical else ""
    room = 1 + max(
        len(text) for text in [*heads.values(), *critical.values(), *(text.plain for text in texts.values())]
    )
    lead = 1 + max(len(text) for text in [*labels.values(), axes.y, axes.x, named])
    each = max(1, (width - lead) // room)
    tables = []
    for start in range(0, len(xs), each):
        piece = xs[start : start + each]
        heading = f"{title} (continued)".strip() if start else title
        view = plain_table(heading, show_header=False, padding=0, pad_edge=True)
        for place in range(len(piece) + 1):
            view.add_column(no_wrap=True, width=room if place else lead)
        view.add_row(Text(f"{axes.y:>{lead - 1}}"))
        for y in ys:
            view.add_row(
                f"{labels[y]:>{lead - 1}}",
                *(
                    _bordered(_centred(texts.get((x, y), Text(MISSING)), room), borders.get((x, y)))
                    for x in piece
                ),
            )
        if critical:
            view.add_row(named, *(_centred(Text(critical.get(x, "")), room) for x in piece), style="dim")
        view.add_row(f"{axes.x:>{lead - 1}}", *(_centred(Text(heads[x], style="bold"), room) for x in piece))
        tables.append(view)
    return tables


def _labels(values: Sequence[Any]) -> list[str]:
    """Return the values of an axis, to three digits where that tells them apart."""
    short = [f"{value:.3g}" if isinstance(value, float) else show(value) for value in values]
    return short if len(set(short)) == len(values) else [show(value) for value in values]


def _critical_row(part: pd.DataFrame, axes: Axes) -> dict[Any, str]:
    """Return the critical lr of each x, nothing where it is the same everywhere by its unit."""
    known = part.dropna(subset=["critical"])
    if (known["critical"] == known["critical_sharpness"]).all():
        return {}
    medians = known.groupby(axes.x, observed=True)["critical"].median()
    texts = {plain(x): (f"{value:.2g}", f"{value:.1g}") for x, value in medians.items()}
    # No wider than a letter with its share: two tables then stand side by side on 80 columns.
    return {x: exact if len(exact) <= 5 else rough for x, (exact, rough) in texts.items()}


def _cell(row: Mapping[str, Any], axes: Axes) -> Text:
    """Return the text of one point, with its regime as background."""
    if axes.color != "regime":
        return Text(short(row["value"]))
    regime = plain(row["regime"])
    if regime is None:
        return Text("!" if row["failed"] else MISSING)
    share = f" {100 * row['share']:.0f}%" if row["share"] < 1 else ""
    return Text(LETTERS[regime] + marks_of(row) + share, style=f"{TEXT_COLORS[regime]} on {COLORS[regime]}")


def _centred(text: Text, room: int) -> Text:
    """Return the text in the middle of its field, the background reaching to both ends."""
    left = (room - len(text)) // 2
    return Text(" " * left + text.plain + " " * (room - left - len(text)), style=text.style)


def _bordered(text: Text, border: tuple[bool, bool] | None) -> Text:
    """Return the field of a point with a bar at its right, and underlined, where the regime changes."""
    right, below = border or (False, False)
    if right:
        text = Text(text.plain[:-1] + "▕", style=text.style)
    if below:
        text.stylize("underline")
    return text


def changes(part: pd.DataFrame, axes: Axes) -> dict[tuple[Any, Any], tuple[bool, bool]]:
    """Return at which points the regime is another one at the right, and below; nothing without regimes."""
    if "regime" not in part:
        return {}
    xs, ys = distinct(part[axes.x]), distinct(part[axes.y])
    regimes = {(plain(row[axes.x]), plain(row[axes.y])): plain(row["regime"]) for row in records(part)}
    after, under = dict(pairwise(xs)), dict(pairwise(ys[::-1]))

    def differs(one: tuple[Any, Any], other: tuple[Any, Any]) -> bool:
        return None not in (regimes.get(one), regimes.get(other)) and regimes[one] != regimes[other]

    return {
        (x, y): (differs((x, y), (after.get(x), y)), differs((x, y), (x, under.get(y)))) for x, y in regimes
    }


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
        if marks := marks_words(grid):
            legend.append(f"\n {marks}: logits diverge, features stay, and so does training")
        if seeds > 1:
            legend.append(f"\nmajority of {seeds} seeds, share where they disagree", style="dim")
    else:
        legend.append(f"{axes.color}" + (f", median of {seeds} seeds" if seeds > 1 else ""), style="dim")
    known = grid.dropna(subset=["critical"])
    if len(known):
        in_unit = (known["critical"] == known["critical_sharpness"]).all()
        named = _critical_name(known)
        value = named.partition("/")[0]
        at = value if in_unit else f"the row {named}"
        text = f"critical lr (MSE, full batch): {value} / lambda_max at init, here {at}"
        legend.append(f"\n{text}", style="dim")
    return legend


def _critical_name(points: pd.DataFrame) -> str:
    return f"{critical_of(points):.3g}/lambda"
