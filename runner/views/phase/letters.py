"""Room for the letters of a printed diagram: a line leaves it out, and a letter gives way to a boundary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from runner.views.scales import Scale

_WIDE, _HIGH, _MARGIN = 0.40, 0.40, 1.6
"""Half of a capital letter's width and height in sizes of its font, and points around it."""
_STEP = 0.5


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
