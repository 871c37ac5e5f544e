"""Exponents for the rules: of any number per cell, against width, refused where they have no support."""

from typing import Any

import numpy as np
import pandas as pd

from runner.analysis.columns import column
from runner.analysis.estimate import Estimate, Tables, Unsupported, numbers, require_seeds, trained
from runner.analysis.exponents import by_key
from runner.analysis.straight import LEAST_WIDTHS, loglog_slope


def part_of(tables: Tables, **where: Any) -> Tables:
    """Return the tables of the cells with these values.

    Args:
        **where: Column or group key (a dot written ``__``) -> value, or a tuple of values.
    """
    cells = tables.cells
    for key, value in where.items():
        values = value if isinstance(value, tuple) else (value,)
        if len(cells):
            cells = cells[column(cells, key.replace("__", "."), "claims").isin(values)]
    return tables.of(cells)


def widest(tables: Tables) -> Tables:
    """Return the tables of the cells of the largest width, per parameterization and depth."""
    cells = tables.cells
    if cells.empty:
        return tables
    top = cells.groupby(["parameterization", "depth"], observed=True)["width"].transform("max")
    return tables.of(cells[cells["width"] == top])


def require_widths(cells: pd.DataFrame) -> None:
    """Raise Unsupported if the cells have too few widths for an exponent."""
    widths = cells["width"].nunique()
    if widths < LEAST_WIDTHS:
        raise Unsupported(f"{widths} widths, fewer than {LEAST_WIDTHS}")


def by_cell(cells: pd.DataFrame, values: pd.Series) -> pd.Series:
    """Return values, one for each of the rows ``cells``, by ``cell_id``."""
    return pd.Series(values.to_numpy(), index=cells["cell_id"].astype(str))


def of_layer(tables: Tables, metric: str, role: str, step: int | None = None) -> pd.Series:
    """Return a measure of the last layer of a role, by cell_id, at a step or at each cell's last."""
    layers = tables.layers[tables.layers["role"].astype(object) == role]
    if step is not None:
        layers = layers[layers["step"] == step]
    if layers.empty:
        raise Unsupported(f"no {role} layer was measured" + (f" at step {step}" if step is not None else ""))
    last = layers.sort_values(["step", "layer_index"]).groupby("cell_id", observed=True).tail(1)
    return by_cell(last, numbers(last, metric))


def at_step(tables: Tables, metric: str, step: int) -> pd.Series:
    """Return a measure of the trace at a step, by cell_id."""
    rows = tables.trace[tables.trace["step"] == step]
    if rows.empty:
        raise Unsupported(f"step {step} was not measured")
    return by_cell(rows, numbers(rows, metric))


def slope(tables: Tables, metric: str | pd.Series, diverged: bool = False) -> Estimate:
    """Return the log-log slope of a number against width.

    Args:
        tables: Nothing may vary in them but width and seed.
        metric: A column of ``cells``, or numbers by ``cell_id``.
        diverged: Whether diverged cells count too, for what is measured at init.

    Raises:
        Unsupported: With fewer than three widths, one seed, no trained cell, or no such column.
    """
    cells = tables.cells if diverged else trained(tables.cells)
    return fitted_slope(cells, _values(cells, metric))


def fitted_slope(cells: pd.DataFrame, value: np.ndarray) -> Estimate:
    """Return the log-log slope of a number against width; rows hold ``width`` and ``seed``.

    Raises:
        Unsupported: With fewer than three widths, or one seed.
    """
    kept = np.isfinite(value) & (value > 0)
    if len(value) and (value[np.isfinite(value)] == 0).all():
        raise Unsupported("it is zero or null in every cell: no slope")
    samples = by_key(cells["width"].to_numpy(), value, kept)
    if len(samples) < LEAST_WIDTHS:
        raise Unsupported(f"{len(samples)} widths, a slope needs {LEAST_WIDTHS}")
    require_seeds(cells)
    line = loglog_slope(samples)
    if line.slope is None or line.low is None or line.high is None:
        raise Unsupported("one seed at a width: no interval")
    return Estimate(line.slope, line.low, line.high, int(kept.sum()))


def geometric_mean(tables: Tables, metric: str | pd.Series) -> Estimate:
    """Return the geometric mean of a number over cells, with a bootstrap interval.

    Raises:
        Unsupported: If fewer than two cells have it.
    """
    cells = trained(tables.cells)
    value = _values(cells, metric)
    value = value[np.isfinite(value) & (value > 0)]
    if len(value) < 2 or cells["seed"].nunique() < 2:
        raise Unsupported("one seed: no interval" if len(value) else "no cell has it")
    logs = np.log(value)
    means = logs[np.random.default_rng(0).integers(0, len(logs), (2000, len(logs)))].mean(axis=1)
    low, high = np.exp(np.percentile(means, [2.5, 97.5]))
    return Estimate(float(np.exp(logs.mean())), float(low), float(high), len(value))


def _values(cells: pd.DataFrame, metric: str | pd.Series) -> np.ndarray:
    """Return a column of the cells, or their values among numbers by ``cell_id``."""
    if isinstance(metric, str):
        return numbers(cells, metric).to_numpy()
    return cells["cell_id"].astype(str).map(metric).to_numpy(dtype=float)
