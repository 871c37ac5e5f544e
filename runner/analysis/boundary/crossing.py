"""Where a property begins and ends along a key, in one row of cells that differ by that key alone."""

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
    """

    place: float
    last: float
    first: float
    ragged: bool = False
    interpolated: bool = False


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
        place = np.mean([_between(x, score, cut, level, smooth) for cut in cuts])
        return Crossing(
            float(np.exp(place) if log else place),
            float(along[max(min(first, cuts.min()) - 1, 0)]),
            float(along[min(max(last + 1, cuts.max()), len(x) - 1)]),
            ragged=last > first,
            interpolated=smooth and last < first and bool(np.isfinite(score[first - 1 : first + 1]).all()),
        )

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


def _between(x: np.ndarray, score: np.ndarray, cut: int, level: float, smooth: bool) -> float:
    """Return the place between the cells before and after a cut."""
    middle = float(x[cut - 1] + x[cut]) / 2
    ends = np.array([score[cut - 1], score[cut]])
    if smooth and (ends > 0).all() and level > 0:
        ends, level = np.log(ends), float(np.log(level))
    if not smooth or (ends[0] < level) == (ends[1] < level) or not np.isfinite(ends).all():
        return middle
    return float(x[cut - 1] + (level - ends[0]) / (ends[1] - ends[0]) * (x[cut] - x[cut - 1]))
