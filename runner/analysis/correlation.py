"""Rank correlations with bootstrap intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd

from runner.analysis.estimate import Estimate, Unsupported

LEAST_CELLS = 8


def spearman(x: pd.Series, y: pd.Series, within: pd.Series | None = None, resamples: int = 2000) -> Estimate:
    """Return Spearman's rank correlation over cells; its interval resamples the cells.

    With ``within``, cells are ranked among those of their group, as shares of it: what differs between
    groups, widths for instance, then neither makes nor hides a correlation.

    Args:
        x: A measure of each cell.
        y: Another, on the same index; pairs with a null are left out.
        within: Group of each cell.
        resamples: Bootstrap resamples.

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
    values = both.to_numpy()
    rng = np.random.default_rng(0)
    picks = rng.integers(0, len(values), (resamples, len(values)))
    found = [_spearman(values[pick]) for pick in picks]
    low, high = np.nanpercentile(found, [2.5, 97.5])
    return Estimate(_spearman(values), float(low), float(high), len(values))


def separation(score: pd.Series, positive: pd.Series, resamples: int = 2000) -> Estimate:
    """Return the probability that a positive cell scores above a negative one (area under the ROC curve).

    Args:
        score: A measure of each cell.
        positive: Whether each cell belongs to the class that should score high.
        resamples: Bootstrap resamples of the cells.

    Raises:
        Unsupported: If one of the classes has fewer than two cells.
    """
    both = pd.concat([score.rename("score"), positive.astype(bool).rename("positive")], axis=1).dropna()
    if both["positive"].sum() < 2 or (~both["positive"]).sum() < 2:
        raise Unsupported(
            f"{int(both['positive'].sum())} of {len(both)} cells are positive: nothing to tell apart"
        )
    values, labels = both["score"].to_numpy(float), both["positive"].to_numpy(bool)
    rng = np.random.default_rng(0)
    found = []
    for _ in range(resamples):
        pick = rng.integers(0, len(values), len(values))
        found.append(_area(values[pick], labels[pick]))
    low, high = np.nanpercentile(found, [2.5, 97.5])
    return Estimate(_area(values, labels), float(low), float(high), len(values))


def _spearman(pairs: np.ndarray) -> float:
    """Return the correlation of the ranks, ties sharing theirs; NaN for a constant."""
    ranks = np.column_stack([_ranks(pairs[:, 0]), _ranks(pairs[:, 1])])
    spread = ranks.std(axis=0)
    if not spread.all():
        return float("nan")
    centred = ranks - ranks.mean(axis=0)
    return float((centred[:, 0] * centred[:, 1]).mean() / spread.prod())


def _area(score: np.ndarray, positive: np.ndarray) -> float:
    """Return the Mann-Whitney statistic over the number of pairs; NaN without both classes."""
    many, few = int(positive.sum()), int((~positive).sum())
    if not many or not few:
        return float("nan")
    return float((_ranks(score)[positive].sum() - many * (many - 1) / 2) / (many * few))


def _ranks(values: np.ndarray) -> np.ndarray:
    """Return ranks from 0, ties sharing their mean."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return ((last - count + last - 1) / 2)[place]
