"""A number with its interval and the cells behind it, and the reasons why there may be none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from runner.analysis.columns import floats

RESAMPLES = 1000
LEAST_SEEDS = 2


class Unsupported(Exception):
    """The data carry no such number; the message says why."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A measured number, its 95 % interval, and how many cells are behind it."""

    value: float
    low: float
    high: float
    cells: int


@dataclass(frozen=True, slots=True)
class Tables:
    """The tables of one experiment, its own cells only."""

    cells: pd.DataFrame
    trace: pd.DataFrame
    layers: pd.DataFrame

    def of(self, cells: pd.DataFrame) -> Tables:
        """Return the tables of some of the cells."""
        rows = (frame[frame["cell_id"].isin(cells["cell_id"])] for frame in (self.trace, self.layers))
        return Tables(cells, *rows)


def numbers(frame: pd.DataFrame, name: str) -> pd.Series:
    """Return a column as floats, null as NaN.

    Raises:
        Unsupported: If it is missing, or null in every row.
    """
    if name not in frame:
        raise Unsupported(f"there is no column {name}")
    values = floats(frame[name])
    if values.isna().all():
        raise Unsupported(f"{name} was not measured" if len(values) else "no cells")
    return values


def trained(cells: pd.DataFrame, what: str = "cells") -> pd.DataFrame:
    """Return the cells that ended neither diverged nor failed.

    Raises:
        Unsupported: If there are none.
    """
    if cells.empty:
        raise Unsupported(f"no {what}")
    kept = cells[cells["status"].astype(object) == "ok"]
    if kept.empty:
        raise Unsupported(f"all {len(cells)} {what} diverged or failed")
    return kept


def require_seeds(cells: pd.DataFrame) -> list[int]:
    """Return the seeds of the cells, sorted.

    Raises:
        Unsupported: If there is only one: its spread is unknown.
    """
    seeds = sorted({int(seed) for seed in cells["seed"]})
    if len(seeds) < LEAST_SEEDS:
        raise Unsupported("one seed: no interval")
    return seeds


def over_seeds(
    cells: pd.DataFrame, statistic: Callable[[pd.DataFrame], float], resamples: int = RESAMPLES
) -> Estimate:
    """Return a statistic of the cells with a percentile bootstrap that resamples whole seeds.

    Args:
        cells: Rows with a column ``seed``.
        statistic: From such rows to a number; NaN where a resample does not determine it.
        resamples: How often the bootstrap draws.

    Raises:
        Unsupported: If there is one seed, or the statistic is not a number.
    """
    seeds = require_seeds(cells)
    value = statistic(cells)
    if not np.isfinite(value):
        raise Unsupported("the cells do not determine it")
    places = {seed: np.flatnonzero(cells["seed"].to_numpy() == seed) for seed in seeds}
    rng = np.random.default_rng(0)  # a fixed stream: the same table gives the same interval
    draws = np.sort(rng.choice(seeds, (resamples, len(seeds))), axis=1)
    # Few draws are distinct where seeds are few: each is computed once.
    distinct, place = np.unique(draws, axis=0, return_inverse=True)
    found = [statistic(cells.iloc[np.concatenate([places[seed] for seed in draw])]) for draw in distinct]
    low, high = np.nanpercentile(np.array(found)[place.ravel()], [2.5, 97.5])
    return Estimate(value, float(low), float(high), len(cells))


def share(hits: pd.Series) -> Estimate:
    """Return the share of cells that meet a condition, with Wilson's 95 % interval.

    References:
        Wilson, J. Am. Stat. Assoc. 22 (1927) 209.
    """
    count = len(hits)
    if not count:
        raise Unsupported("no cells")
    z2 = 1.96**2
    value = float(hits.mean())
    center = (value + z2 / (2 * count)) / (1 + z2 / count)
    half = 1.96 * np.sqrt(value * (1 - value) / count + z2 / (4 * count**2)) / (1 + z2 / count)
    # Rounding must not put the ends inside what was measured.
    return Estimate(value, float(min(center - half, value)), float(max(center + half, value)), count)
