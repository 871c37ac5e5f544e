"""The axes on which a store is best looked at, when nobody says which."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from runner.analysis.columns import config_columns, distinct, groups, plain, show
from runner.analysis.phase import Axes
from runner.analysis.selection import VaryingError, require_no_other_varying
from runner.schema import CELLS
from runner.store.keys import is_key

_NOT_AXES = ("seed", "exponents", "settings", "parameterization.")


def natural_axes(cells: pd.DataFrame, facets: Sequence[str]) -> Axes:
    """Return axes under which every cell has its place: width and lr where they vary, all else in facets."""
    config = config_columns(cells)
    values = {str(key): distinct(config[key]) for key in config if not str(key).startswith(_NOT_AXES)}
    numeric = [
        key
        for key, found in values.items()
        if len(found) > 1
        and all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in found)
    ]
    free = [key for key in numeric if key not in facets and key not in ("width", "lr")]
    x = "width" if "width" in numeric or not free else free.pop(0)
    y = "lr" if "lr" in numeric or not free else free.pop(0)
    return Axes(x, y, enough_facets(cells, (x, y), [facet for facet in facets if facet in config]))


def enough_facets(cells: pd.DataFrame, axes: Sequence[str], facets: Sequence[str]) -> tuple[str, ...]:
    """Return the facets that are no axes, and those without which another key would be averaged over."""
    found = tuple(facet for facet in facets if facet not in axes)
    for _ in range(cells.shape[1]):
        try:
            require_no_other_varying(cells, axes, found)
        except VaryingError as error:
            found = (*found, error.keys[0])
        else:
            break
    return found


def measured_columns(cells: pd.DataFrame, least: int = 2) -> list[str]:
    """Return the numeric results of which cells have at least so many values, in the schema's order."""
    keys = {column.name for column in CELLS if not column.nullable or column.unit == "rows"}
    keys |= {"batch_size", "parameters"}
    numbers = cells.select_dtypes("number").columns
    return [
        str(name) for name in numbers if not (name in keys or is_key(name)) and cells[name].nunique() >= least
    ]


def calmest(cells: pd.DataFrame, key: str) -> Any:
    """Return the largest value of a key at which the fewest cells were lost."""
    lost = (cells["status"].astype(object) != "ok").groupby(cells[key]).mean()
    return plain(lost[lost == lost.min()].index.max())


def calm_conditions(cells: pd.DataFrame, axes: Axes, key: str = "width") -> list[str]:
    """Return conditions that fix all axes but a key, where the fewest cells were lost."""
    with_key = {key}.union(*(keys for keys in cells.attrs.get("tied", ()) if key in keys))
    return [
        f"{axis}={show(calmest(cells, axis))}"
        for axis in (axes.x, axes.y)
        if axis not in with_key and axis in cells and len(distinct(cells[axis])) > 1
    ]


def largest_facets(cells: pd.DataFrame, keys: Sequence[pd.Series], most: int) -> tuple[pd.DataFrame, int]:
    """Return the cells of at most so many facets, those with the most cells, and how many are left out."""
    parts = [part for _, part in groups(cells, keys)]
    if len(parts) <= most:
        return cells, 0
    kept = sorted(parts, key=len, reverse=True)[:most]
    return cells[cells.index.isin(pd.concat(kept).index)], len(parts) - most
