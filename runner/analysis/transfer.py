"""The best learning rate at each width, and how far it drifts."""

from __future__ import annotations

import numpy as np
import pandas as pd

from runner.analysis.estimate import Unsupported, numbers


def best_lr(cells: pd.DataFrame, metric: str = "train_loss") -> pd.Series:
    """Return the learning rate of the smallest loss at each width.

    Losses are averaged over seeds geometrically; a learning rate at which any seed diverged is out.

    Args:
        cells: Rows of the ``cells`` table over several ``width`` and ``lr``.
        metric: The loss to be small.

    Returns:
        The best ``lr`` by width, ascending. NaN where every lr diverged.
    """
    loss = numbers(cells, metric).where(cells["status"].astype(object) == "ok", np.inf)
    table = (
        pd.DataFrame({"width": cells["width"], "lr": cells["lr"].astype(float), "log": np.log(loss)})
        .groupby(["width", "lr"])["log"]
        .mean()
        .unstack("lr")
    )
    best = table.idxmin(axis=1)
    return best.where(np.isfinite(table.min(axis=1)))


def require_inside(best: pd.Series, cells: pd.DataFrame) -> None:
    """Refuse a best lr at an end of the grid: the true one may lie beyond.

    Raises:
        Unsupported: Naming the width.
    """
    ends = {float(cells["lr"].min()), float(cells["lr"].max())}
    for width, rate in best.items():
        if not np.isfinite(rate):
            raise Unsupported(f"every lr diverged at width {width}")
        if rate in ends:
            raise Unsupported(f"the best lr at width {width} is {rate:g}, an end of the grid")


def drift_per_doubling(best: pd.Series) -> float:
    """Return the slope of log2 of the best lr against log2 of the width."""
    return float(np.polyfit(np.log2(best.index.to_numpy(float)), np.log2(best.to_numpy(float)), 1)[0])
