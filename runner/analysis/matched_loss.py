"""Cells compared at the same train loss instead of the same step."""

import numpy as np
import pandas as pd

from runner.analysis.estimate import numbers


def at_loss(trace: pd.DataFrame, metric: str, fraction: float) -> pd.Series:
    """Return a measure of each cell where its train loss falls, for good, to a fraction of its start.

    Of several crossings the last counts: a loss that fell and rose again in a catapult was not reached yet.
    Between the measured steps around it, the measure is interpolated linearly in the logarithm of the loss.

    Args:
        fraction: Share of the train loss at step 0, between 0 and 1.

    Returns:
        The values by ``cell_id``; NaN for a cell that did not end below that loss.
    """
    rows = trace[["cell_id", "step"]].assign(
        loss=numbers(trace, "train_loss"), value=numbers(trace, metric), cell_id=trace["cell_id"].astype(str)
    )
    found = {
        cell: _crossing(part["loss"].to_numpy(), part["value"].to_numpy(), fraction)
        for cell, part in rows.sort_values(["cell_id", "step"]).groupby("cell_id", sort=False)
    }
    return pd.Series(found, dtype=float, name=metric)


def _crossing(loss: np.ndarray, value: np.ndarray, fraction: float) -> float:
    """Return the measure where the loss last falls through its target, NaN if it ends above."""
    target = fraction * loss[0]
    over = np.flatnonzero(~(loss <= target))
    if not len(over) or over[-1] == len(loss) - 1:
        return float("nan")
    before, after = over[-1], over[-1] + 1
    high, low = np.log(loss[before]), np.log(max(loss[after], np.finfo(float).tiny))
    part = (high - np.log(target)) / (high - low)
    return float(value[before] + part * (value[after] - value[before]))
