"""What a boundary is the boundary of: a property that a cell has or has not, at every point of a grid."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from runner.analysis.axes import measured_columns
from runner.analysis.columns import floats
from runner.analysis.estimate import numbers
from runner.analysis.regime import REGIMES, check_thresholds
from runner.errors import UserError, unknown
from runner.grid.config import load_thresholds
from runner.store import Store

MOVEMENT = "movement"
"""Stands for what the regime is judged by: the larger of ``ntk_change`` and ``feature_movement``."""
_GROWING = {
    MOVEMENT, "ntk_change", "kernel_distance", "feature_movement", "param_movement", "pattern_change",
    "linearization_error", "kernel_gd_error",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Property:
    """A property of cells.

    Attributes:
        name: As it was asked for.
        meaning: When a cell has it, in words.
        score: One number per cell, on the index of the cells; NaN where it is not known, infinite where it
            must be beyond any level: of what grows in training, in cells that diverged.
        level: A cell has the property where its score is at least this.
        lasts: Whether it cannot end once it has begun along a key: what diverged stays diverged beyond.
        smooth: Whether the score says how far a cell is from the level, so that the place of the level can be
            interpolated between two cells.
    """

    name: str
    meaning: str
    score: pd.Series
    level: float
    lasts: bool = False
    smooth: bool = False


def property_of(store: Store, cells: pd.DataFrame, text: str) -> Property:
    """Return the property of these cells that a name or ``METRIC=LEVEL`` stands for.

    ``diverged``, a regime, ``trained``: any but diverged and untrained; ``catapult``,
    ``controlled_divergence``; ``lazy_rich``, where the movement of kernel or features passes the
    geometric mean of the thresholds of lazy and rich; ``c_loss``, ``c_sharp``, ``c_barrier`` and ``c_max`` of
    Kalra & Barkeshli: the learning rates from which on the loss rises above its start, the sharpness rises
    above its start, the straight line from the start to the end of training passes a loss above that of the
    start, and training diverges. A cell that diverged has all four.

    Args:
        store: Its ``trace`` is read where the property is one of training, its config has the thresholds.
        cells: Rows of its ``cells``.
        text: As the user wrote it.

    Raises:
        UserError: If there is no such property, or what it is read from was not measured.

    References:
        Kalra & Barkeshli (2023), arXiv 2302.12250, section 2.
    """
    metric, equals, level = text.partition("=")
    if equals:
        return _of_metric(cells, metric.strip(), level, text)
    status = cells["status"].astype(object)
    if text in ("diverged", "c_max"):
        return diverges(cells, text)
    if text in _FLAGS:
        known = floats(cells[text]) if text in cells else pd.Series(np.nan, index=cells.index)
        return Property(text, _FLAGS[text], known.where(status != "diverged", 0.0), 1.0)
    if text == "trained":
        judged = cells["regime"].astype(object)
        score = (~judged.isin(["untrained", "diverged"])).astype(float).where(judged.notna())
        return Property(text, "the loss falls below its share of the start", score, 1.0)
    if text == "lazy_rich":
        limit = check_thresholds(store.config.get("regime") or load_thresholds("default"))
        middle = float(np.sqrt(limit["lazy"] * limit["rich"]))
        meaning = f"the kernel or the features move by {middle:.3g} of their size"
        score = _of_trained(cells, movement_of(cells), grows=True)
        return Property(text, meaning, score, middle, smooth=True)
    if text in _OF_TRAINING:
        meaning, read, above = _OF_TRAINING[text]
        score = read(store, cells).mask(status == "diverged", np.inf).mask(status == "failed")
        # A relative rounding error is no rise.
        return Property(text, meaning, score, above * (1 + 1e-6), lasts=True)
    if text in REGIMES:
        regime = cells["regime"].astype(object)
        score = (regime == text).astype(float).where(regime.notna())
        return Property(text, f"the regime is {text}", score, 1.0)
    raise unknown("--of", text, [*NAMES, "METRIC=LEVEL"])


def diverges(cells: pd.DataFrame, name: str = "diverged") -> Property:
    """Return the property that training diverges; of a cell that failed it is not known."""
    status = cells["status"].astype(object)
    score = (status == "diverged").astype(float).where(status != "failed")
    return Property(name, "training diverges", score, 1.0, lasts=True)


def required_columns(text: str) -> tuple[str, ...]:
    """Return columns of which cells must have one, for a property to be known; none where all cells do.

    Raises:
        UserError: If there is no such property.
    """
    metric, equals, _ = text.partition("=")
    if equals and metric != MOVEMENT:
        return (metric,)
    if text in ("lazy", "crossover", "rich", "lazy_rich") or metric == MOVEMENT:
        return ("ntk_change", "feature_movement")
    if text not in NAMES:
        raise unknown("--of", text, [*NAMES, "METRIC=LEVEL"])
    needed = {
        "c_sharp": "sharpness",
        "c_barrier": "loss_barrier",
        "controlled_divergence": "feature_movement",
    }
    return (needed[text],) if text in needed else ()


def movement(frame: pd.DataFrame) -> pd.Series:
    """Return what the regime is judged by: the larger of ``ntk_change`` and ``feature_movement``.

    Raises:
        Unsupported: If one of them was not measured.
    """
    both = pd.concat([numbers(frame, "ntk_change"), numbers(frame, "feature_movement")], axis=1)
    return both.max(axis=1)


def movement_of(cells: pd.DataFrame) -> pd.Series:
    """Return the movement of each cell, NaN where neither part of it was measured."""
    there = [
        name for name in ("ntk_change", "feature_movement") if name in cells and cells[name].notna().any()
    ]
    if not there:
        raise UserError(
            "--of must be measured, got movement without ntk_change or feature_movement; "
            "sweep with measure=basic"
        )
    return movement(cells) if len(there) == 2 else floats(cells[there[0]])


def _of_metric(cells: pd.DataFrame, metric: str, level: str, text: str) -> Property:
    """Return the property that a metric is at least at a level."""
    try:
        at = float(level)
    except ValueError:
        raise UserError(f"--of must be METRIC=NUMBER, got {text}; for example --of ntk_change=0.3") from None
    score = _of_trained(cells, values_of(cells, metric), metric in _GROWING)
    return Property(text, f"{metric} is at least {at:g}", score, at, smooth=True)


def values_of(cells: pd.DataFrame, metric: str) -> pd.Series:
    """Return a metric of the cells, NaN where it was not measured.

    Args:
        cells: Rows of ``cells``.
        metric: A numeric column, or ``movement``: the larger of ``ntk_change`` and ``feature_movement``.

    Raises:
        UserError: If there is no such column, or no cell has it.
    """
    if metric == MOVEMENT:
        return movement_of(cells)
    if metric not in [str(name) for name in cells.select_dtypes("number")]:
        raise unknown("--of", metric, [*measured_columns(cells), MOVEMENT])
    value = floats(cells[metric])
    if value.isna().all():
        raise UserError(f"--of must be measured, got {metric}; `runner schema cells` says what it is")
    return value


def _of_trained(cells: pd.DataFrame, value: pd.Series, grows: bool) -> pd.Series:
    """Return the values of cells that trained; of the others they say nothing.

    Args:
        grows: Whether the value measures how far a cell is from init: one that diverged is beyond any level.
    """
    status = cells["status"].astype(object)
    known = value.where((status == "ok") & np.isfinite(value))
    return known.mask(status == "diverged", np.inf) if grows else known


def _peak_loss(store: Store, cells: pd.DataFrame) -> pd.Series:
    return floats(cells["peak_loss_ratio"])


def _peak_sharpness(store: Store, cells: pd.DataFrame) -> pd.Series:
    """Return the largest sharpness at a measured step after init over that at init."""
    rows = _measured(store.trace, "sharpness", "c_sharp", "measure=[basic,sharpness]")
    start = rows[rows["step"] == 0].set_index("cell_id")["value"]
    most = rows[rows["step"] > 0].groupby("cell_id", observed=True)["value"].max()
    return _by_cell(cells, most / start)


def _barrier(store: Store, cells: pd.DataFrame) -> pd.Series:
    """Return the largest loss on the line from init to the last measured step, over the loss at init."""
    rows = _measured(store.trace, "loss_barrier", "c_barrier", "measure=[basic,loss_barrier]")
    return _by_cell(cells, rows.groupby("cell_id", observed=True)["value"].last())


def _measured(trace: pd.DataFrame, column: str, asked: str, remedy: str) -> pd.DataFrame:
    """Return cell, step and value of a column of the trace, in the order of the steps."""
    if column not in trace or trace[column].isna().all():
        raise UserError(f"--of {asked} must have {column} measured, got none; sweep with {remedy}")
    value = floats(trace[column])
    rows = pd.DataFrame({"cell_id": trace["cell_id"].astype(str), "step": trace["step"], "value": value})
    return rows.dropna().sort_values(["cell_id", "step"], kind="stable")


def _by_cell(cells: pd.DataFrame, values: pd.Series) -> pd.Series:
    return cells["cell_id"].astype(str).map(values).astype(float)


_FLAGS = {
    "catapult": "the loss rises well above its start, then training succeeds",
    "controlled_divergence": "logits saturate on misclassified samples while features stay",
}
_OF_TRAINING: dict[str, tuple[str, Callable[[Store, pd.DataFrame], pd.Series], float]] = {
    "c_loss": ("the loss rises above its start", _peak_loss, 1.0),
    "c_sharp": ("the sharpness rises above its start", _peak_sharpness, 1.0),
    "c_barrier": ("the line from start to end passes a loss above the start's", _barrier, 1.0),
}
NAMES = ("diverged", *(name for name in REGIMES if name != "diverged"), "trained", "lazy_rich", *_FLAGS,
    *_OF_TRAINING, "c_max")  # fmt: skip
"""Every property that has a name."""
