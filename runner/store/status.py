"""How far a store is, told from its files alone and without pandas, which takes too long to import."""

import json
import socket
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from runner.errors import UserError
from runner.store.launches import failure_path, launch_ids, read_launch, read_plan
from runner.store.leases import is_present
from runner.store.parts import read_table, select
from runner.store.queue import queued_shards
from runner.store.shards import presence_path

ALIVE_SECONDS = 120.0
"""A shard without a heartbeat for longer is taken for stopped."""

ShardStanding = Literal["waiting", "queued", "running", "finished", "preempted", "stopped"]


@dataclass(frozen=True, slots=True)
class Counts:
    """Numbers of cells: those asked for, and how many of them have each status or no row yet."""

    planned: int
    ok: int
    diverged: int
    failed: int
    missing: int

    @property
    def done(self) -> int:
        """Cells with a result."""
        return self.ok + self.diverged


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed cell: its last error line and, if kept, the file of the whole traceback."""

    cell_id: str
    launch: str
    error: str
    traceback: Path | None


@dataclass(frozen=True, slots=True)
class ShardStatus:
    """A shard of a launch.

    Attributes:
        state: ``waiting`` until a job starts it, ``queued`` if a scheduler says so; ``preempted`` if the job
            was told to stop and saved a checkpoint; ``stopped`` if it died, failed, or was cancelled.
        cells: Cells to train, as planned.
        cells_done: Cells written by the newest job of the shard.
        packs: Packs that this job had to train.
        packs_done: Packs that it has written.
        host: Machine of this job; null while waiting.
        pid: Process of this job; null while waiting.
        updated: Unix time in seconds of its last heartbeat.
    """

    shard: int
    state: ShardStanding
    cells: int
    cells_done: int = 0
    packs: int = 0
    packs_done: int = 0
    host: str | None = None
    pid: int | None = None
    updated: float | None = None


@dataclass(frozen=True, slots=True)
class LaunchStatus:
    """A launch: its record, how far its cells are (whoever trained them) and its shards."""

    id: str
    started: str
    command: str
    counts: Counts
    shards: tuple[ShardStatus, ...]
    refine: dict[str, Any] | None = None
    """Of a round of a refining sweep: its ``round``, what it narrows, and how well that was ``known_to``."""


@dataclass(frozen=True, slots=True)
class StatusReport:
    """What ``runner status`` shows.

    Attributes:
        newest: Counts over the cells of the newest launch; over all cells in a store without launches.
        all: Counts over the cells of every launch.
        launches: All launches, oldest first.
    """

    path: Path
    newest: Counts
    all: Counts
    launches: tuple[LaunchStatus, ...]
    failures: tuple[Failure, ...]

    @property
    def running(self) -> int:
        """Number of shards that a job is running now."""
        return sum(shard.state == "running" for launch in self.launches for shard in launch.shards)


def status(store: Path) -> StatusReport:
    """Return how far a store is.

    Raises:
        UserError: There is no store, or it has a corrupt part or a newer schema.
    """
    ids = launch_ids(store)
    if not ids and not (store / "cells").is_dir():
        raise UserError(
            f"STORE must be a folder written by `runner sweep`, got {store}; run `runner sweep` first"
        )
    # Plans are read before cells: a cell that is written in between is then not counted as missing.
    plans = {launch: read_plan(store, launch, ["cell_id", "pack", "shard"]) for launch in ids}
    cells = read_table(store, "cells", ["cell_id", "status", "launch", "error"])
    standing = dict(zip(cells["cell_id"].to_pylist(), cells["status"].to_pylist(), strict=True))
    launches = tuple(_launch(store, launch, plan, standing) for launch, plan in plans.items())
    everything = set(standing).union(*(plan["cell_id"].to_pylist() for plan in plans.values()))
    total = _counts(everything, standing)
    return StatusReport(
        path=store,
        newest=launches[-1].counts if launches else total,
        all=total,
        launches=launches,
        failures=tuple(_failures(store, cells)),
    )


def _counts(cell_ids: Iterable[str], standing: Mapping[str, str]) -> Counts:
    tally = Counter(map(standing.get, cell_ids))
    return Counts(tally.total(), tally["ok"], tally["diverged"], tally["failed"], tally[None])


def _launch(store: Path, launch: str, plan: pa.Table, standing: Mapping[str, str]) -> LaunchStatus:
    record = read_launch(store, launch)
    cell_ids = plan["cell_id"].to_pylist()
    cells: dict[int, list[str]] = {}
    for shard, cell_id in zip(plan["shard"].to_pylist(), cell_ids, strict=True):
        if shard is not None and shard >= 0:
            cells.setdefault(shard, []).append(cell_id)
    counts = _counts(cell_ids, standing)
    queued = queued_shards(store / "launches" / launch) if counts.missing else None
    shards = (
        _shard(store, launch, shard, ids, all(i in standing for i in ids), queued)
        for shard, ids in sorted(cells.items())
    )
    return LaunchStatus(
        launch, record["started"], record["command"], counts, tuple(shards), record.get("refine")
    )


def _shard(
    store: Path, launch: str, shard: int, cells: list[str], complete: bool, queued: set[int] | None
) -> ShardStatus:
    """Return the state of a shard; ``queued`` are those that the scheduler has, None if it does not say."""
    try:
        path = store / "launches" / launch / f"shard-{shard}.json"
        beat: dict[str, Any] = json.loads(path.read_bytes())
        state: ShardStanding = beat["state"]
        done = {key: beat[key] for key in ("cells_done", "packs", "packs_done", "host", "pid", "updated")}
        gone = queued is not None and shard not in queued
        if state == "running" and (gone or not _alive(path, presence_path(store, launch, shard), beat)):
            state = "stopped"
    except (OSError, ValueError, TypeError, KeyError):  # no heartbeat yet, or a damaged one
        state, done = "waiting", {}
    if state not in {"running", "finished"}:
        if complete:  # another launch trained the cells, or the job wrote all of them before it failed
            state = "finished"
        elif queued is not None:
            state = "queued" if shard in queued else "preempted" if state == "preempted" else "stopped"
    return ShardStatus(shard, state, len(cells), **done)


def _alive(path: Path, presence: Path, beat: Mapping[str, Any]) -> bool:
    """Tell whether the job still runs: by its lock where that can be seen, else by its last heartbeat."""
    if beat["host"] == socket.gethostname() and (present := is_present(presence)) is not None:
        return present
    # The age counts in both directions, for the clock may have been set back since.
    return abs(time.time() - path.stat().st_mtime) < ALIVE_SECONDS


def _failures(store: Path, cells: pa.Table) -> Iterable[Failure]:
    # Not by pyarrow.compute: given a Python value to compare with, it imports pandas.
    failed = np.array([status == "failed" for status in cells["status"].to_pylist()], dtype=bool)
    for row in select(cells, failed).to_pylist():
        path = failure_path(store, row["launch"], row["cell_id"])
        yield Failure(row["cell_id"], row["launch"], row["error"] or "", path if path.is_file() else None)
