"""The letters of a diagram: in print a line leaves them out, or a letter gives way to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from runner.analysis.phase import Axes, is_scattered
from runner.views import alt
from runner.views.scales import Scale
from runner.views.style import LEAST_TYPE, Layout, rows_of

_WIDE, _HIGH, _MARGIN = 0.40, 0.40, 1.6
"""Half of a capital letter's width and height in sizes of its font, and points around it."""
_STEP = 0.5
_HALO = 0.3
_FILLED = 0.7
"""Most of a row's height that the size of its letters is in print: lines between rows have the rest."""


@dataclass(frozen=True, slots=True)
class Letters:
    """The letters of a panel.

    Attributes:
        x: Where they are, in points from the panel's left.
        y: Likewise, from its top.
        size: Of the font, in points; 0 if there are none.
        axes: Of the panel, x and y.
        room: Width and height of the panel in points.
    """

    x: np.ndarray
    y: np.ndarray
    size: float
    axes: tuple[Scale, Scale]
    room: tuple[float, float]

    @classmethod
    def of(
        cls, frame: pd.DataFrame, axes: tuple[Scale, Scale], room: tuple[float, float], size: float
    ) -> Letters:
        """Return the letters of a panel's points.

        Args:
            frame: Columns ``x`` and ``y``, the values of the points.
        """
        found = cls(np.zeros(0), np.zeros(0), size, axes, room)
        x, y = found.placed(frame["x"], frame["y"])
        return cls(x, y, size, axes, room)

    def placed(self, x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return values of both axes in points from the upper left corner."""
        across, up = (
            _fraction(np.asarray(values, float), axis) for values, axis in zip((x, y), self.axes, strict=True)
        )
        return across * self.room[0], (1 - up) * self.room[1]

    def hit(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return which letters each place touches, as ``place letter``.

        Args:
            x: In points.
            y: In points.
        """
        wide, high = _WIDE * self.size + _MARGIN, _HIGH * self.size + _MARGIN
        near = np.abs(x[:, None] - self.x) < wide
        touched: np.ndarray = near & (np.abs(y[:, None] - self.y) < high)
        return touched

    def parted(self, line: pd.DataFrame) -> pd.DataFrame:
        """Return the pieces of a line between the letters, numbered in ``piece``.

        Args:
            line: Columns ``x`` and ``y``, in order.
        """
        if not self.size or len(line) < 2:
            return line.assign(piece=0)
        x, y = _dense(*self.placed(line["x"], line["y"]))
        free = np.asarray(~self.hit(x, y).any(axis=1))
        piece = np.cumsum(np.diff(free.astype(int), prepend=0) == 1)
        across, up = _value(x / self.room[0], self.axes[0]), _value(1 - y / self.room[1], self.axes[1])
        pieces = pd.DataFrame({"x": across, "y": up, "piece": piece})
        return pieces.loc[free].reset_index(drop=True)

    def struck(self, line: pd.DataFrame) -> np.ndarray:
        """Return which letters a line or its points touch.

        Args:
            line: Columns ``x`` and ``y``, in order.
        """
        if not self.size or line.empty:
            return np.zeros(len(self.x), bool)
        x, y = self.placed(line["x"], line["y"])
        return np.asarray(self.hit(*_dense(x, y)).any(axis=0))


def _dense(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a line with places closer together than half a point."""
    length = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(x), np.diff(y)))])
    length += np.arange(len(length)) * 1e-9
    places = np.union1d(length, np.arange(0, length[-1], _STEP))
    return np.interp(places, length, x), np.interp(places, length, y)


def _fraction(values: np.ndarray, axis: Scale) -> np.ndarray:
    ends = np.asarray(axis.domain, float)
    if axis.log:
        values, ends = np.log(values), np.log(ends)
    found: np.ndarray = (values - ends[0]) / (ends[1] - ends[0])
    return found


def _value(fractions: np.ndarray, axis: Scale) -> np.ndarray:
    ends = np.asarray(axis.domain, float)
    if axis.log:
        ends = np.log(ends)
    found = ends[0] + fractions * (ends[1] - ends[0])
    return np.asarray(np.exp(found) if axis.log else found)


def unstruck(frame: pd.DataFrame, letters: Letters, lines: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return the points without the letters that lines over them would strike out."""
    struck = [letters.struck(line) for line in lines]
    return frame[~np.any(struck, axis=0)] if struck else frame


def letter_marks(
    frame: pd.DataFrame, scales: tuple[Any, Any], size: float, name: str, layout: Layout
) -> list[Any]:
    """Return the letters of a panel, on a screen each over a halo that keeps lines from striking it out."""
    if size < (LEAST_TYPE if layout.paper else 5) or frame.empty:
        return []
    base = alt.Chart(rows_of(frame)).encode(x=scales[0], y=scales[1], text=alt.Text("letter:N"))
    style: dict[str, Any] = {"fontSize": size, "fontWeight": "bold"}
    letter = base.mark_text(**style).encode(color=alt.Color("ink:N", scale=None))
    if layout.paper:
        return [letter.properties(name=name)]
    halo = base.mark_text(
        **style, strokeWidth=_HALO * size, strokeJoin="round"
    ).encode(stroke=alt.Stroke("fill:N", scale=None), color=alt.Color("fill:N", scale=None))  # fmt: skip
    return [halo.properties(name=f"{name}_halo"), letter.properties(name=name)]


def panel_size(
    part: pd.DataFrame, axes: Axes, layout: Layout, parts: Sequence[pd.DataFrame]
) -> tuple[float, float]:
    """Return width and height of a panel that leave room for a letter in each rectangle.

    Args:
        part: Its points.
        parts: Those of all panels, which are equally high in print.
    """
    across, up = part[axes.x].nunique(), part[axes.y].nunique()
    if is_scattered(part, axes):
        up = 14
    if layout.panel is None:
        return float(np.clip(34 * across, 150, 420)), float(np.clip(22 * up, 130, 420))
    across = max(one[axes.x].nunique() for one in parts)
    up = max(14 if is_scattered(one, axes) else one[axes.y].nunique() for one in parts)
    row = np.clip(0.65 * layout.panel / across, LEAST_TYPE / _FILLED, 20)
    return layout.panel, float(min(np.clip(row * up, 60, 300), max(60, layout.highest)))


def letter_size(part: pd.DataFrame, axes: Axes, layout: Layout, width: float, height: float) -> float:
    """Return the size of a letter that fits into a rectangle."""
    if is_scattered(part, axes):
        return 0.0
    most, filled = (layout.font, _FILLED) if layout.paper else (11.0, 0.85)
    return round(
        min(most, 0.75 * width / part[axes.x].nunique(), filled * height / part[axes.y].nunique()), 1
    )
