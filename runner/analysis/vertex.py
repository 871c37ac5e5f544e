"""The minimum of a curve that is known at a few abscissae, and how far it may be off."""

import math
from typing import NamedTuple

import numpy as np


class Vertex(NamedTuple):
    """Where a curve is smallest, and how far from there it may be; NaN where nothing is known."""

    place: float
    error: float


def vertex(x: np.ndarray, y: np.ndarray) -> Vertex:
    """Return the vertex of the parabola through the smallest value and its neighbours.

    It lies at most half a step from the smallest value. A curve is no parabola: the cubic through the next
    point as well, on either side, has its minimum elsewhere, and the error is how far, the larger of both
    sides, and at most half of the mean step. It is that half, around the smallest value itself, where a
    neighbour is not finite or there is none, and around the vertex where there is no fourth point.

    Args:
        x: Abscissae, ascending, two or more.
        y: Values; NaN or infinite is not known.
    """
    y = np.where(np.isfinite(y), y, np.inf)
    at = int(y.argmin())
    if not math.isfinite(y[at]):
        return Vertex(math.nan, math.nan)
    start = float(x[at])
    before = float(x[max(at, 1)] - x[max(at, 1) - 1])
    end = min(at, len(x) - 2)
    after = float(x[end + 1] - x[end])
    half = (before + after) / 4
    if at in (0, len(x) - 1) or not np.isfinite(y[at - 1 : at + 2]).all():
        return Vertex(start, half)
    left, here, right = (float(value) for value in y[at - 1 : at + 2])
    fall, rise = (left - here) / before, (right - here) / after
    if fall + rise <= 0:
        return Vertex(start, half)
    # Around the smallest value the parabola is here + slope u + bend u^2.
    bend = (fall + rise) / (before + after)
    slope = rise - bend * after
    place = _clipped(-slope / (2 * bend), before, after)
    moved = []
    for fourth in (at - 2, at + 2):
        if 0 <= fourth < len(x) and math.isfinite(y[fourth]):
            u = float(x[fourth]) - start
            off = float(y[fourth]) - here - slope * u - bend * u * u
            third = off / ((u + before) * u * (u - after))
            moved.append(abs(_clipped(_minimum(slope, bend, third, before, after), before, after) - place))
    return Vertex(start + place, min(half, max(moved, default=half)))


def _minimum(slope: float, bend: float, third: float, before: float, after: float) -> float:
    """Return the minimum of ``slope u + bend u^2 + third (u + before) u (u - after)`` near zero."""
    first = slope - third * before * after
    second = bend + third * (before - after)
    # The root of the derivative at which it rises; there is one, for zero lies below both neighbours.
    root = math.sqrt(max(0.0, second * second - 3 * third * first))
    return -first / (second + root) if second + root > 0 else 0.0


def _clipped(place: float, before: float, after: float) -> float:
    """Return a place at most half a step away."""
    return min(max(place, -before / 2), after / 2)
