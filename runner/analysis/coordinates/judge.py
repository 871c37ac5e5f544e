"""Verdicts on the slopes of a coordinate check: pass, fail or inconclusive, layer by layer and in all."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from runner.analysis.columns import plain, records
from runner.analysis.coordinates.blame import Blame, Moment, blame
from runner.analysis.coordinates.signature import LOGITS, is_query
from runner.analysis.coordinates.slopes import BOUND, KEYS, PLACES, part_slopes

BAND = 0.25
"""How far from theory's exponent a slope may be: exponents are halves, this is half way to the next."""
LOGITS_BAND = 0.1
"""The same upwards for attention logits, whose slopes come to theirs from below."""
NEXT = 0.5
"""How far the next exponent is, which an interval must leave out."""
_UNKNOWN_SEEDS = 100
"""More seeds than this are no remedy."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What the check says of one optimizer and parameterization.

    Attributes:
        verdict: ``pass``, ``fail`` or ``inconclusive``.
        layers: One row per layer in forward order: ``layer_index``, ``layer``, ``role``, ``verdict`` (also
            ``still``: nothing of it changed), ``note``, and of each part ``<part>``, ``<part>_low`` and
            ``<part>_high``: its slope with the 95 % interval at the moment that decides.
        checks: One row per layer, part and moment: that of the slopes, ``verdict`` and ``more_seeds``, how
            many would decide it.
        blame: The layer to blame and why; None if nothing fails.
        note: What else must be known: which widths or depths diverged.
        key: Against what the slopes are, ``width`` or ``depth``.
    """

    verdict: str
    layers: pd.DataFrame
    checks: pd.DataFrame
    blame: Blame | None
    note: str
    key: str = "width"


def judge(points: pd.DataFrame, adam: bool | None, steps: int | None = None, key: str = "width") -> Judged:
    """Judge whether all layers change by the same amount at any width, as under maximal update.

    The change that a layer's own weight makes must not depend on the width, nor the change of hidden
    representations, outputs and attention logits; what a layer passes on must not grow. A slope passes
    within :data:`BAND` of its exponent if its interval leaves out the next one; it fails if its whole
    interval is outside; else it is inconclusive. Under SGD queries and keys may be slower by n^(-1/2) for as
    long as attention has not aligned with what it attends to.

    Args:
        points: One row per layer, size, seed and measured step after init, of one optimizer and
            parameterization; see :data:`runner.analysis.coordinates.COLUMNS`. A seed that diverged has no
            rows from there on.
        adam: Whether updates are sign-like; None if nobody knows.
        steps: Steps that were asked for; by default the last one that there is.
        key: What sizes are: ``width``, or ``depth``, of which the same is asked under CompleteP.

    References:
        Yang et al. (2022), arXiv 2203.03466, appendix D.1; Haas et al. (2025), arXiv 2505.22491.
    """
    slopes = part_slopes(points)
    words = [_verdict(row, adam, key) for row in records(slopes)]
    checks = slopes.assign(
        verdict=[word for word, _ in words],
        more_seeds=pd.array([seeds for _, seeds in words], dtype="Int64"),
    )
    layers = pd.DataFrame(_layers(checks))
    lost, everywhere = _diverged(points, points["step"].max() if steps is None else steps)
    found = set(layers["verdict"])
    if "fail" in found or (lost and not everywhere):
        verdict = "fail"
    else:
        verdict = "inconclusive" if "inconclusive" in found or lost or not found - {"still"} else "pass"
    moments = {
        moment: Moment.of(checks, moment, [str(name) for name in layers["layer"]])
        for moment in ("first", "last")
    }
    guilty = blame(layers, moments, adam, key) if "fail" in found else None
    return Judged(verdict, layers, checks, guilty, _divergence_words(lost, everywhere, key), key)


@dataclass(frozen=True, slots=True)
class _Rule:
    """Where a slope passes: from ``least`` to ``most``, its interval between ``below`` and ``above``."""

    least: float
    most: float
    below: float
    above: float


def _rule(part: str, layer: str, adam: bool | None, key: str) -> _Rule:
    """Return where the slope of a part passes."""
    if part == BOUND:
        return _Rule(-NEXT - BAND, BAND, -2 * NEXT, NEXT)
    if layer.endswith(LOGITS):
        # A sum over the features of a head: its aligned part, of slope 0, outgrows one of -1/2. From below.
        return _Rule(-NEXT - BAND, LOGITS_BAND, -2 * NEXT, NEXT)
    # In depth what follows a block is the skip, too: at first the change of the embedding and a share of 1/L.
    in_block = key == "depth" and any(place in layer.split(".") for place in PLACES)
    if part == "update_passed" or (in_block and part == "update_size"):
        return _Rule(-math.inf, BAND, -math.inf, NEXT)
    slower = NEXT if not adam and is_query(layer) else 0.0
    return _Rule(-slower - BAND, BAND, -slower - NEXT, NEXT)


def _verdict(row: dict[str, Any], adam: bool | None, key: str) -> tuple[str, int | None]:
    """Return the verdict on a slope, and how many seeds more would decide an inconclusive one."""
    slope, low, high = (plain(row[name]) for name in ("slope", "low", "high"))
    if not row["sizes"]:
        return "still", None
    if slope is None or low is None:
        return "inconclusive", 1 if slope is not None else None
    rule = _rule(str(row["part"]), str(row["layer"]), adam, key)
    if high < rule.least or low > rule.most:
        return "fail", None
    inside = rule.least <= slope <= rule.most
    if inside and low > rule.below and high < rule.above:
        return "pass", None
    # An interval shrinks as the root of the seeds: to leave out the next exponent, or where it passes.
    if inside:
        room = min(slope - rule.below, rule.above - slope)
    else:
        room = max(rule.least - slope, slope - rule.most)
    half = max(high - slope, slope - low)
    needed = row["seeds"] * (half / room) ** 2 if room > 0 else math.inf
    more = max(1, math.ceil(needed) - int(row["seeds"])) if math.isfinite(needed) else None
    return "inconclusive", more if more is not None and more <= _UNKNOWN_SEEDS else None


_RANK = {"fail": 0, "inconclusive": 1, "pass": 2, "still": 3}


def _layers(checks: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield a row per layer: of each part the slope at the moment that decides."""
    for key, part in checks.groupby([*KEYS], dropna=False, observed=True, sort=True):
        rows = sorted(records(part), key=lambda row: (_RANK[row["verdict"]], row["moment"] != "last"))
        found: dict[str, Any] = dict(zip(KEYS, map(plain, key), strict=True))
        # A part that stays zero, as what a first layer passes on, says nothing beside one that does not.
        moving = [row for row in rows if row["verdict"] != "still"]
        own_is_still = any(row["part"] == "update_own" and row["verdict"] == "still" for row in rows)
        verdict = moving[0]["verdict"] if moving and not own_is_still else "still"
        if own_is_still and any(row["verdict"] == "fail" for row in moving):
            verdict = "fail"
        seeds = [plain(row["more_seeds"]) for row in moving if row["verdict"] == "inconclusive"]
        found |= {"verdict": verdict, "note": _note(verdict, seeds)}
        for row in reversed(rows):
            name = str(row["part"])
            found |= {name: row["slope"], f"{name}_low": row["low"], f"{name}_high": row["high"]}
            found[f"{name}_verdict"] = row["verdict"]
        yield found


def _note(verdict: str, seeds: list[int | None]) -> str:
    """Return what would decide an inconclusive layer."""
    if verdict == "still":
        return "its own weight does not change"
    if verdict != "inconclusive":
        return ""
    known = [count for count in seeds if count is not None]
    return f"{max(known)} seeds more" if len(known) == len(seeds) else "larger networks"


def _diverged(points: pd.DataFrame, last: int) -> tuple[list[int], bool]:
    """Return the sizes at which seeds diverged before the last step, and whether that is all of them."""
    reached = points[points["step"] == last].groupby("size")["seed"].nunique()
    began = points.groupby("size")["seed"].nunique()
    lost = [int(size) for size, count in began.items() if reached.get(size, 0) < count]  # type: ignore[call-overload]
    return lost, len(lost) == len(began)


def _divergence_words(lost: list[int], everywhere: bool, key: str) -> str:
    if not lost:
        return ""
    sizes = ", ".join(map(str, lost))
    if everywhere:
        return f"training diverges at every {key} ({sizes}): a smaller learning rate tells more"
    return f"training diverges at {key} {sizes}, not below: unstable as the {key} grows"
