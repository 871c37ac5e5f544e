"""Training finished cells again, to see whether the store says what the code does: to the last bit."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from runner import store as tables
from runner.errors import UserError
from runner.grid.cell import Cell
from runner.grid.cells import Cells
from runner.grid.instantiate import see_working_directory
from runner.launching.sources import targets_of
from runner.launching.workers import cores, set_up_torch
from runner.numerics import compiled
from runner.schema import KEYS
from runner.store import launches
from runner.store.provenance import versions
from runner.store.verify import Problem

if TYPE_CHECKING:
    import torch

    from runner.training.record import PackTables

_OWN = {"train_seconds", "device"}
"""What two trainings of a cell need not share."""


def rerun(store: Path, count: int, trust: bool = False) -> tuple[int, list[Problem]]:
    """Train random finished cells again and compare every number.

    Those of one pack are trained together. Where that rounds otherwise than the whole pack did, as it may in
    the last bit, the whole pack is trained again and compared.

    Args:
        count: Cells to draw.
        trust: Whether to call what the store names with ``_target_`` though it is not of this package.

    Returns:
        How many cells were compared, and what differs.

    Raises:
        UserError: The store names code that is not of this package, or lacks the plan of a cell.
    """
    from runner.training import preflight, train

    compared, problems = 0, []
    if trust:
        see_working_directory()
    for launch, drawn, pack, threads in _packs(store, count):
        _check_targets(drawn, trust)
        device = preflight.resolve_device(launches.read_config(store, launch)["device"])
        set_up_torch(threads)
        for cells in (drawn, pack):
            found = list(_differences(store, launch, cells, train.train_pack(cells, device), device))
            if not found:
                break
        compared += len(cells)
        problems += found
    return compared, problems


def _packs(store: Path, count: int) -> Iterator[tuple[str, list[Cell], list[Cell], int]]:
    """Yield launch, the random cells, all cells and the threads of the packs that these were trained in."""
    rows = tables.read_table(store, "cells", ["cell_id", "launch", "status"]).to_pylist()
    launch_of = {row["cell_id"]: row["launch"] for row in rows if row["status"] != "failed"}
    drawn: dict[str, set[str]] = {}
    for cell_id in random.sample(sorted(launch_of), min(count, len(launch_of))):
        drawn.setdefault(launch_of[cell_id], set()).add(cell_id)
    for launch, ids in drawn.items():
        plan, record = launches.read_plan(store, launch), launches.read_launch(store, launch)
        packs = plan["pack"].filter(pc.is_in(plan["cell_id"], pa.array(sorted(ids))))
        for pack in sorted(packs.unique().drop_null().to_pylist()):
            rows = plan.filter(pc.equal(plan["pack"], pack)).to_pylist()
            together = [row for row in rows if launch_of.get(row["cell_id"]) == launch]
            threads = min(record["machine"]["threads"], cores()) if pack in record.get("threaded", ()) else 1
            cells = [Cell.from_row(row) for row in together]
            yield launch, [cell for cell in cells if cell.cell_id in ids], cells, threads


def _check_targets(cells: Sequence[Cell], trust: bool) -> None:
    for target in targets_of(Cells.of(cells)):
        if not trust and not target.startswith("runner."):
            raise UserError(
                f"--rerun must only call code of runner, got {target!r} in the store; "
                "add --trust if the store is yours"
            )


def _differences(
    store: Path, launch: str, cells: Sequence[Cell], result: PackTables, device: torch.device
) -> Iterator[Problem]:
    ids = {cell.cell_id for cell in cells}
    rows = [{"cell_id": cell.cell_id} | row for cell, row in zip(cells, result.cells, strict=True)]
    names = dict.fromkeys(name for row in rows for name in row)
    found = {
        "cells": {name: [row.get(name) for row in rows] for name in names if name not in _OWN},
        "trace": result.trace,
        "layers": result.layers,
        "outputs": result.outputs,
    }
    for table, columns in found.items():
        stored = tables.read_table(store, table, list(columns)).to_pylist() if columns else []
        stored = [row for row in stored if row["cell_id"] in ids]
        again = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        for name in columns:
            if not _same(_by_key(stored, name), _by_key(again, name)):
                yield Problem(
                    f"{table}.{name} of {len(cells)} cells of launch {launch} is not what training gives"
                    f"{_why(store, launch, device)}",
                    "the numbers are of other code, another machine or not of a training at all",
                )


_ROW_KEYS = tuple(dict.fromkeys(key for keys in KEYS.values() for key in keys))


def _by_key(rows: Sequence[Mapping[str, Any]], name: str) -> dict[tuple[Any, ...], Any]:
    return {tuple(row.get(key) for key in _ROW_KEYS): row[name] for row in rows}


def _same(left: Mapping[Any, Any], right: Mapping[Any, Any]) -> bool:
    return left.keys() == right.keys() and all(_equal(value, right[key]) for key, value in left.items())


def _equal(left: Any, right: Any) -> bool:
    both_nan = isinstance(left, float) and isinstance(right, float) and math.isnan(left) and math.isnan(right)
    return both_nan or left == right


def _why(store: Path, launch: str, device: torch.device) -> str:
    """Return what is different here, for the message."""
    record = launches.read_launch(store, launch)
    then, now = dict(record.get("versions") or {}), versions()
    changed = [
        f"{name} {then[name]} then, {now[name]} now" for name in now if then.get(name, now[name]) != now[name]
    ]
    if record.get("device") not in {None, str(device)}:
        changed.append(f"device {record['device']} then, {device} now")
    if record.get("products") not in {None, compiled.who()}:
        changed.append(f"small products by {record['products']} then, by {compiled.who()} now")
    return f" ({'; '.join(changed)})" if changed else ""
