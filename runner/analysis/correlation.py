"""Rank correlations with bootstrap intervals."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from runner.analysis.estimate import Estimate, Unsupported

LEAST_CELLS = 8


def spearman(x: pd.Series, y: pd.Series, within: pd.Series | None = None, resamples: int = 2000) -> Estimate:
    """Return Spearman's rank correlation over cells; its interval resamples the cells.

    With ``within``, cells are ranked among those of their group, as shares of it: what differs between
    groups, widths for instance, then neither makes nor hides a correlation.

    Args:
        x: A measure of each cell; ``y`` is another one. Pairs with a null are left out.
        within: Group of each cell, on the same index.
        resamples: How often the bootstrap draws.

    Raises:
        Unsupported: If fewer than eight cells have both, or one of the measures is constant.
    """
    both = pd.concat([x.rename("x"), y.rename("y")], axis=1).replace([np.inf, -np.inf], np.nan).dropna()
    if len(both) < LEAST_CELLS:
        raise Unsupported(f"{len(both)} cells with both measures, fewer than {LEAST_CELLS}")
    if both.nunique().min() < 2:
        raise Unsupported("one of the measures is the same in every cell")
    if within is not None:
        both = both.groupby(within.loc[both.index]).rank(pct=True)
    return _over_cells(_spearman, both.to_numpy(), resamples)


def separation(score: pd.Series, positive: pd.Series, resamples: int = 2000) -> Estimate:
    """Return the probability that a positive cell scores above a negative one (area under the ROC curve).

    Args:
        positive: Whether each cell belongs to the class that should score high.
        resamples: How often the bootstrap draws cells.

    Raises:
        Unsupported: If one of the classes has fewer than two cells.
    """
    both = pd.concat([score.rename("score"), positive.astype(bool).rename("positive")], axis=1).dropna()
    count = int(both["positive"].sum())
    if count < 2 or len(both) - count < 2:
        raise Unsupported(f"{count} of {len(both)} cells are positive: nothing to tell apart")
    return _over_cells(_area, both.to_numpy(float), resamples)


def _over_cells(statistic: Callable[[np.ndarray], float], pairs: np.ndarray, resamples: int) -> Estimate:
    """Return a statistic of pairs with its bootstrap interval."""
    picks = np.random.default_rng(0).integers(0, len(pairs), (resamples, len(pairs)))
    low, high = np.nanpercentile([statistic(pairs[pick]) for pick in picks], [2.5, 97.5])
    return Estimate(statistic(pairs), float(low), float(high), len(pairs))


def _spearman(pairs: np.ndarray) -> float:
    """Return the correlation of the ranks, ties sharing theirs; NaN for a constant."""
    ranks = np.column_stack([_ranks(pairs[:, 0]), _ranks(pairs[:, 1])])
    spread = ranks.std(axis=0)
    if not spread.all():
        return float("nan")
    centred = ranks - ranks.mean(axis=0)
    return float((centred[:, 0] * centred[:, 1]).mean() / spread.prod())


def _area(pairs: np.ndarray) -> float:
    """Return the area of (score, class) by the Mann-Whitney statistic; NaN without both classes."""
    score, positive = pairs[:, 0], pairs[:, 1] > 0
    many, few = int(positive.sum()), int((~positive).sum())
    if not many or not few:
        return float("nan")
    return float((_ranks(score)[positive].sum() - many * (many - 1) / 2) / (many * few))


def _ranks(values: np.ndarray) -> np.ndarray:
    """Return ranks from 0, ties sharing their mean."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return ((last - count + last - 1) / 2)[place]
