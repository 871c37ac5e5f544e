"""What a sweep says at its end: the phase diagram, where everything lies, and what to run next."""

import shlex
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from runner.analysis.columns import config_columns, distinct, records, show
from runner.analysis.phase import Axes
from runner.analysis.selection import VaryingError, choose, default_facets
from runner.analysis.straight import LEAST_WIDTHS
from runner.errors import UserError
from runner.store import Store, load
from runner.views.boundary import boundary
from runner.views.captions import count_line
from runner.views.phase import phase_view
from runner.views.sizes import PAGE
from runner.views.terminal import console, short
from runner.views.view import View


def print_launch_summary(store: Path, launch: str) -> None:
    """Print what a launch found and where it lies, and draw its figure.

    Never raises for what the cells are like: a finished sweep does not end in an error of its summary.
    """
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
    if (store.config.get("refine") or {}).get("of"):
        places = boundary(store)
        places.print(out)
        return _draw(places, store.path, out, "boundary")
    axes = Axes(facets=default_facets(store, ("width", "lr"), launch))
    if cells["width"].nunique() < 2 and cells["lr"].nunique() < 2:
        config = config_columns(cells)
        names = ("exponents", "settings", "parameterization.")
        varying = [
            str(key) for key in config if len(distinct(config[key])) > 1 and not str(key).startswith(names)
        ]
        keys = varying or ["width", "lr"]
        out.print(_results_table(cells.assign(**{key: config[key] for key in keys}), keys))
        return None
    try:
        view = phase_view(store, cells, axes)
    except VaryingError as error:
        command = f"runner phase {_word(store.path)} --facet {','.join([*error.keys, *axes.facets])}"
        _say(out, f"no phase diagram: {', '.join(error.keys)} varied too; {command}")
        return None
    except UserError as error:
        _say(out, f"no phase diagram: {error}")
        return None
    view.print(out)
    return _draw(view, store.path, out, "phase")


def _draw(view: View, store: Path, out: Console, name: str) -> Path | None:
    """Draw the figure of a finished sweep, or say in a line why not."""
    path = store / "figures" / f"{name}.svg"
    try:
        view.save(path, PAGE)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        _say(out, f"no figure: {reason}; `runner {name} {_word(store)} --out {name}.svg` tries again")
        return None
    return path


def _results_table(cells: pd.DataFrame, keys: Sequence[str], most: int = 12) -> Table:
    """Return the main results of a few cells, one row each; the keys are columns that tell them apart."""
    shown = [*keys, "status", "regime", "train_loss", "ntk_change", "feature_movement"]
    view = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for key in shown:
        view.add_column(key, justify="left" if key in ("status", "regime", "parameterization") else "right")
    for row in records(cells.head(most)):
        view.add_row(*(short(row[key]) for key in shown))
    if len(cells) > most:
        view.caption = f"{len(cells) - most} more"
    return view


def _print_places(store: Path, cells: pd.DataFrame, figure: Path | None, out: Console) -> None:
    """Print where the results lie and the commands that go on from here."""
    name = _word(store)
    rows = [("tables", f"{store}/cells, trace, layers (Parquet)")]
    if figure:
        rows += [("figure", str(figure)), ("", f"runner {figure.stem} {name} --out {figure.stem}.pdf")]
    rows.append(("report", f"runner report {name}"))
    if cells["width"].nunique() >= LEAST_WIDTHS and not (figure and figure.stem == "boundary"):
        rows.append(("fit", f"runner fit {name}{_fit_choice(cells)}"))
    if (cells["status"] == "failed").any():
        rows.append(("errors", f"runner status {name} --failures"))
    for heading, text in rows:
        _say(out, f"{heading:<8}{text}")


def _fit_choice(cells: pd.DataFrame) -> str:
    """Return the condition that leaves one lr for a fit: the largest at which the fewest cells diverged."""
    tied = any({"width", "lr"} <= {*keys} for keys in cells.attrs.get("tied", ()))
    if tied or cells["lr"].nunique() < 2:
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
