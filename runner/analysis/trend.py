"""Whether features move less, as much or more as a key grows, by the slope of their movement."""

import math
from collections.abc import Mapping
from typing import Any

from runner.analysis.agreement import Verdict
from runner.analysis.beside import NEAR, NOT_STRAIGHT, is_bent
from runner.analysis.columns import plain

FALLS, STAYS, RISES, UNKNOWN = "falls", "stays", "rises", "cannot tell"


def trend(row: Mapping[str, Any]) -> Verdict:
    """Return whether a measure falls, stays or rises along a key.

    It falls where the whole 95 % interval of the slope lies below zero and the slope below
    -:data:`runner.analysis.beside.NEAR`, rises where both lie as far above, and stays where the slope lies
    between and the whole interval above -NEAR. Else it cannot be told, nor where the points give no single
    slope: it never says more than the verdict beside theory.

    Args:
        row: Of :func:`runner.analysis.exponents.fit`.
    """
    slope, low, high = (plain(row[name]) for name in ("slope", "low", "high"))
    if slope is None:
        return Verdict(UNKNOWN, "too few values")
    if is_bent(row):
        return Verdict(UNKNOWN, NOT_STRAIGHT)
    if plain(row.get("verdict")) == UNKNOWN:
        return Verdict(UNKNOWN, plain(row["because"]))
    if low is None or high is None or not math.isfinite(high - low):
        return Verdict(UNKNOWN, "no interval")
    if high < 0 and slope < -NEAR:
        return Verdict(FALLS)
    if low > 0 and slope > NEAR:
        return Verdict(RISES)
    if low > -NEAR and slope <= NEAR:
        return Verdict(STAYS)
    return Verdict(UNKNOWN, "the interval holds more than one of them")
