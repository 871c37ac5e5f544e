"""The richness at which features begin to form, at each width."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from runner.analysis.columns import facet_groups
from runner.analysis.estimate import numbers


def movement(frame: pd.DataFrame) -> pd.Series:
    """Return what the regime is judged by: the larger of ``ntk_change`` and ``feature_movement``."""
    both = pd.concat([numbers(frame, "ntk_change"), numbers(frame, "feature_movement")], axis=1)
    return both.max(axis=1)


def crossover_gamma(cells: pd.DataFrame, level: float, by: Sequence[str] = ("width", "seed")) -> pd.DataFrame:
    """Return the gamma at which the movement first rises through a level.

    Args:
        cells: Trained cells of several ``gamma``.
        level: The movement to be crossed; for instance the geometric mean of the lazy and the rich threshold.
        by: Keys with one crossover per combination of values.

    Returns:
        The keys and ``gamma``, interpolated in both logarithms; NaN where the level is not crossed.
    """
    rows = []
    for keys, part in facet_groups(cells, by):
        points = pd.DataFrame({"gamma": part["gamma"].astype(float), "moved": movement(part)}).dropna()
        points = points[points["moved"] > 0].sort_values("gamma")
        x, y = np.log(points["gamma"].to_numpy()), np.log(points["moved"].to_numpy())
        rises = np.flatnonzero((y[:-1] < np.log(level)) & (y[1:] >= np.log(level)))
        gamma = np.nan
        if len(rises):
            i = rises[0]
            gamma = float(np.exp(np.interp(np.log(level), y[i : i + 2], x[i : i + 2])))
        rows.append({**keys, "gamma": gamma})
    return pd.DataFrame(rows, columns=[*by, "gamma"])
