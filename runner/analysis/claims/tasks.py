"""Rules on what features are good for: C11, C12, C14, C15."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd

from runner.analysis.claims.slopes import by_cell, geometric_mean, part_of
from runner.analysis.claims.verdict import Check, Frames, above, within
from runner.analysis.correlation import separation, spearman
from runner.analysis.estimate import (
    Estimate,
    Tables,
    Unsupported,
    numbers,
    over_seeds,
    require_seeds,
    trained,
)

STRUCTURED = {"xor": 10, "single_index": 1, "staircase": 1}
"""Structured tasks, and the factor by which rich networks have to beat their initial kernel."""
CLASSICAL = ("ridge_ntk", "rbf_ridge", "rbf_svm")
NOT_MORE = 1.1
"""Two test losses whose ratio is at most this are taken for the same."""
CONVERGED = 1e-3
"""A network that keeps less than this share of its initial loss has converged."""
UNTRAINED = 0.5
"""A network that keeps more than this share of its initial loss has failed to train."""
NO_BETTER = 0.02
"""Error rates that differ by less are taken for the same: 20 of a thousand test samples."""


def features_win(frames: Frames) -> Sequence[Check]:
    """C11: on structured tasks rich networks beat their initial kernel, lazy ones no classical one (T10).

    A lazy network that was trained to convergence does as well as regression with its own kernel, without a
    ridge; one that was not may do worse than either.
    """
    data = part_of(frames["claim_tasks"], model="mlp", lr=1.0)
    checks = []
    for task, factor in STRUCTURED.items():
        rich = part_of(data, parameterization="mup", data=task)
        name = f"Theta_0 regression over mup, test loss, {task}"
        checks.append(above(name, partial(_advantage, rich), factor))
    for task in (*STRUCTURED, "digits"):
        lazy = part_of(data, parameterization="ntk", data=task)
        classical = part_of(frames["claim_tasks"], data=task, model=CLASSICAL, lr=1.0)
        name = f"best classical kernel over lazy network, test loss, {task}"
        checks.append(within(name, partial(_against, lazy, classical), -np.inf, NOT_MORE))
    for task in STRUCTURED:
        long = part_of(frames["claim_tasks"], model="mlp", parameterization="ntk", data=task)
        name = f"own kernel over converged lazy network, test loss, {task}"
        checks.append(within(name, partial(_converged, long), 1 / NOT_MORE, NOT_MORE))
    return checks


def gap_is_feature_learning(frames: Frames) -> Sequence[Check]:
    """C12: the more the kernel changed, the more the network gains over its initial kernel."""
    data = part_of(frames["claim_tasks"], model="mlp", lr=1.0)
    return [
        above(f"rank correlation of ntk_gain and ntk_change, {task}", partial(_gain, data, task), 0)
        for task in STRUCTURED
    ]


def conditioning(frames: Frames) -> Sequence[Check]:
    """C14: networks whose initial kernel is badly conditioned fail to train."""
    data = frames["claim_depth"]
    return [
        above(
            "rank correlation of condition number and final loss", lambda: spearman(*_conditioned(data)), 0
        ),
        above("P(condition number is larger where training failed)", lambda: _failures(data), 0.8),
    ]


def transfer(frames: Frames) -> Sequence[Check]:
    """C15: lazy features serve a second labelling no better than random ones, rich features do."""
    data = part_of(frames["claim_tasks"], model="mlp", lr=1.0)
    return [
        within("transfer_gain, lazy cells", lambda: _transfer_gain(data, "lazy"), -NO_BETTER, NO_BETTER),
        above("transfer_gain, rich cells", lambda: _transfer_gain(data, "rich"), 0),
    ]


def _advantage(tables: Tables) -> Estimate:
    """Return the test loss of regression with the initial kernel over the network's."""
    return _over_network(tables, "kernel_regression_loss_init")


def _over_network(tables: Tables, loss: str) -> Estimate:
    cells = trained(tables.cells)
    ratio = numbers(cells, loss) / numbers(cells, "test_loss")
    return geometric_mean(tables, by_cell(cells, ratio))


def _against(lazy: Tables, kernels: Tables) -> Estimate:
    """Return the smallest mean test loss of the classical kernels over that of each lazy network."""
    cells = _of_regime(lazy, "lazy")
    others = trained(kernels.cells, "classical kernels")
    best = numbers(others, "test_loss").groupby(others["model"].astype(str)).mean().min()
    if not np.isfinite(best):
        raise Unsupported("no classical kernel has a test loss")
    return geometric_mean(lazy.of(cells), by_cell(cells, float(best) / numbers(cells, "test_loss")))


def _converged(lazy: Tables) -> Estimate:
    """Return the test loss of regression without a ridge over that of the lazy networks that converged."""
    cells = _of_regime(lazy, "lazy")
    cells = cells[numbers(cells, "train_loss") < CONVERGED * numbers(cells, "initial_train_loss")]
    if cells.empty:
        raise Unsupported(f"no lazy cell kept less than {CONVERGED:g} of its initial loss")
    return _over_network(lazy.of(cells), "kernel_interpolation_loss_init")


def _gain(tables: Tables, task: str) -> Estimate:
    """Return the rank correlation of the gain over the initial kernel with the kernel's change."""
    cells = trained(part_of(tables, data=task).cells, f"cells of {task}")
    require_seeds(cells)
    return spearman(numbers(cells, "ntk_change"), numbers(cells, "ntk_gain"))


def _conditioned(tables: Tables) -> tuple[pd.Series, pd.Series]:
    """Return the condition number at init, and the share of the initial loss that is left, of each cell.

    Cells that diverged count, for they say whether training works; their loss is larger than any other. So is
    a condition number that rounding hides.
    """
    require_seeds(trained(tables.cells))
    cells = tables.cells[tables.cells["status"].astype(object) != "failed"]
    condition = numbers(cells, "condition_number_init").replace(np.inf, np.finfo(float).max)
    left = numbers(cells, "train_loss") / numbers(cells, "initial_train_loss")
    return condition, left.where(cells["status"].astype(object) == "ok", np.finfo(float).max)


def _failures(tables: Tables) -> Estimate:
    """Return how well the condition number tells networks that failed to train from the others."""
    condition, left = _conditioned(tables)
    return separation(condition, left > UNTRAINED)


def _of_regime(tables: Tables, regime: str) -> pd.DataFrame:
    cells = trained(tables.cells)
    kept = cells[cells["regime"].astype(object) == regime]
    if kept.empty:
        raise Unsupported(f"no {regime} cell")
    return kept


def _transfer_gain(tables: Tables, regime: str) -> Estimate:
    """Return the mean ``transfer_gain`` of the cells of a regime, resampling seeds."""
    cells = _of_regime(tables, regime)
    known = cells.assign(value=numbers(cells, "transfer_gain")).dropna(subset=["value"])
    return over_seeds(known, lambda part: float(part["value"].mean()))
