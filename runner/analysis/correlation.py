"""Rank correlations with bootstrap intervals."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from runner.analysis.estimate import Estimate, Unsupported

LEAST_CELLS = 8
_AT_ONCE = 1 << 20
"""Cells times resamples that are ranked together."""


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


def _over_cells(statistic: Callable[[np.ndarray], np.ndarray], pairs: np.ndarray, resamples: int) -> Estimate:
    """Return a statistic of pairs with its bootstrap interval."""
    picks = np.random.default_rng(0).integers(0, len(pairs), (resamples, len(pairs)))
    # Ties are found once: a resample has the same values.
    codes = np.stack([np.unique(values, return_inverse=True)[1] for values in pairs.T])
    parts = np.array_split(picks, max(1, picks.size // _AT_ONCE))
    drawn = np.concatenate([statistic(codes[:, part]) for part in parts])
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return Estimate(float(statistic(codes[:, None])[0]), float(low), float(high), len(pairs))


def _spearman(codes: np.ndarray) -> np.ndarray:
    """Return the correlation of the ranks in each resample, ties sharing theirs; NaN for a constant."""
    ranks = np.stack([_ranks(one) for one in codes])
    spread = ranks.std(axis=2).prod(axis=0)
    centred = ranks - ranks.mean(axis=2, keepdims=True)
    together: np.ndarray = centred.prod(axis=0).mean(axis=1)
    return together / np.where(spread > 0, spread, np.nan)


def _area(codes: np.ndarray) -> np.ndarray:
    """Return the area of (score, class) by the Mann-Whitney statistic; NaN without both classes."""
    score, positive = _ranks(codes[0]), codes[1] > 0
    many = positive.sum(axis=1)
    few = positive.shape[1] - many
    above: np.ndarray = (score * positive).sum(axis=1) - many * (many - 1) / 2
    return above / np.where((many > 0) & (few > 0), many * few, np.nan)


def _ranks(codes: np.ndarray) -> np.ndarray:
    """Return ranks from 0 in each row of codes, the places of values among all; ties share theirs."""
    rows, kinds = len(codes), int(codes.max()) + 1
    apart = codes + kinds * np.arange(rows)[:, None]
    count = np.bincount(apart.ravel(), minlength=rows * kinds).reshape(rows, kinds)
    last = count.cumsum(axis=1)
    return np.take_along_axis((last - count + last - 1) / 2, codes, axis=1)
