"""What an interval decides: a slope beside theory's, whether a rate stays put, and which networks are one."""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, NamedTuple

from runner.analysis.beside import NEAR
from runner.analysis.columns import plain
from runner.grid.config import load_exponents
from runner.scaling.optimizers import OPTIMIZERS

REGIMES = ("ntk", "mup", "sp")
"""Tables whose exponents are what a slope would be in another regime."""
STEP = 0.5
"""Between exponents of theory, where no other regime has another one."""
TWOFOLD = 1.0
"""Doublings over the whole range of a key up to which a rate is said to stay put, as claim C16 has it."""
WITHIN = f"within {NEAR:g}"
"""The verdict where an interval does not hold theory's slope, which is as near as a limit asks for."""
VERDICTS = ("verdict", "because")
"""Columns of a verdict and of its reason."""
_EQUAL = 1e-6
_SHOWN = 0.005
"""By which an end of an interval may be off as it is printed, to two decimals."""


class Verdict(NamedTuple):
    """What an interval decides, and why.

    Attributes:
        verdict: ``agrees``, :data:`WITHIN`, ``disagrees`` or ``cannot tell``; of a rate that may stay put,
            and of curves that may be one, ``yes``, ``no`` or ``cannot tell``; None where nothing is asked.
        because: The reason in a few words; None where the number says it.
    """

    verdict: str | None
    because: str | None = None


NOTHING = Verdict(None)


def beside_theory(row: Mapping[str, Any], rivals: Iterable[float], doubt: str | None = None) -> Verdict:
    """Return whether a measured slope is theory's.

    A slope agrees if its 95 % interval holds theory's and no rival. Theory's slope is that of a limit, and
    seeds do not know how far the measured range is from it: a slope that is itself within :data:`NEAR` of it
    and whose interval holds no rival is :data:`WITHIN`. It disagrees if it is further off and the interval
    leaves theory's out. It cannot tell if the interval holds a rival too, if there is none, or where
    something makes the slope no single number.

    Args:
        row: ``slope``, ``low``, ``high`` and ``theory``.
        rivals: What the slope would be if theory were wrong, as :func:`rivals_of` gives them.
        doubt: Why the slope decides nothing, unless all of its interval is near.
    """
    slope, low, high, theory = (plain(row[name]) for name in ("slope", "low", "high", "theory"))
    if theory is None or slope is None:
        return NOTHING
    if low is None or high is None or not math.isfinite(high - low):
        return Verdict("cannot tell", "no interval")
    holds = low - _SHOWN <= theory <= high + _SHOWN
    near = Verdict("agrees" if holds else WITHIN)
    if max(theory - low, high - theory) <= NEAR:
        return near
    if doubt is not None:
        return Verdict("cannot tell", doubt)
    rivals = tuple(rivals)
    if holds or abs(slope - theory) <= NEAR:
        held = [f"{rival:.3g}" for rival in rivals if low <= rival <= high]
        return Verdict("cannot tell", f"the interval holds {' and '.join(held)}, too") if held else near
    nearest = min((theory, *rivals), key=lambda one: abs(one - slope))
    beside = f", nearer to {nearest:.3g}"
    if nearest == theory:
        beside = ", no other regime nearer" if rivals else ""
    return Verdict("disagrees", f"off by {abs(slope - theory):.2g}{beside}")


def rivals_of(
    theory: float | None, cell: Mapping[str, Any], predict: Callable[[dict[str, Any]], float | None]
) -> tuple[float, ...]:
    """Return what a slope would be if theory were wrong, sorted.

    Zero, and theory's slope of the same network under :data:`REGIMES`; where none of these differs from
    theory's own, half a unit to both sides, for exponents come in halves.

    Args:
        theory: Slope that theory gives; None has no rivals.
        cell: A cell, as for :func:`runner.analysis.theory.predicted_slope`.
        predict: From such a cell to the slope.
    """
    if theory is None:
        return ()
    found = [0.0, *(predict({**cell, "exponents": _table(name)}) for name in REGIMES)]
    apart = {float(one) + 0.0 for one in found if one is not None and abs(one - theory) > _EQUAL}
    return tuple(sorted(apart)) or (theory - STEP, theory + STEP)


@cache
def _table(name: str) -> str:
    return load_exponents(name)


def stays_put(row: Mapping[str, Any], doublings: float, of: str = "the range") -> Verdict:
    """Return whether a rate stays put along a key: by less than a factor of two over all of its range.

    Yes if the whole 95 % interval of the drift says so, no if none of it does, else it cannot be told.

    Args:
        row: ``drift``, ``drift_low`` and ``drift_high``, in doublings of the rate per doubling of the key.
        doublings: Of the key, from the smallest value to the largest.
        of: What these doublings are of, in words.
    """
    drift, low, high = (plain(row[name]) for name in ("drift", "drift_low", "drift_high"))
    if drift is None:
        return Verdict("cannot tell", "fewer than three values")
    if low is None or high is None or not math.isfinite(high - low):
        return Verdict("cannot tell", "no interval")
    ends = (low * doublings, high * doublings)
    changes = f"rate times {_factor(ends[0])} to {_factor(ends[1])} over {of}"
    if max(map(abs, ends)) <= TWOFOLD:
        return Verdict("yes", changes)
    return Verdict("no" if min(ends) > TWOFOLD or max(ends) < -TWOFOLD else "cannot tell", changes)


def _factor(doublings: float) -> str:
    return f"{2**doublings:.2g}"


def one_curve(row: Mapping[str, Any], loose: bool) -> Verdict:
    """Return whether rescaled curves are one: no if they differ by more than seeds do, else by the interval.

    An exponent whose interval reaches further than :data:`STEP` from it is none: curves whose seeds differ
    as much fall on one for any.

    Args:
        row: ``exponent``, ``low``, ``high``, ``noise`` and ``reason``, why there is no interval.
        loose: Whether the curves differ by far more than seeds explain.
    """
    beta, low, high = (plain(row[name]) for name in ("exponent", "low", "high"))
    if beta is None:
        return NOTHING
    if loose:
        return Verdict("no", "they differ by far more than seeds do")
    if low is None or plain(row["noise"]) is None:
        return Verdict("cannot tell", plain(row.get("reason")) or "no interval")
    if max(beta - low, high - beta) > STEP:
        return Verdict("cannot tell", f"any exponent from {low:.2f} to {high:.2f} does as well")
    return Verdict("yes", "as far as seeds tell")


def same_networks(cells: Iterable[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Return the names of parameterizations under which networks train alike, step by step.

    Two tables are one if a shift of each layer takes one to the other: a + t, b - t and c - 2t under SGD,
    c - t under Adam, so that a + b and c + 2a, or c + a, are the same.

    Args:
        cells: ``parameterization``, ``exponents`` and ``optimizer`` of one cell of each.

    References:
        Yang & Hu (2021), arXiv 2011.14522, the symmetry of abc-parameterizations.
    """
    found: dict[str, dict[str, None]] = {}
    for cell in cells:
        if (family := OPTIMIZERS.get(cell["optimizer"])) not in ("sgd", "adam"):
            continue
        if cell["optimizer"] == "muon":  # its factor reads the shape, and its rest is another optimizer
            continue
        table = json.loads(cell["exponents"])
        shift = 2 if family == "sgd" else 1
        if family not in table.get("c", {}):
            continue
        a, b, c = table["a"], table["b"], table["c"][family]
        roles = ("input", "hidden", "output")
        sums = [(float(a[role] + b[role]), float(c[role] + shift * a[role])) for role in roles]
        kept = [cell["optimizer"], sums, float(table.get("attention", 0)), table.get("depth")]
        found.setdefault(json.dumps(kept, sort_keys=True), {})[str(cell["parameterization"])] = None
    return [tuple(names) for names in found.values() if len(names) > 1]
