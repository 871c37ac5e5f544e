"""A learning rate and its drift in words: intervals, theory beside it, and whether the rate stays put."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from runner.analysis.columns import plain, records
from runner.analysis.selection import with_series
from runner.analysis.transfer import STAYS
from runner.views.laws import break_words, folded, signless, slope_lines, theory_words, verdict_words
from runner.views.terminal import MISSING, as_told, plain_table, short

PUT = "stays put: the rate changes by less than a factor of two over all of the range, by its 95 % interval"
"""What it means that a rate stays put."""


EDGE = "^"
"""Behind a best rate, larger than which training diverged."""
NO_DRIFT = "drift not known"
"""In place of the drift of rates of which too many are bounds."""


def rate_words(row: Mapping[str, Any], rate: str = "best_lr") -> str:
    """Return a rate with the digits that its interval tells; of a bound the grid's rate, with its mark."""
    if plain(row[rate]) is None:
        return short(None)
    if mark := "*" if row["at_end"] else EDGE if row.get("at_edge") else "":
        return short(row[rate]) + mark
    return as_told(row, row[rate])[0]


def best_words(row: Mapping[str, Any] | None) -> str:
    """Return a best rate with its interval; a bound has none."""
    if row is None or plain(row["best_lr"]) is None:
        return MISSING
    low, words = plain(row["low"]), rate_words(row)
    if low is None or row["at_end"] or row["at_edge"]:
        return words
    return f"{words} [{', '.join(as_told(row, low, row['high']))}]"


def drift_laws(rates: pd.DataFrame, facets: Sequence[str]) -> pd.DataFrame:
    """Return the pieces of the drifts as a table of slopes."""
    slopes = {"drift": "slope", "drift_low": "low", "drift_high": "high"}
    table = with_series(rates, facets).drop(columns=["low", "high"]).rename(columns=slopes)
    table = table.assign(piece=0) if "piece" not in table else table
    table = table.drop_duplicates(["series", "piece"]).dropna(subset=["slope"])
    return table if "theory" in table else table.assign(theory=None)


def drift_lines(rates: pd.DataFrame, facets: Sequence[str]) -> dict[str, str]:
    """Return the drift of each facet, theory beside it, and whether its rate stays put.

    Of a facet whose rates are too few for a drift there is no line, unless bounds are why.
    """
    laws = drift_laws(rates, facets)
    lines = dict(zip(laws["series"].unique(), slope_lines(laws, signed=True), strict=True))
    found = {}
    for name, part in with_series(rates, facets).groupby("series", sort=False):
        put = (part.drop_duplicates("piece") if "piece" in part else part.head(1))["stays_put"]
        line = lines.get(name, f"{name}: {NO_DRIFT}".removeprefix(": ") if is_bound(part).any() else None)
        if line is not None:
            found[str(name)] = f"{line}, stays put: {', then '.join(put)}"
    return found


def said_of(rates: pd.DataFrame, facets: Sequence[str]) -> dict[str, list[str]]:
    """Return what the legend says of each series: its drift, whether it stays put, and below that why."""
    lines, found = drift_lines(rates, facets), {}
    for name, part in with_series(rates, facets).groupby("series", sort=False):
        why = part["stays_because"].dropna().unique() if name in lines else ()
        found[str(name)] = [lines.get(str(name), str(name)), *folded("; ".join(why))]
    return found


def is_bound(rates: pd.DataFrame) -> pd.Series:
    """Tell of which best rates only a bound is known: at an end of the grid, or of what does not diverge."""
    bound: pd.Series = rates["at_end"] | rates.get("at_edge", False)
    return bound


def drift_table(rates: pd.DataFrame, rows: Sequence[tuple[str, pd.DataFrame]]) -> Any:
    """Return the drifts as a table, a row for each piece, and whether the rate stays put."""
    view = plain_table()
    breaks = "break" in rates and rates["break"].notna().any()
    headings = ("", "drift", *(("up to",) if breaks else ()), *(("theory",) if "theory" in rates else ()))
    for heading in (*headings, "stays put?"):
        view.add_column(heading, no_wrap=heading != "stays put?", header_style="dim")
    for name, part in rows:
        pieces = part.drop_duplicates("piece") if "piece" in part else part.head(1)
        for place, row in enumerate(records(pieces)):
            cells = {
                "": "" if place else name, "drift": drift_words(row), "up to": break_words(row),
                "theory": theory_words(row).removeprefix(", theory "),
            }  # fmt: skip
            view.add_row(*(cells[heading] for heading in headings), verdict_words(row, *STAYS))
    return view


def drift_words(row: Mapping[str, Any]) -> str:
    """Return the drift with its interval."""
    drift, low, high = (plain(row[name]) for name in ("drift", "drift_low", "drift_high"))
    if drift is None:
        return "-"
    interval = "" if low is None else f" [{signless(low, '+.2f')}, {signless(high, '+.2f')}]"
    return f"{signless(drift, '+.2f')}{interval}"
