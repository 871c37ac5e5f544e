"""Rows for stores in tests: every column of a table, with the values that matter overridden."""

from collections.abc import Mapping, Sequence
from typing import Any

from synthetic import frames

from runner.analysis.columns import plain
from runner.grid.cell import FIELDS
from runner.schema import TABLES
from runner.store import write_part
from runner.store.launches import new_launch

WRITTEN = tuple(table for table in TABLES if table != "outputs")
"""Tables that every sweep writes."""
_VALUES = {"string": "x", "int64": 1, "float64": 0.5, "bool": True}


def rows(table: str, cell_ids: Sequence[str], **columns: Any) -> dict[str, list[Any]]:
    """Columns of a table with one row per id; a scalar is repeated."""
    values: dict[str, Any] = {column.name: _VALUES[column.type] for column in TABLES[table]}
    extras = {"status": "ok", "error": None, "settings": "{}", "exponents": "{}", "sigma": None}
    values |= extras if table == "cells" else {}
    values |= {"cell_id": list(cell_ids), **columns}
    return {
        name: value if isinstance(value, list) else [value] * len(cell_ids) for name, value in values.items()
    }


def write_cells(store, cells, part="a", facet=("parameterization",), planned=None, tables=None, **config):
    """Write a launch that has finished these cells of those that it planned; its id.

    ``tables`` stands in for those that the cells would give by power laws.
    """
    planned = planned or cells
    rows = [cell.row() | {"cell_id": cell.cell_id, "pack": 0, "shard": 0} for cell in planned]
    config = {"name": store.name, "facet": list(facet)} | config
    launch = new_launch(store, config, {key: [row[key] for row in rows] for key in rows[0]})
    for name, table in zip(("cells", "trace", "layers"), tables or frames(cells, launch=launch), strict=True):
        write_part(store, name, {key: [plain(value) for value in table[key]] for key in table}, part)
    return launch


def write_outputs(store, cells, value, steps=(200,), split="probe", samples=2, part="a", **columns):
    """Write ``value(cell, sample)`` as the only output of these cells on each sample."""
    rows = [
        {"cell_id": cell.cell_id, "step": step, "split": split, "sample": sample, "output": 0}
        | {"value": float(value(cell, sample)), **columns}
        for cell in cells for step in steps for sample in range(samples)
    ]  # fmt: skip
    write_part(store, "outputs", {key: [row[key] for row in rows] for key in rows[0]}, part)


def plan(cell_ids: Sequence[str], packs: Sequence[int], shards: Sequence[int]) -> Mapping[str, list[Any]]:
    """Columns of a launch's plan."""
    cells = rows("cells", cell_ids)
    return {
        **{name: cells[name] for name in ("cell_id", *FIELDS)},
        "pack": list(packs),
        "shard": list(shards),
    }
