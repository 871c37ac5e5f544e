"""Columns by the name that a config gives them: schema columns and dotted group keys.

A column answers to the key that a user would sweep: ``width``, ``model.activation``,
``parameterization.a.hidden``.
"""

import difflib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from runner.errors import UserError, printable, unknown
from runner.grid.cell import FIELDS
from runner.store.keys import SOURCES, is_key


def is_exponent(key: str) -> bool:
    """Tell whether a key is an exponent of the parameterization, ``parameterization.a.output``."""
    return key.startswith("parameterization.")


def group_keys(cells: pd.DataFrame) -> pd.DataFrame:
    """Return the columns of dotted group keys that some cell has; None where a cell has no such key."""
    keys = [name for name in cells if is_key(str(name)) and cells[name].notna().any()]
    return cells[keys].astype(object).where(cells[keys].notna(), None)


def config_columns(cells: pd.DataFrame) -> pd.DataFrame:
    """Return every config key of the cells as a column of objects, the cell's own fields first."""
    own = [name for name in FIELDS if name in cells and name not in SOURCES]
    return pd.concat([cells[own].astype(object), group_keys(cells)], axis=1)


def column(cells: pd.DataFrame, key: str, asked_by: str) -> pd.Series:
    """Return a column of the ``cells`` table, or a dotted group key such as ``model.activation``.

    Raises:
        UserError: Naming the option ``asked_by`` if there is no such column; suggests the nearest one.
    """
    if key in cells and key not in SOURCES:
        return cells[key].astype(object) if cells[key].dtype.kind == "O" else cells[key]
    near = difflib.get_close_matches(key, cells.columns, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise UserError(
        f"{asked_by} must be a column or a group key of the cells, got {key!r}; "
        f"{hint}`runner schema cells` lists them"
    )


def numeric_column(cells: pd.DataFrame, key: str, asked_by: str) -> pd.Series:
    """Return the column that ``key`` names as floats, null as NaN.

    Raises:
        UserError: If there is no such column or it does not hold numbers.
    """
    values = column(cells, key, asked_by)
    try:
        return floats(values).rename(key)
    except (ValueError, TypeError):
        raise UserError(
            f"{asked_by} must name numbers, got {key} with {show_values(values)}; a name can be a --facet"
        ) from None


def floats(values: pd.Series) -> pd.Series:
    """Return a column as floats, null as NaN."""
    return pd.Series(pd.to_numeric(values).to_numpy(dtype=float, na_value=np.nan), index=values.index)


def distinct(values: Iterable[Any]) -> list[Any]:
    """Return the distinct values, sorted: numbers by size, then text, then null."""
    if isinstance(values, pd.Series):
        values = values.unique()  # in a long column far fewer are left to look at
    return sorted({plain(value) for value in values}, key=_rank)


def facet_groups(cells: pd.DataFrame, facets: Sequence[str]) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """Yield the values of the facets and the rows that have them, for each distinct combination."""
    for values, part in groups(cells, [column(cells, facet, "--facet") for facet in facets]):
        yield dict(zip(facets, values, strict=True)), part


def groups(frame: pd.DataFrame, keys: Sequence[pd.Series]) -> Iterator[tuple[tuple[Any, ...], pd.DataFrame]]:
    """Yield the rows of each distinct combination of the keys, sorted, null being a value like any other."""
    for values, places in group_places(keys, len(frame)):
        yield values, frame.iloc[places]


def group_places(keys: Sequence[pd.Series], rows: int) -> Iterator[tuple[tuple[Any, ...], list[int]]]:
    """Yield the positions of the rows of each distinct combination of the keys, sorted."""
    found: dict[tuple[Any, ...], list[int]] = {}
    columns = [[plain(value) for value in key] for key in keys]
    for place, values in enumerate(zip(*columns, strict=True) if keys else [()] * rows):
        found.setdefault(values, []).append(place)
    for values in sorted(found, key=lambda values: tuple(_rank(value) for value in values)):
        yield values, found[values]


def metric_tables(columns: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """Return the table of each metric, by its name (the first table that has it) and by ``table.name``."""
    found: dict[str, str] = {}
    for table, metrics in columns.items():
        for metric in metrics:
            found.setdefault(metric, table)
            found[f"{table}.{metric}"] = table
    return found


def locate(metrics: Sequence[str], known: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Return each metric as asked for, its table and its column there.

    Raises:
        UserError: If a metric is in none of the tables.
    """
    for metric in metrics:
        if metric not in known:
            raise unknown("--metric", metric, [name for name in known if "." not in name])
    return [(metric, known[metric], metric.partition(".")[2] or metric) for metric in metrics]


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows as dicts."""
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


def plain(value: Any) -> Any:
    """Return a hashable Python value: numpy scalars unwrapped, NaN and NA as None."""
    if value is None or value is pd.NA:
        return None
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and math.isnan(value) else value


def show(value: Any) -> str:
    """Return a value as a user would type it."""
    value = plain(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else printable(str(value))


def show_values(values: Iterable[Any], most: int = 12) -> str:
    """Return the distinct values as a comma-separated list, cut after ``most``."""
    found = [show(value) for value in distinct(values)]
    return ", ".join(found if len(found) <= most else [*found[: most - 1], "...", found[-1]])


def _rank(value: Any) -> tuple[int, float, str]:
    """Return a sort key that orders values of any types."""
    if value is None:
        return (2, 0.0, "")
    if isinstance(value, (bool, int, float)):
        return (0, float(value), "")
    return (1, 0.0, str(value))
