"""The blocks of a measure on a terminal: colours of its scale, letters, values, sparklines of its trace."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from rich.text import Text

from runner.analysis.columns import column, groups, numeric_column, plain
from runner.analysis.phase import Axes
from runner.analysis.regime import LETTERS
from runner.views.braille import sparkline
from runner.views.terminal import MISSING, short

_VIRIDIS = np.array(
    [[68, 1, 84], [71, 44, 122], [59, 81, 139], [44, 113, 142], [33, 144, 141], [39, 173, 129], [92, 200, 99],
     [170, 220, 50], [253, 231, 37]]
)  # fmt: skip
_SPARK, _VALUE = 6, 7
_ROOM_OF_TEXT = 9
"""Characters of a letter and a value."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """How the points of a diagram look on a terminal.

    Attributes:
        axes: Of the diagram.
        ends: Smallest and largest value.
        traces: From facets, x and y to values over the steps; empty where there is no room for them.
        course: Smallest and largest value of the traces.
    """

    axes: Axes
    ends: tuple[float, float]
    traces: Mapping[tuple[Any, ...], Sequence[float]]
    course: tuple[float, float]

    @classmethod
    def of(
        cls, grid: pd.DataFrame, axes: Axes, traces: Mapping[tuple[Any, ...], Sequence[float]], width: int
    ) -> Blocks:
        """Return the blocks of a grid; sparklines only where a facet fits into a width with them."""
        across = max(
            len(part[axes.x].unique()) for _, part in groups(grid, [grid[key] for key in axes.facets])
        )
        if across * (_ROOM_OF_TEXT + _SPARK + 2) + 10 > width:
            traces = {}
        values = np.array([value for one in traces.values() for value in one])
        # Without the highest and the lowest twentieth: a diverging cell would press all others flat.
        course = np.quantile(values, (0.05, 0.95)) if len(values) else (math.nan, math.nan)
        return cls(axes, _ends(grid["value"]), traces, (float(course[0]), float(course[1])))

    @property
    def log(self) -> bool:
        """Whether the colours are on a logarithmic scale, as in the figure."""
        low, high = self.ends
        return low > 0 and high > 10 * low

    def cell(self, row: Mapping[str, Any]) -> Text:
        """Return the text of a point on its colour."""
        value, regime = plain(row["value"]), plain(row["regime"])
        letter = LETTERS[regime] if regime is not None else "!" if row["failed"] else ""
        if value is None:
            return Text(f"{letter} {MISSING}".strip())
        words = [letter, f"{short(value):<{_VALUE}}" if self.traces else short(value)]
        if self.traces:
            key = tuple(plain(row[name]) for name in (*self.axes.facets, self.axes.x, self.axes.y))
            words.append(f"{sparkline(self.traces.get(key, ()), *self.course, _SPARK):<{_SPARK}}")
        return Text(" ".join(words), style=self.style(float(value)))

    def style(self, value: float) -> str:
        """Return the style of a value: its colour, and black or white on it."""
        low, high = self.ends
        a, b, c = (math.log(one) for one in (low, value, high)) if self.log else (low, value, high)
        place = (len(_VIRIDIS) - 1) * ((b - a) / (c - a) if c > a else 0.5)
        red, green, blue = (
            round(float(np.interp(place, range(len(_VIRIDIS)), _VIRIDIS[:, part]))) for part in range(3)
        )
        ink = "#000000" if 0.299 * red + 0.587 * green + 0.114 * blue > 110 else "#FFFFFF"
        return f"{ink} on #{red:02X}{green:02X}{blue:02X}"

    def legend(self, color: str) -> Text:
        """Return the scale of the colours, and what letters and sparklines are."""
        low, high = self.ends
        text = Text()
        if not math.isfinite(low):
            return text
        places = np.linspace(0, 1, 16)
        values = low * (high / low) ** places if self.log else low + (high - low) * places
        text.append(f"{short(low)} ")
        for value in values.tolist():
            text.append(" ", style=self.style(value))
        text.append(f" {short(high)}  {color}{', logarithmic' if self.log else ''}; letters: regimes")
        if self.traces:
            text.append(
                f"\n▁ {short(self.course[0])} to █ {short(self.course[1])}: {color} over the measured steps"
            )
        return text


def traces_of(cells: pd.DataFrame, trace: pd.DataFrame, axes: Axes) -> dict[tuple[Any, ...], list[float]]:
    """Return the median over seeds of a measure at each step, by facets, x and y; nothing if it has no trace.

    Args:
        cells: The chosen rows of ``cells``.
        trace: Rows of ``trace``.
    """
    if axes.color not in trace or axes.color not in trace.select_dtypes("number"):
        return {}
    keys = {key: column(cells, key, "--facet") for key in axes.facets}
    keys |= {key: numeric_column(cells, key, "--x") for key in (axes.x, axes.y)}
    placed = pd.DataFrame(keys).assign(cell_id=cells["cell_id"])
    rows = trace[["cell_id", "step", axes.color]].merge(placed, on="cell_id")
    rows = rows[np.isfinite(rows[axes.color].astype(float))]
    if (rows[axes.color] >= 0).all():  # a movement is zero at init, where a logarithm is not
        rows = rows[rows[axes.color] > 0]
    found: dict[tuple[Any, ...], list[float]] = {}
    for values, part in groups(rows, [rows[key] for key in keys]):
        medians = part.groupby("step")[axes.color].median().dropna()
        found[tuple(plain(value) for value in values)] = [float(value) for value in medians]
    return found


def _ends(values: Any) -> tuple[float, float]:
    """Return the smallest and the largest value: those above zero, if there are some and none is below."""
    found = np.asarray(pd.to_numeric(pd.Series(list(values))).astype(float))
    found = found[np.isfinite(found)]
    if len(found) and found.min() >= 0 and (found > 0).any():
        found = found[found > 0]
    return (float(found.min()), float(found.max())) if len(found) else (math.nan, math.nan)
