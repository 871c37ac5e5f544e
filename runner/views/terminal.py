"""What the commands print and what a sweep says at its end: colour on a terminal, letters in a pipe."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import pandas as pd
from rich.columns import Columns
from rich.console import Console
from rich.text import Text

from runner.analysis.columns import config_columns, distinct, show
from runner.analysis.exponents import LEAST_WIDTHS
from runner.analysis.phase import Axes, phase_grid
from runner.analysis.selection import VaryingError, choose, default_facets
from runner.errors import UserError
from runner.views.tables import (
    count_line,
    curve_tables,
    fit_notes,
    fit_tables,
    phase_legend,
    phase_tables,
    results_table,
    transfer_tables,
)

if TYPE_CHECKING:
    from runner.store import Store


def console(file: TextIO | None = None) -> Console:
    """Return the console that text goes to: plain and 80 columns wide in a pipe, NO_COLOR honoured."""
    # No markup, no emoji: names come from configs, and [red] or :smile: may be one.
    return Console(file=file or sys.stdout, highlight=False, markup=False, emoji=False)


def print_phase(grid: pd.DataFrame, axes: Axes, out: Console) -> None:
    """Print the phase diagram with its legend."""
    out.print(Columns(phase_tables(grid, axes, out.width), padding=(0, 2)))
    out.print(phase_legend(grid, axes))


def print_fit(table: pd.DataFrame, facets: Sequence[str], out: Console) -> None:
    """Print the exponents, one table per facet."""
    for view in fit_tables(table, facets, out.width):
        out.print(view)
        out.print()
    out.print(fit_notes(table), style="dim")


def print_curves(table: pd.DataFrame, facets: Sequence[str], by: str, out: Console) -> None:
    """Print training curves, one table per facet and measure."""
    for view in curve_tables(table, facets, by, out.width):
        out.print(view)
        out.print()
    seeds = int(table["seeds"].max()) if len(table) else 0
    out.print(f"median of {seeds} seeds at measured steps; --json and --csv have their range", style="dim")


def print_transfer(best: pd.DataFrame, facets: Sequence[str], metric: str, out: Console) -> None:
    """Print the best learning rates, one row per facet."""
    for view in transfer_tables(best, facets, metric, out.width):
        out.print(view)
    notes = ["drift: doublings of the best lr per doubling of the width; 0 is transfer"]
    if best["at_end"].any():
        notes.append("*: an end of the grid, the true best may lie beyond")
    out.print("\n".join(notes), style="dim")


def print_launch_summary(store: Path, launch: str) -> None:
    """Print what a launch found and where it lies, and draw its figure.

    Never raises for what the cells are like: a finished sweep does not end in an error of its summary.

    Args:
        store: Folder of the store.
        launch: Id of the launch.
    """
    from runner.store import load

    out = console()
    try:
        opened = load(store)
        planned = opened.launch_cells(launch)
        cells = choose(opened, launch=launch)
    except UserError as error:
        _say(out, f"no results to show: {error}")
        return
    try:
        drawn = _print_diagram(opened, cells, launch, out)
        _say(out, count_line(cells, len(planned)))
        _print_places(store, cells, drawn, out)
    except Exception as error:  # whatever it is, the results are safe in the store
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        _say(out, f"summary cut short: {reason}; `runner phase {_word(store)} --debug` shows where")


def _print_diagram(store: Store, cells: pd.DataFrame, launch: str, out: Console) -> Path | None:
    """Print the diagram of a launch, or a table where there is none; return the figure's path."""
    axes = Axes(facets=default_facets(store, ("width", "lr"), launch))
    if cells["width"].nunique() < 2 and cells["lr"].nunique() < 2:
        config = config_columns(cells)
        names = ("exponents", "settings", "parameterization.")
        varying = [
            str(key) for key in config if len(distinct(config[key])) > 1 and not str(key).startswith(names)
        ]
        keys = [key for key in varying if key in cells] or ["width", "lr"]
        out.print(results_table(cells, keys))
        return None
    try:
        grid = phase_grid(cells, axes)
    except VaryingError as error:
        command = f"runner phase {_word(store.path)} --facet {','.join([*error.keys, *axes.facets])}"
        _say(out, f"no phase diagram: {', '.join(error.keys)} varied too; {command}")
        return None
    except UserError as error:
        _say(out, f"no phase diagram: {error}")
        return None
    print_phase(grid, axes, out)
    return _draw(store, axes, launch, out)


def _draw(store: Store, axes: Axes, launch: str, out: Console) -> Path | None:
    """Draw the figure of a finished sweep, or say in a line why not."""
    from runner.views.sizes import PAGE
    from runner.views.views import phase_view

    path = store.path / "figures" / "phase.svg"
    try:
        phase_view(store, axes, launch=launch).save(path, PAGE)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        _say(out, f"no figure: {reason}; `runner phase {_word(store.path)} --out phase.svg` tries again")
        return None
    return path


def _print_places(store: Path, cells: pd.DataFrame, figure: Path | None, out: Console) -> None:
    """Print where the results lie and the commands that go on from here."""
    name = _word(store)
    rows = [("tables", f"{store}/cells, trace, layers (Parquet)")]
    if figure:
        rows += [("figure", str(figure)), ("", f"runner phase {name} --out phase.pdf")]
    rows.append(("report", f"runner report {name}"))
    if cells["width"].nunique() >= LEAST_WIDTHS:
        rows.append(("fit", f"runner fit {name}{_fit_choice(cells)}"))
    if (cells["status"] == "failed").any():
        rows.append(("errors", f"runner status {name} --failures"))
    for heading, text in rows:
        _say(out, f"{heading:<8}{text}")


def _fit_choice(cells: pd.DataFrame) -> str:
    """Return the condition that leaves one lr for a fit: the largest at which the fewest cells diverged."""
    if cells["lr"].nunique() < 2:
        return ""
    diverged = (cells["status"] != "ok").groupby(cells["lr"]).mean()
    best = diverged[diverged == diverged.min()].index.max()
    return f" --where lr={show(float(best))}"


def _say(out: Console, text: str) -> None:
    """Print a line whole, however long: a command in it can then be copied."""
    out.print(Text(text), soft_wrap=True)


def _word(path: Path) -> str:
    """Return a path as one word of a shell command."""
    return shlex.quote(str(path))
