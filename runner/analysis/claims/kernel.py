"""Rules on training as descent with the initial kernel: C3, C5, C13."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd

from runner.analysis.claims.slopes import by_cell, geometric_mean, part_of, require_widths, slope, widest
from runner.analysis.claims.verdict import Check, Frames, above, below, within
from runner.analysis.estimate import (
    Estimate,
    Tables,
    Unsupported,
    numbers,
    over_seeds,
    require_seeds,
    trained,
)

TIMES = (0.3, 100.0)
"""Between these values of lr * lambda_max * t the lazy network has to follow its kernel."""
EARLY = 0.3
LATE = (10.0, 30.0)


def fixed_kernel(frames: Frames) -> Sequence[Check]:
    """C3: under ntk training follows the fixed kernel ever better with width, at every time."""
    data = part_of(frames["claim_kernel"], parameterization="ntk")
    times = "kernel_gd_error at the time where it falls least, ntk, depth"
    return [
        *(
            within(f"{times} {depth}", partial(_worst_slope, part_of(data, depth=depth)), -np.inf, -0.5, 0)
            for depth in (1, 2)
        ),
        within(
            "test loss over that of Theta_0 regression, ntk, largest width",
            lambda: geometric_mean(widest(data), _over_regression(widest(data))),
            0.8, 1.25,
        ),
    ]  # fmt: skip


def convergence_rate(frames: Frames) -> Sequence[Check]:
    """C5: lambda_min > 0, and lazy cells keep loss(t) <= loss(0) (1 - eta lambda_min)^(2t) at every step."""
    data = part_of(frames["claim_kernel"], parameterization="ntk")
    return [
        below("largest loss over its bound, lazy cells, any step", lambda: _over_bound(data), 1 + 1e-9),
        above("smallest lambda_min at init, any cell", lambda: _smallest(frames["claim_kernel"]), 0),
    ]


def early_kernel(frames: Frames) -> Sequence[Check]:
    """C13: under mup the initial kernel still governs early times, and no longer later."""
    checks = []
    for depth in (1, 2):
        cells = part_of(frames["claim_kernel"], parameterization="mup", depth=depth)
        worst, least = partial(_extreme, cells, (0, EARLY), np.max), partial(_extreme, cells, LATE, np.min)
        late = f"largest kernel_gd_error from {LATE[0]:g} to {LATE[1]:g}, least width, mup, depth {depth}"
        checks += [
            below(f"kernel_gd_error up to {EARLY:g}, worst width, mup, depth {depth}", worst, 0.1),
            above(late, least, 0.4),
        ]
    return checks


def _timed(tables: Tables, metric: str) -> pd.DataFrame:
    """Return the trace after init with time (lr * lambda_max * step), width, seed and a measure as value."""
    cells = trained(tables.cells)
    keys = ["cell_id", "width", "seed", "lr_sharpness", "lr_absolute", "regime", "initial_train_loss"]
    trace = tables.trace[tables.trace["step"] > 0]
    if metric not in trace:
        raise Unsupported(f"there is no column {metric}")
    rows = cells[keys].merge(trace[["cell_id", "step", metric]], on="cell_id")
    rows["value"] = numbers(rows, metric)
    rows["time"] = rows["lr_sharpness"].astype(float) * rows["step"]
    return rows.dropna(subset=["value"])


def _worst_slope(tables: Tables) -> Estimate:
    """Return the largest over times of the slope of ``kernel_gd_error`` against width."""
    rows = _errors(tables, TIMES)
    found = [slope(tables, by_cell(part, part["value"])) for _, part in rows.groupby("step")]
    return max(found, key=lambda line: line.value)


def _errors(tables: Tables, times: tuple[float, float]) -> pd.DataFrame:
    """Return the rows of ``kernel_gd_error`` between two times."""
    rows = _timed(tables, "kernel_gd_error")
    rows = rows[(rows["time"] >= times[0] * 0.99) & (rows["time"] <= times[1] * 1.01)]
    if rows.empty:
        raise Unsupported(f"no step between lr * lambda_max * t = {times[0]:g} and {times[1]:g}")
    return rows


def _extreme(
    tables: Tables, times: tuple[float, float], over_widths: Callable[[np.ndarray], float]
) -> Estimate:
    """Return the largest seed mean over times at each width, as one number over the widths."""
    rows = _errors(tables, times)
    require_widths(rows)

    def statistic(part: pd.DataFrame) -> float:
        peaks = part.groupby(["width", "step"])["value"].mean().groupby("width").max()
        return float(over_widths(peaks.to_numpy()))

    return replace(over_seeds(rows, statistic), cells=rows["cell_id"].nunique())


def _over_regression(tables: Tables) -> pd.Series:
    """Return the network's test loss over that of regression with the initial kernel, by cell_id."""
    cells = tables.cells
    return by_cell(cells, numbers(cells, "test_loss") / numbers(cells, "kernel_regression_loss_init"))


def _over_bound(tables: Tables) -> Estimate:
    """Return the largest ratio of the loss of any lazy cell to its bound."""
    rows = _timed(tables, "train_loss")
    rows = rows[rows["regime"].astype(object) == "lazy"]
    if rows.empty:
        raise Unsupported("no lazy cell")
    require_seeds(rows)
    least = tables.cells.assign(least=numbers(tables.cells, "lambda_min_init"))[["cell_id", "least"]]
    rows = rows.merge(least, on="cell_id")
    decay = (1 - rows["lr_absolute"].astype(float) * rows["least"]).clip(lower=0)
    bound = rows["initial_train_loss"].astype(float) * decay ** (2.0 * rows["step"])
    ratio = (rows["value"] / bound).groupby(rows["cell_id"]).max()
    worst = float(ratio.max())  # a bound is broken by one cell: there is nothing to average
    return Estimate(worst, worst, worst, len(ratio))


def _smallest(tables: Tables) -> Estimate:
    """Return the smallest lambda_min at init of any cell."""
    if tables.cells.empty:
        raise Unsupported("no cells")
    require_seeds(tables.cells)
    values = numbers(tables.cells, "lambda_min_init").dropna()
    least = float(values.min())
    return Estimate(least, least, least, len(values))
