"""The tables of a store: compaction, and loading as DataFrames."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from runner.errors import UserError
from runner.schema import TABLES
from runner.store.files import atomic, disk_errors, locked, try_lock
from runner.store.keys import SOURCES
from runner.store.launches import launch_ids, read_config, read_plan
from runner.store.parts import (
    COMPACTED,
    Part,
    file_of,
    merged_schema,
    newest_rows,
    read_table,
    readable,
    rows_under,
    scan,
    select,
    write_rows,
)

if TYPE_CHECKING:
    import pandas as pd

BATCH_ROWS = 1 << 16
"""Rows that a compaction reads at a time."""
ROW_GROUP_ROWS = 1 << 17
"""Rows that a compaction writes at a time, or more."""
_STALE_SECONDS = 24 * 3600.0


def check_writable(store: Path) -> None:
    """Find out whether results can be written to a folder that need not exist, leaving nothing behind.

    Raises:
        UserError: It cannot be made or written.
    """
    folders = [store, *(store / table for table in TABLES), store / "launches"]
    existing = [folder for folder in folders if folder.exists()]
    # What does not exist yet will be made in the nearest folder that does.
    for folder in existing or [next(parent for parent in store.absolute().parents if parent.exists())]:
        probe = folder / f".probe.{os.getpid()}.{uuid.uuid4().hex}.tmp"
        with disk_errors(store):
            probe.mkdir()
            probe.rmdir()


def default_store(root: str | Path = "outputs") -> Path:
    """Return the store under ``root`` that was launched last.

    Raises:
        UserError: There is none.
    """
    records = list(Path(root).glob("*/sweep.yaml"))
    if not records:
        raise UserError(f"STORE must be given when {root}/ holds none; run `runner sweep` or name the folder")
    return max(records, key=lambda record: record.stat().st_mtime_ns).parent


def compact(store: Path, without: Collection[str] = frozenset()) -> None:
    """Merge the parts of each table into one, every cell once.

    Safe at any time, beside writers and readers. One process compacts at a time, and none where the file
    system knows no locks. The merged part appears whole before its sources go, and names them: if compaction
    is interrupted in between, readers skip the sources and the next compaction removes them. A part that
    appears meanwhile is left for the next one. Memory is bounded by the keys of the table and one row group.

    Args:
        without: Ids of cells to drop from ``cells``, so that they are trained again.

    Raises:
        UserError: A part is corrupt or from a newer schema, the disk is full or cannot be written.
    """
    with locked(store) as alone:
        if not alone:
            return
        name = f"{COMPACTED}{time.time_ns()}-{uuid.uuid4().hex[:8]}.parquet"
        for table in TABLES:
            with suppress(FileNotFoundError):  # replaced while read: left for the next compaction
                _compact_table(store, table, name, without if table == "cells" else ())
            _remove_stale(store / table)


def _compact_table(store: Path, table: str, name: str, without: Collection[str]) -> None:
    parts, retired = scan(store, table, ["cell_id", "status", *SOURCES])
    if len(parts) > 1 or (parts and without):
        identity = {
            "part": uuid.uuid4().hex,
            "written": max(part.written for part in parts),
            "supersedes": sorted(part.id for part in [*parts, *retired]),
        }
        schema = merged_schema(table, parts, identity)
        with atomic(store / table / name) as file:
            write_rows(_merge(parts, _masks(parts, without), schema), schema, file)
        retired = [*parts, *retired]
    for part in retired:
        with disk_errors(part.path.parent), suppress(FileNotFoundError):
            # A requeued job may have put a newer part under this name: it is not in the merged one.
            if file_of(part.path) == part.file:
                part.path.unlink()


def _masks(parts: Sequence[Part], without: Collection[str]) -> list[np.ndarray]:
    """Return for each part a boolean mask of the rows that stay."""
    masks = newest_rows(parts)
    if not without:
        return masks
    kept = ([cell_id not in without for cell_id in part.rows["cell_id"].to_pylist()] for part in parts)
    return [mask & np.array(keep, dtype=bool) for mask, keep in zip(masks, kept, strict=True)]


def _merge(parts: Sequence[Part], masks: Sequence[np.ndarray], schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield the rows that count, a row group at a time."""
    waiting: list[pa.Table] = []
    for part, mask in zip(parts, masks, strict=True):
        for batch in _batches(part, mask):
            waiting.append(rows_under(schema, part.path, batch))
            if sum(rows.num_rows for rows in waiting) >= ROW_GROUP_ROWS:
                yield pa.concat_tables(waiting)
                waiting.clear()
    if waiting:
        yield pa.concat_tables(waiting)


def _batches(part: Part, mask: np.ndarray) -> Iterator[pa.Table]:
    start = 0
    with readable(part.path), pq.ParquetFile(part.path, page_checksum_verification=True) as source:
        if file_of(part.path) != part.file:
            raise FileNotFoundError(part.path)
        for batch in source.iter_batches(BATCH_ROWS):
            rows = pa.Table.from_batches([batch]).rename_columns(part.names)
            yield select(rows, mask[start : start + batch.num_rows])
            start += batch.num_rows


def _remove_stale(folder: Path) -> None:
    """Remove files that killed writers left: old, and not locked, for a clock may have jumped."""
    for leftover in folder.glob(".part-*.tmp"):
        with suppress(OSError), leftover.open("rb") as file:
            if time.time() - leftover.stat().st_mtime > _STALE_SECONDS and try_lock(file):
                leftover.unlink()


@dataclass(frozen=True)
class Store:
    """Finished cells as tables; what :func:`load` returns.

    The DataFrames are read when first used and kept; load again to see newer cells. Nullable integers and
    booleans have pandas' ``Int64`` and ``boolean`` dtypes. pandas shows null and NaN floats alike as NaN:
    tell them apart by ``status``, or with :meth:`table`.
    """

    path: Path

    @cached_property
    def cells(self) -> pd.DataFrame:
        """One row per cell: config columns, status, regime, final and best measures."""
        return self._frame("cells")

    @cached_property
    def trace(self) -> pd.DataFrame:
        """One row per cell and measured step."""
        return self._frame("trace")

    @cached_property
    def layers(self) -> pd.DataFrame:
        """One row per cell, measured step and layer."""
        return self._frame("layers")

    @cached_property
    def outputs(self) -> pd.DataFrame:
        """One row per cell, measured step, sample and output, if the measure ``predictions`` kept them."""
        return self._frame("outputs")

    def table(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Return a table as Arrow: null and NaN apart, units in the metadata."""
        return read_table(self.path, name, columns)

    @property
    def launches(self) -> list[str]:
        """Ids of the launches, oldest first."""
        return launch_ids(self.path)

    def launch_cells(self, launch_id: str | None = None) -> list[str]:
        """Return the ids of the cells that a launch, by default the newest, asked for, finished or not.

        In a store without launches these are all its cells.
        """
        launch = self._launch(launch_id)
        columns = ["cell_id"]
        rows = self.table("cells", columns) if launch is None else read_plan(self.path, launch, columns)
        return list(rows["cell_id"].to_pylist())

    @cached_property
    def config(self) -> dict[str, Any]:
        """Resolved config of the newest launch; empty without one."""
        launch = self._launch(None)
        return {} if launch is None else read_config(self.path, launch)

    def _launch(self, launch_id: str | None) -> str | None:
        return launch_id or next(reversed(self.launches), None)

    def _frame(self, name: str) -> pd.DataFrame:
        frame: pd.DataFrame = self.table(name).to_pandas()
        return frame

    def __repr__(self) -> str:
        return f"Store({str(self.path)!r}: {len(self.cells)} cells, {len(self.launches)} launches)"


def load(path: str | Path) -> Store:
    """Open the store in a folder.

    Raises:
        UserError: There is no store, or it has a corrupt part or a newer schema.
    """
    store = Path(path)
    if not any((store / name).exists() for name in ("sweep.yaml", "cells", "launches")):
        raise UserError(
            f"STORE must be a folder written by `runner sweep`, got {path}; {_known(store.parent)}"
        )
    launch_ids(store)
    scan(store, "cells", [])
    return Store(store)


def _known(root: Path) -> str:
    names = sorted(str(record.parent) for record in root.glob("*/sweep.yaml"))
    return f"there are {', '.join(names)}" if names else "run `runner sweep` first"
