"""A line of the benchmark's table: what was measured, what was asked for, and whether it holds."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Target:
    """A bound on a figure.

    Attributes:
        bound: The figure must not be worse than this.
        least: Whether the bound is a lower one.
    """

    bound: float
    least: bool

    def holds(self, figure: float) -> bool:
        """Whether a figure meets the bound; NaN meets none."""
        return figure >= self.bound if self.least else figure <= self.bound

    def text(self) -> str:
        """Return the bound as the table shows it."""
        return f"{'>=' if self.least else '<='} {number(self.bound)}"


def at_least(bound: float) -> Target:
    """Return the target of a figure that should be large."""
    return Target(bound, least=True)


def at_most(bound: float) -> Target:
    """Return the target of a figure that should be small."""
    return Target(bound, least=False)


@dataclass(frozen=True)
class Line:
    """One row of the table.

    Attributes:
        family: Which file measured it.
        what: Is measured.
        unit: Of the figure.
        figure: Median over the repeats; NaN where nothing could be measured.
        target: The bound; None for a figure that is shown for comparison.
        repeats: Of which the figure is the median.
        low: Smallest of them.
        high: Largest of them.
        note: How, or why not.
    """

    family: str
    what: str
    unit: str
    figure: float
    target: Target | None = None
    repeats: int = 1
    low: float | None = None
    high: float | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        """``pass``, ``FAIL``, or nothing without a target."""
        if self.target is None:
            return ""
        return "pass" if self.target.holds(self.figure) else "FAIL"


@dataclass
class Family:
    """Collects the lines of one file.

    Attributes:
        name: Of the family.
        lines: So far.
        skipped: Why there are none.
    """

    name: str
    lines: list[Line] = field(default_factory=list)
    skipped: str = ""

    def add(
        self,
        what: str,
        unit: str,
        values: float | Sequence[float],
        target: Target | None = None,
        note: str = "",
    ) -> None:
        """Add a line with the median of some repeats."""
        found = [values] if isinstance(values, float | int) else list(values)
        self.lines.append(
            Line(
                self.name, what, unit, statistics.median(found), target,
                len(found), min(found), max(found), note,
            )
        )  # fmt: skip


def failed(lines: Iterable[Line]) -> list[Line]:
    """Return the lines whose target does not hold."""
    return [line for line in lines if line.verdict == "FAIL"]


def number(value: float | None) -> str:
    """Write a figure with three digits.

    >>> number(0.8512), number(1234.5), number(12)
    ('0.851', '1234', '12')
    """
    if value is None:
        return ""
    return f"{value:.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
