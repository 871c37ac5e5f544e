"""What becomes of features as width, or another key, grows: in a word, by the slope of their movement."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from runner.analysis.beside import NEAR
from runner.analysis.columns import plain, records
from runner.analysis.selection import with_series
from runner.analysis.trend import FALLS, RISES, STAYS, UNKNOWN, trend
from runner.views.laws import break_words, signless, theory_words
from runner.views.picture import Answer
from runner.views.scales import column_title

_METRIC, _OTHER = "feature_movement", "ntk_change"
SAYS_LAZY = (
    "A network turns lazy where feature_movement and ntk_change fall. The other slopes do not say so: "
    "weights move less for their size in wide networks that learn features, too, and lambda_max_init is of "
    "untrained ones."
)
"""Which exponents say that a network turns lazy, and which do not."""


def features_answer(fits: pd.DataFrame, facets: Sequence[str], x: str, where: str) -> tuple[Answer, ...]:
    """Return what becomes of features, the answer of a section of exponents; none where they have no slope.

    Args:
        fits: As returned by :func:`runner.analysis.exponents.fit`.
        x: The key that grows.
        where: Which cells they are of, in words.
    """
    named = with_series(fits, facets)
    own, other = (named[(named["metric"] == one) & named["layer"].isna()] for one in (_METRIC, _OTHER))
    if own["slope"].isna().all():
        return ()
    beside = {
        str(series): "; beyond, ".join(map(_slope, records(part)))
        for series, part in other.dropna(subset=["slope"]).groupby("series", sort=False)
    }
    words = {
        str(series): "; beyond, ".join(_words(row, x) for row in records(part))
        + (f"; {column_title(_OTHER)} {beside[str(series)]}" if str(series) in beside else "")
        for series, part in own.groupby("series", sort=False)
    }
    rule = (
        f"Features: by the slope of log {_METRIC} against log {x}, at {where}. Networks turn lazy where its "
        f"whole 95 % interval lies below zero, and the slope below -{NEAR:g}; they learn features at any {x} "
        f"where it lies above -{NEAR:g}, and the slope is at most {NEAR:g}; features move more where it lies "
        f"above zero, and the slope above {NEAR:g}. Else it cannot be told, nor where the section cannot."
    )
    return (Answer(f"features as {x} grows", words, rule),)


def _words(row: Mapping[str, Any], x: str) -> str:
    """Return the word for a slope, the slope with its interval, theory's and the verdict."""
    found = trend(row)
    word = {FALLS: "turns lazy", STAYS: f"learns features at any {x}", RISES: f"moves more with {x}"}
    if plain(row["slope"]) is None or found.verdict is None:
        return f"{UNKNOWN}: {found.because}"
    until = f", up to {x} {ends}" if (ends := break_words(row)) else ""
    why = f": {found.because}, " if found.because else ": "
    return f"{word.get(found.verdict, UNKNOWN)}{why}{_slope(row)}{until}"


def _slope(row: Mapping[str, Any]) -> str:
    """Return a slope with its interval, theory's and the verdict."""
    low = plain(row["low"])
    interval = "" if low is None else f" [{signless(low)}, {signless(row['high'])}]"
    return f"{signless(row['slope'])}{interval}{theory_words(row)}"
