"""Power laws whose line may break, as lines of a figure and in words: beside each piece what theory says."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from runner.analysis.agreement import WITHIN
from runner.analysis.beside import NOT_STRAIGHT, is_bent
from runner.analysis.columns import plain, records
from runner.views.terminal import short

BY_PROFILE = "95 % intervals by profile likelihood, as many pieces as the corrected BIC wants"
"""What is said of the intervals of a law that may break."""
AGREEMENT = (
    "agrees: the 95 % interval holds theory's slope, which is that of a limit, and none of another regime; "
    f"{WITHIN}: it leaves theory's out, but the slope is so near; disagrees: the slope is further off; "
    "cannot tell: the interval holds another regime's, too, or the points give no single slope"
)
"""What is said of verdicts beside theory."""
BENT = "!"
"""Stands behind a slope where no straight line describes the points."""
BENT_WORDS = (
    f"{BENT}: {NOT_STRAIGHT}: they lie off it by more than twice what seeds explain, "
    "and the interval knows of seeds alone"
)
SCALING_RULE = (
    f"agrees: the 95 % interval holds theory's slope and no other regime's; {WITHIN}: it leaves theory's "
    f"out, but the slope is so near; {BENT}: {NOT_STRAIGHT}"
)
"""The same in short, for a heading that stays in view."""
FITTED = {"strokeWidth": 1.4}
NO_FIT = "#9A9A9A"
"""Of a straight line through points that lie on none."""
THEORY = {"strokeDash": [2, 3], "strokeWidth": 1.6, "opacity": 0.75}
"""Marks of the lines."""
_LEGEND = 50
"""Letters of a line of a legend."""


def law_lines(points: pd.DataFrame, fits: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the corners of the fitted lines and the ends of theory's, crossing in the middle of a piece."""
    fitted: list[dict[str, Any]] = []
    predicted: list[dict[str, Any]] = []
    for series, part in fits.groupby("series", sort=False):
        found, own = points[points["series"] == series], records(part)
        if plain(own[0]["slope"]) is None or found.empty:
            continue
        places, logs = np.log(found["x"].to_numpy(float)), np.log(found["value"].to_numpy(float))
        corners = np.log([float(row["break"]) for row in own[:-1]])
        ends = np.array([places.min(), *corners, places.max()])
        rises = np.concatenate([[0.0], np.cumsum([row["slope"] for row in own] * np.diff(ends))])
        # As high as leaves the points as far above as below.
        heights = rises + (logs - np.interp(places, ends, rises)).mean()
        fitted += [row | {"bent": any(map(is_bent, own))} for row in _line_of(ends, heights, series)]
        for place, (row, left, right) in enumerate(zip(own, ends, ends[1:], strict=False)):
            theory, middle = plain(row["theory"]), (left + right) / 2
            if len(own) == 1:
                middle = places.mean()
            if theory is not None:
                piece = np.array([left, right])
                height = float(np.interp(middle, ends, heights))
                predicted += _line_of(piece, height + theory * (piece - middle), series, place)
    return pd.DataFrame(fitted), pd.DataFrame(predicted)


def _line_of(places: np.ndarray, heights: np.ndarray, series: Any, piece: int = 0) -> list[dict[str, Any]]:
    """Return the points of a line given in logarithms."""
    return [
        {"x": x, "value": value, "series": series, "piece": piece}
        for x, value in zip(np.exp(places).tolist(), np.exp(heights).tolist(), strict=True)
    ]


def slope_lines(fits: pd.DataFrame, signed: bool = False) -> list[str]:
    """Return the fitted slopes with their intervals and theory's, one line per series."""
    form = "+.2f" if signed else ".2f"
    lines: dict[str, str] = {}
    beyond = ""
    for fit in records(fits):
        slope, low = plain(fit["slope"]), plain(fit["low"])
        lead = f"{fit['series']}: " if fit["series"] else ""
        if slope is None:
            lines[fit["series"]] = f"{lead}fewer than three values"
            continue
        interval = "" if low is None else f" [{signless(low, form)}, {signless(fit['high'], form)}]"
        interval += BENT if is_bent(fit) else ""
        text = f"{signless(slope, form)}{interval}{theory_words(fit)}"
        if plain(fit.get("piece")):
            lines[fit["series"]] += f"; beyond {beyond} {text}"
        else:
            lines[fit["series"]] = f"{lead}{text}"
        beyond = break_words(fit)
    return list(lines.values())


def legend_lines(fits: pd.DataFrame) -> dict[str, list[str]]:
    """Return what a legend says of each series: its slopes, and below them why a verdict is not plain."""
    lines = dict(zip(fits["series"].unique(), slope_lines(fits), strict=True))
    return {name: [lines[name], *_reasons(records(fits[fits["series"] == name]))] for name in lines}


def _reasons(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return why slopes are not what they should be, in lines of a legend."""
    found: list[str] = []
    for row in rows:
        if plain(row.get("verdict")) in ("cannot tell", "disagrees") and plain(row["because"]):
            found.append(str(row["because"]))
        elif is_bent(row):
            found.append(NOT_STRAIGHT)
    return [line for reason in dict.fromkeys(found) for line in folded(reason)]


def folded(reason: str) -> list[str]:
    """Return a reason in lines of a legend."""
    return textwrap.wrap(reason, _LEGEND)


def theory_words(row: Mapping[str, Any]) -> str:
    """Return theory's slope behind a measured one, and whether they agree; empty where theory is silent."""
    theory, verdict = plain(row.get("theory")), plain(row.get("verdict"))
    if theory is None:
        return ""
    return f", theory {theory:.3g}" + ("" if verdict is None else f" ({verdict})")


def sentence(words: str) -> str:
    """Return a note of a table as a sentence of a caption.

    >>> sentence("agrees: both")
    'Agrees: both.'
    """
    return f"{words[:1].upper()}{words[1:]}."


def verdict_words(row: Mapping[str, Any], verdict: str = "verdict", because: str = "because") -> str:
    """Return a verdict with its reason; empty where nothing was asked."""
    word, why = plain(row.get(verdict)), plain(row.get(because))
    return "" if word is None else word + ("" if why is None else f": {why}")


def because_notes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return how verdicts beside theory are made and why some are not plain; nothing where there are none."""
    if all(plain(row.get("verdict")) is None for row in rows):
        return []
    unsure = ("cannot tell", "disagrees")
    reasons = [verdict_words(row) for row in rows if plain(row.get("verdict")) in unsure]
    return [AGREEMENT, *dict.fromkeys(reasons)]


def signless(value: float, form: str = ".2f") -> str:
    """Return a number with two decimals; zero has no minus.

    >>> signless(-0.001), signless(-0.5), signless(-0.001, "+.2f")
    ('0.00', '-0.50', '+0.00')
    """
    return format(round(value, 2) + 0.0, form)


def break_words(row: Mapping[str, Any]) -> str:
    """Return where a piece ends, with the interval; empty for the last one."""
    place, low, high = (plain(row.get(key)) for key in ("break", "break_low", "break_high"))
    if place is None:
        return ""
    return f"{place:.3g} [{'-' if low is None else f'{low:.3g}'}, {'-' if high is None else f'{high:.3g}'}]"


def law_words(row: dict[str, Any], x: str) -> str:
    """Return a slope with its interval, theory and the range in which it holds, in words.

    Args:
        row: Of the exponents.
        x: The key that the slope is against.
    """
    slope, low = plain(row["slope"]), plain(row["slope_low"])
    if slope is None:
        return f"no slope: {row['reason']}"
    words = signless(slope)
    if low is not None and np.isfinite(low):
        words += f" [{signless(low)}, {signless(row['slope_high'])}]"
    words += theory_words(row)
    if ends := break_words(row):
        words += f", up to {x} {ends}"
    elif row["piece"]:
        words += f", beyond (from {x} {short(row['first'])})"
    return words
