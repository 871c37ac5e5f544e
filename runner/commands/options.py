"""Options that commands share, and the parser that reads them."""

import argparse
import difflib
from pathlib import Path
from typing import Any, NoReturn

from runner.errors import UserError, unknown
from runner.views.sizes import SIZES


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


def add_store(parser: Parser, json: bool = True, csv: bool = False) -> None:
    """Add STORE and the formats for machines."""
    parser.add_argument(
        "store", nargs="?", type=Path, metavar="STORE", help="folder (the newest under outputs/)"
    )
    if not csv:
        if json:
            add_json(parser)
        return
    formats = parser.add_mutually_exclusive_group()
    formats.add_argument("--json", action="store_true", help="the table as JSON, for machines")
    formats.add_argument("--csv", action="store_true", help="the table as CSV")


def add_json(parser: Parser) -> None:
    """Add the format for machines."""
    parser.add_argument("--json", action="store_true", help="for machines")


def add_selection(parser: Parser) -> None:
    """Add the options that choose cells."""
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
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="also draw the figure: .svg, .png or .pdf; its caption goes beside it",
    )
    parser.add_argument(
        "--size", type=_inches, default="column", metavar="column|page|INCHES",
        help="width of the figure: 3.25 or 6.75 inches, or another (column)",
    )  # fmt: skip


def store_of(options: argparse.Namespace) -> Path:
    """Return the folder of the store: the one named, or the newest."""
    from runner.store import default_store

    path: Path = options.store if options.store is not None else default_store()
    return path


def _inches(text: str) -> float:
    if text in SIZES:
        return SIZES[text]
    try:
        inches = float(text)
    except ValueError:
        raise unknown("--size", text, [*SIZES, "a number of inches"]) from None
    if not 1 <= inches <= 40:
        raise UserError(f"--size must lie between 1 and 40 inches, got {text}; a column has 3.25")
    return inches
