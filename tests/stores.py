"""Rows for stores in tests: every column of a table, with the values that matter overridden."""

from collections.abc import Mapping, Sequence
from typing import Any

from runner.cell import FIELDS
from runner.schema import TABLES

_VALUES = {"string": "x", "int64": 1, "float64": 0.5, "bool": True}


def rows(table: str, cell_ids: Sequence[str], **columns: Any) -> dict[str, list[Any]]:
    """Columns of a table with one row per id; a scalar is repeated."""
    values: dict[str, Any] = {column.name: _VALUES[column.type] for column in TABLES[table]}
    values |= {"status": "ok", "error": None} if table == "cells" else {}
    values |= {"cell_id": list(cell_ids), **columns}
    return {
        name: value if isinstance(value, list) else [value] * len(cell_ids) for name, value in values.items()
    }


def plan(cell_ids: Sequence[str], packs: Sequence[int], shards: Sequence[int]) -> Mapping[str, list[Any]]:
    """Columns of a launch's plan."""
    cells = rows("cells", cell_ids)
    return {
        **{name: cells[name] for name in ("cell_id", *FIELDS)},
        "pack": list(packs),
        "shard": list(shards),
    }
