"""Intervals of places that a few seeds give, each known to a grid: seeds and grid joined by one rule."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from runner.analysis.quantiles import student

LEVEL = 0.975


class Spread(NamedTuple):
    """How much the places of seeds differ: standard deviation and its degrees of freedom."""

    deviation: float
    freedom: int


def pooled(groups: Iterable[np.ndarray]) -> Spread:
    """Return the spread of seeds around the mean of their group, the same in all groups.

    Two seeds by themselves say little of it.

    Args:
        groups: Places of the seeds, on the scale on which they are averaged.
    """
    parts = [np.asarray(part, float) for part in groups]
    freedom = sum(max(0, len(part) - 1) for part in parts)
    total = sum(float(((part - part.mean()) ** 2).sum()) for part in parts if len(part))
    return Spread(float(np.sqrt(total / max(1, freedom))), freedom)


def half_interval(spread: Spread, seeds: Any, error: Any, weight: Any = 1.0) -> float:
    """Return half of the 95 % interval of a weighted sum of means over seeds.

    ``sqrt(t^2 s^2 sum(w^2 / n) + sum(w^2 e^2))``: Student's t of the seeds, and what is not known of each
    place whatever its seeds say, taken as independent. Seeds may agree better than a grid can tell.

    Args:
        spread: Of the seeds.
        seeds: How many there are at each place.
        error: How far each place may be off.
        weight: Of each place in the sum: 1 for a mean by itself.

    Returns:
        NaN where nothing says how seeds differ.
    """
    if not spread.freedom:
        return float("nan")
    counts, errors, weights = np.broadcast_arrays(*(np.asarray(one, float) for one in (seeds, error, weight)))
    of_seeds = student(spread.freedom, LEVEL) * spread.deviation * np.sqrt((weights**2 / counts).sum())
    return float(np.hypot(of_seeds, np.sqrt(((weights * errors) ** 2).sum())))
