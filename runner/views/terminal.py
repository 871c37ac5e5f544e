"""What all tables on a terminal share: colour on a terminal, letters in a pipe."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table

from runner.analysis.columns import plain, show

MISSING = "."


def console(file: TextIO | None = None) -> Console:
    """Return the console that text goes to: plain and 80 columns wide in a pipe, NO_COLOR honoured."""
    # No markup, no emoji: names come from configs, and [red] or :smile: may be one.
    return Console(file=file or sys.stdout, highlight=False, markup=False, emoji=False)


def drawable(out: Console) -> bool:
    """Return whether pictures of block and braille characters can be shown: not in a pipe, nor in ASCII."""
    return out.is_terminal and out.encoding.lower().startswith("utf")


def plain_table(title: str = "", **more: Any) -> Table:
    """Return a table without lines, its title at the left."""
    named: dict[str, Any] = {"title": title or None, "title_justify": "left", "title_style": "bold"}
    return Table(box=None, **{"pad_edge": False, **named, **more})


def some(values: Sequence[Any], most: int) -> list[Any]:
    """Return at most so many of the values, evenly chosen, the first and the last among them."""
    if len(values) <= most:
        return list(values)
    return [values[round(place * (len(values) - 1) / (most - 1))] for place in range(most)]


_NARROW = 1.1
"""Ends of an interval nearer than by this factor tell a third digit."""


def as_told(row: Mapping[str, Any], *values: Any) -> list[str]:
    """Return numbers of a row with the digits that its interval tells: two, or three where it is narrow.

    >>> as_told({"low": 0.0028, "high": 0.0065}, 0.00427), as_told({"low": 99.0, "high": 102.0}, 100.4)
    (['0.0043'], ['100'])
    """
    low, high = plain(row["low"]), plain(row["high"])
    digits = 3 if low is not None and high < _NARROW * low else 2
    return [short(float(f"{value:.{digits}g}")) for value in values]


def short(value: Any) -> str:
    """Return a value in a table: numbers to three digits, null as a dash."""
    value = plain(value)
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else show(value)
