"""Mean and spread of groups of rows, for bootstraps: pandas takes milliseconds however few the rows are."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd


class Groups(NamedTuple):
    """Groups of rows, sorted by their keys.

    Attributes:
        keys: A row of values for each key, a column for each group.
        size: How many values each group has.
        mean: Their mean.
        spread: Their standard deviation, ``sqrt(sum (x - mean)^2 / (size - 1))``; NaN of one value.
    """

    keys: list[np.ndarray]
    size: np.ndarray
    mean: np.ndarray
    spread: np.ndarray


def grouped(cells: pd.DataFrame, name: str, keys: Sequence[str]) -> Groups:
    """Return the groups of a column by one or more keys; rows without a number are of no group."""
    values = cells[name].to_numpy(float)
    there = ~np.isnan(values)
    values = values[there]
    columns = [cells[key].to_numpy()[there] for key in keys]
    place = places(columns)
    _, first, count = np.unique(place, return_index=True, return_counts=True)
    mean = np.bincount(place, values) / count
    square = np.bincount(place, (values - mean[place]) ** 2)
    spread = np.full(len(count), np.nan)
    np.sqrt(square / np.maximum(count - 1, 1), out=spread, where=count > 1)
    return Groups([column[first] for column in columns], count, mean, spread)


def places(columns: Sequence[np.ndarray]) -> np.ndarray:
    """Return for each row which combination of values it has, counted from 0 in the order of the values."""
    place = np.zeros(len(columns[0]), int)
    for column in columns:
        values, inside = np.unique(column, return_inverse=True)
        place = place * len(values) + inside
    return np.unique(place, return_inverse=True)[1]
