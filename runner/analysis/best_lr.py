"""The best learning rate of a grid at each value of a key, and what lies beside it."""

import numpy as np
import pandas as pd

from runner.analysis.estimate import Unsupported, numbers


def best_lr(cells: pd.DataFrame, metric: str = "train_loss", x: str = "width") -> pd.Series:
    """Return the learning rate of the smallest loss by a key, ascending; NaN where every lr diverged.

    Losses are averaged over seeds geometrically; a learning rate at which any seed diverged is out.
    """
    loss = numbers(cells, metric).where(cells["status"].astype(object) == "ok", np.inf)
    table = (
        pd.DataFrame({"x": cells[x], "lr": cells["lr"].astype(float), "log": np.log(loss)})
        .groupby(["x", "lr"])["log"]
        .mean()
        .unstack("lr")
    )
    best = table.idxmin(axis=1)
    return best.where(np.isfinite(table.min(axis=1)))


def grid_neighbours(cells: pd.DataFrame, best: pd.Series, x: str) -> pd.DataFrame:
    """Return the rates of the grid on both sides of the smallest loss, and whether the upper one diverged.

    Args:
        cells: Those that :func:`best_lr` took.
        best: What it returned.

    Returns:
        By the key ``last`` and ``first`` (NaN at an end of the grid) and ``at_edge``: whether the next larger
        rate diverged with some seed, so that the best may lie anywhere up to it.
    """
    lost = cells["status"].astype(object) == "diverged"
    rows = {}
    for place, rate in best.items():
        here = cells[x] == place
        rates = np.sort(cells.loc[here, "lr"].astype(float).unique())
        below, above = rates[rates < rate], rates[rates > rate]
        last, first = (float(one[0]) if len(one) else np.nan for one in (below[::-1], above))
        edge = bool((lost & here & (cells["lr"].astype(float) == first)).any())
        rows[place] = {"last": last, "first": first, "at_edge": edge}
    return pd.DataFrame.from_dict(rows, orient="index")


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
