"""What the commands that read a store have in common: options, and the ways to put a table out."""

from __future__ import annotations

import argparse
import difflib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from runner.errors import UserError, unknown

if TYPE_CHECKING:
    import pandas as pd

    from runner.views.view import View

FIGURE_HELP = "also draw the figure: .svg, .png or .pdf; its caption goes beside it"


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are a user's mistake like any other: one line, with the nearest option."""

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print."""
        hint = ""
        if message.startswith("unrecognized arguments:"):
            known = [option for action in self._actions for option in action.option_strings]
            near = difflib.get_close_matches(message.split()[2].partition("=")[0], known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"{message}{hint} (`{self.prog} --help` shows the options)")


class Extend(argparse.Action):
    """Gathers comma-separated keys over repetitions; ``none`` is no key."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Add the keys to those so far."""
        before = getattr(namespace, self.dest) or ()
        setattr(namespace, self.dest, (*before, *(key for key in values if key not in before)))


def keys(text: str) -> tuple[str, ...]:
    """Return comma-separated keys, each once."""
    found = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    return () if found == ("none",) else found


def add_store(parser: Parser, csv: bool = False) -> None:
    """Add STORE and the formats for machines."""
    parser.add_argument(
        "store", nargs="?", type=Path, metavar="STORE", help="folder (the newest under outputs/)"
    )
    if not csv:
        parser.add_argument("--json", action="store_true", help="for machines")
        return
    formats = parser.add_mutually_exclusive_group()
    formats.add_argument("--json", action="store_true", help="the table as JSON, for machines")
    formats.add_argument("--csv", action="store_true", help="the table as CSV")


def add_selection(parser: Parser, facet: bool = True) -> None:
    """Add the options that choose cells."""
    if facet:
        parser.add_argument(
            "--facet", type=keys, action=Extend, metavar="KEY[,KEY]",
            help="one diagram or fit per value; `none` for a single one (the config's `facet`)",
        )  # fmt: skip
    parser.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="K=V[,V]",
        help="only cells with this value; repeatable",
    )
    parser.add_argument("--all", action="store_true", help="cells of all launches (those of the newest)")


def add_figure(parser: Parser) -> None:
    """Add the options of the figure."""
    parser.add_argument("--out", type=Path, metavar="FILE", help=FIGURE_HELP)
    parser.add_argument(
        "--size", type=_inches, default="column", metavar="column|page|INCHES",
        help="width of the figure: 3.25 or 6.75 inches, or another (column)",
    )  # fmt: skip


def store_of(options: argparse.Namespace) -> Path:
    """Return the folder of the store: the one named, or the newest."""
    from runner.store import default_store

    path: Path = options.store if options.store is not None else default_store()
    return path


def check_out(options: argparse.Namespace) -> None:
    """Refuse a figure of unknown format before anything is computed."""
    if options.out:
        from runner.views.figures import check_figure_path

        check_figure_path(options.out)


def put_out(options: argparse.Namespace, view: View, head: dict[str, Any], **more: pd.DataFrame) -> bool:
    """Draw the figure if asked to, and print the table if it is for machines.

    Args:
        options: As parsed.
        view: The result.
        head: What JSON says besides the tables.
        **more: Further tables of the JSON.

    Returns:
        Whether the table was printed; else it is for people, and the caller prints it.
    """
    if options.out:
        from runner.views.progress import working

        with working(f"drawing {options.out}"):
            view.save(options.out, options.size)
    if options.json:
        print_json(head, rows=view.table, **more)
    elif options.csv:
        view.table.to_csv(sys.stdout, index=False)
    else:
        return False
    return True


def say_figure(options: argparse.Namespace) -> None:
    """Say where the figure and its caption went."""
    if options.out:
        print(f"figure: {options.out}, {options.out.with_suffix('.caption.txt')}")


def print_json(head: dict[str, Any], **tables: pd.DataFrame) -> None:
    """Print tables as lists of rows; null and NaN are both null, for JSON knows no NaN."""
    import json

    from runner.analysis.columns import plain, records

    rows = {
        name: [{key: plain(value) for key, value in row.items()} for row in records(table)]
        for name, table in tables.items()
    }
    print(json.dumps(head | rows, indent=1))


def _inches(text: str) -> float:
    from runner.views.sizes import SIZES

    if text in SIZES:
        return SIZES[text]
    try:
        inches = float(text)
    except ValueError:
        raise unknown("--size", text, [*SIZES, "a number of inches"]) from None
    if not 1 <= inches <= 40:
        raise UserError(f"--size must lie between 1 and 40 inches, got {text}; a column has 3.25")
    return inches
