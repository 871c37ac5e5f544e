"""Verdicts: an estimate against a prediction, and several of them as one claim."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from runner.analysis.estimate import Estimate, Tables, Unsupported

Word = Literal["holds", "fails", "inconclusive"]
Frames = Mapping[str, Tables]
"""The tables of each experiment, by its name."""


@dataclass(frozen=True, slots=True)
class Check:
    """One number against one prediction.

    Attributes:
        predicted: What the claim says of the number, as text.
        measured: The estimate, with ``low`` and ``high`` its 95 % interval; None where the data give none.
        cells: How many cells the estimate comes from.
        note: Why the check is inconclusive; else empty.
        published: The number that a paper gives, null for a bound; source: where it does.
    """

    name: str
    predicted: str
    measured: float | None = None
    low: float | None = None
    high: float | None = None
    cells: int = 0
    verdict: Word = "inconclusive"
    note: str = ""
    published: float | None = None
    source: str = ""


@dataclass(frozen=True, slots=True)
class Claim:
    """A statement about training that can be tested.

    Attributes:
        experiments: Names of the experiments in ``conf/experiment/`` whose tables the rule needs.
        rule: Makes the checks from these tables.
    """

    id: str
    text: str
    experiments: tuple[str, ...]
    rule: Callable[[Mapping[str, Any]], Sequence[Check]]

    def check(self, read: Mapping[str, Any]) -> Sequence[Check]:
        """Return the checks of the claim, one inconclusive one if an experiment is missing."""
        missing = [name for name in self.experiments if name not in read]
        if missing:
            return [Check("", "", note=f"no results of the experiment {', '.join(missing)}")]
        return self.rule(read)


def verdict_of(checks: Sequence[Check]) -> Word:
    """Return the verdict on a claim: it fails with any of its checks, and holds only with all."""
    words = {check.verdict for check in checks}
    if "fails" in words:
        return "fails"
    return "holds" if words == {"holds"} else "inconclusive"


def headline(checks: Sequence[Check]) -> Check:
    """Return the check to show: the first one that decides the verdict."""
    word = verdict_of(checks)
    return next(check for check in checks if check.verdict == word)


def within(
    name: str, estimate: Callable[[], Estimate], low: float, high: float, rival: float | None = None
) -> Check:
    """Check that a number lies in a band.

    It holds if the estimate lies in the band and its interval leaves out the rival; it fails if the whole
    interval lies outside the band; anything else is inconclusive.

    Args:
        estimate: Measures it; raises Unsupported where the data do not give the number.
        low: Lower end of the band; -inf for none.
        rival: What the number would be if the claim were false; null if that is not one number.
    """
    predicted = f"{_text(low)} to {_text(high)}" if np.isfinite(low) else f"<= {_text(high)}"

    def judge(found: Estimate) -> tuple[Word, str]:
        if found.high < low or found.low > high:
            return "fails", ""
        if not low <= found.value <= high:
            return "inconclusive", "outside, but the interval reaches the prediction"
        if rival is not None and found.low <= rival <= found.high:
            return "inconclusive", f"the interval does not exclude {_text(rival)}"
        return "holds", ""

    return _check(name, predicted, estimate, judge)


def above(name: str, estimate: Callable[[], Estimate], bound: float) -> Check:
    """Check that a number exceeds a bound: the whole interval above it holds, the whole below it fails."""
    return _check(
        name, f"> {_text(bound)}", estimate, lambda found: _side(found.low > bound, found.high <= bound)
    )


def below(name: str, estimate: Callable[[], Estimate], bound: float) -> Check:
    """Check that a number stays under a bound: its whole interval below holds, its whole above fails."""
    return _check(
        name, f"< {_text(bound)}", estimate, lambda found: _side(found.high < bound, found.low >= bound)
    )


def _side(holds: bool, fails: bool) -> tuple[Word, str]:
    """Return the verdict on a number that should lie on one side of a bound."""
    if holds:
        return "holds", ""
    return ("fails", "") if fails else ("inconclusive", "the interval holds the bound")


def _check(
    name: str, predicted: str, estimate: Callable[[], Estimate], judge: Callable[[Estimate], tuple[Word, str]]
) -> Check:
    """Measure and judge; without a number, or without a finite interval, the check is inconclusive."""
    try:
        found = estimate()
    except Unsupported as why:
        return Check(name, predicted, note=str(why))
    if not np.isfinite([found.value, found.low, found.high]).all():
        return Check(name, predicted, cells=found.cells, note="no finite interval")
    word, note = judge(found)
    return Check(name, predicted, found.value, found.low, found.high, found.cells, word, note)


def _text(value: float) -> str:
    return f"{value:.4g}"
