"""Where a property begins and ends along a key, in one row of cells that differ by that key alone."""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Crossing:
    """One end of a property along a key, in units of the key.

    Attributes:
        place: Where it is.
        last: The bracket's lower end: below it every cell is as on the lower side.
        first: The bracket's upper end.
        ragged: Whether cells inside the bracket contradict each other: on the wrong side of every cut.
        interpolated: Whether the place was read between two cells off a score, not only bracketed.
        error: How far from the place it may be, on the scale on which places are averaged (logarithms of a
            positive key): half of the bracket, or of an interpolated place what :func:`interpolation_error`
            says.
    """

    place: float
    last: float
    first: float
    ragged: bool = False
    interpolated: bool = False
    error: float = 0.0


@dataclass(frozen=True, slots=True)
class Crossings:
    """Both ends of a property; None where the grid holds none.

    Attributes:
        everywhere: Whether the cells have the property at every value (True) or at none (False); None where
            they differ, or where nothing is known.
    """

    begins: Crossing | None = None
    ends: Crossing | None = None
    everywhere: bool | None = None


def crossings(
    along: np.ndarray, score: np.ndarray, level: float, *, lasts: bool = False, smooth: bool = False,
    log: bool = True,
) -> Crossings:  # fmt: skip
    """Return where a score passes a level along a key.

    The cells that have the property are taken to be one run of neighbours: the run that fewest cells
    contradict, and of several such the middle of their ends. Its lower end is where the property begins, its
    upper end where it ends; a run that reaches an end of the grid has no end there. Places lie in the middle
    of the two cells around them, or, where the score is smooth, where it passes the level between them.

    Args:
        along: Values of the key, ascending, each once, positive if ``log``.
        score: Of the cells; NaN where it is not known: such cells are left out.
        level: A cell has the property where its score is at least this.
        lasts: Whether the run must reach the largest value.
        smooth: Whether places are interpolated, in the logarithm of the score where all are positive.
        log: Whether the middle is geometric.
    """
    known = ~np.isnan(score)
    along, score = along[known], score[known]
    x = np.log(along) if log else along
    state = score >= level
    if len(x) == 0 or not state.any() or state.all():
        return Crossings(everywhere=bool(state.all()) if len(x) else None)
    starts, stops = _runs(state, lasts)
    middle = len(x) if lasts else int((starts.mean() + stops.mean() + 1) / 2)

    def crossing(cuts: np.ndarray, side: slice, before: bool) -> Crossing | None:
        """Return the end of the run on one side of its middle, where the states change from ``before``."""
        if (cuts == 0).any() or (cuts == len(x)).any():
            return None
        changed = state[side] != before
        offset = side.start or 0
        # The bracket reaches from the last cell before the first change to the first one after the last.
        first = offset + (int(changed.argmax()) if changed.any() else len(changed))
        last = offset + (len(changed) - 1 - int(changed[::-1].argmin()) if not changed.all() else -1)
        lower, upper = max(min(first, cuts.min()) - 1, 0), min(max(last + 1, cuts.max()), len(x) - 1)
        found = [_between(x, score, cut, level, smooth) for cut in cuts]
        read = smooth and last < first and bool(np.isfinite(score[first - 1 : first + 1]).all())
        place = np.mean([place for place, _ in found])
        return Crossing(
            float(np.exp(place) if log else place), float(along[lower]), float(along[upper]),
            ragged=last > first,
            interpolated=read,
            error=found[0][1] if read else float(x[upper] - x[lower]) / 2,
        )  # fmt: skip

    return Crossings(
        crossing(starts, slice(0, middle), before=False), crossing(stops, slice(middle, None), before=True)
    )


def _runs(state: np.ndarray, lasts: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the starts and the stops of the non-empty runs that fewest states contradict.

    Of several such, those that meet the same borders of the grid as the longest.
    """
    n = len(state)
    ones = np.concatenate([[0], np.cumsum(state)])
    start, stop = np.triu_indices(n + 1, k=1)
    if lasts:
        start, stop = start[stop == n], stop[stop == n]
    inside = ones[stop] - ones[start]
    wrong = (ones[-1] - inside) + (stop - start - inside)
    start, stop = start[wrong == wrong.min()], stop[wrong == wrong.min()]
    longest = int((stop - start).argmax())
    alike = ((start == 0) == (start[longest] == 0)) & ((stop == n) == (stop[longest] == n))
    return start[alike], stop[alike]


def _between(
    x: np.ndarray, score: np.ndarray, cut: int, level: float, smooth: bool
) -> tuple[float, float]:  # fmt: skip
    """Return the place between the cells before and after a cut, and how far it may be off."""
    half = float(x[cut] - x[cut - 1]) / 2
    ends = score[cut - 1 : cut + 1]
    if smooth and level > 0 and (ends > 0).all():
        with np.errstate(divide="ignore", invalid="ignore"):  # cells beyond the two may have no logarithm
            score, level = np.log(score), float(np.log(level))
        ends = score[cut - 1 : cut + 1]
    if not smooth or (ends[0] < level) == (ends[1] < level) or not np.isfinite(ends).all():
        return float(x[cut - 1]) + half, half
    place = float(x[cut - 1] + (level - ends[0]) / (ends[1] - ends[0]) * (x[cut] - x[cut - 1]))
    return place, interpolation_error(x, score, cut, level)


def interpolation_error(x: np.ndarray, score: np.ndarray, cut: int, level: float) -> float:
    """Return how far the place at which a straight line passes a level may be off between two cells.

    A score that is curved passes the level elsewhere. The parabola through the two cells and the next one,
    ``s(u) = s_0 + (s_1 - s_0) u + k u (u - 1)`` with ``u`` from 0 to 1 between the two, knows its curvature:
    the error is how far its place is from the line's, the larger of both sides, and at most half of the
    distance of the two cells. It is that half where there is no third cell.

    Args:
        x: Abscissae, ascending.
        score: Of the cells, on the scale on which the line is straight; NaN or infinite is not known.
        cut: The second of the two cells.
        level: Between their scores.
    """
    start, step = float(x[cut - 1]), float(x[cut] - x[cut - 1])
    below, above = float(score[cut - 1]) - level, float(score[cut]) - level
    rise = above - below
    moved = []
    for third in (cut - 2, cut + 1):
        if not (0 <= third < len(x) and math.isfinite(score[third])):
            continue
        u = (float(x[third]) - start) / step
        bend = (float(score[third]) - level - below - rise * u) / (u * (u - 1))
        slope = rise - bend
        # The root in whose place the parabola goes the way of the line; below and above differ in sign.
        root = math.sqrt(max(0.0, slope * slope - 4 * bend * below))
        divisor = slope + math.copysign(root, rise)
        moved.append(abs(-2 * below / divisor + below / rise) if divisor else 0.5)
    return step * min(0.5, max(moved, default=0.5))
