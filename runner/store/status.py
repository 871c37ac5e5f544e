"""How far a store is: told from its files alone, without pandas, so that it answers in a blink."""

from __future__ import annotations

import json
import socket
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from runner.errors import UserError
from runner.store.launches import failure_path, launch_ids, read_launch, read_plan
from runner.store.leases import is_present
from runner.store.parts import read_table, select
from runner.store.queue import queued_shards
from runner.store.shards import presence_path

if TYPE_CHECKING:
    import pyarrow as pa

ALIVE_SECONDS = 120.0
"""A shard that gave no sign of life for longer is taken for stopped."""

ShardStanding = Literal["waiting", "queued", "running", "finished", "preempted", "stopped"]


@dataclass(frozen=True, slots=True)
class Counts:
    """Cells by what became of them.

    Attributes:
        planned: Cells asked for.
        ok: Trained.
        diverged: Trained until their loss blew up; a result, too.
        failed: Ended by an exception.
        missing: Asked for and not there yet.
    """

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
        shard: Its number.
        state: ``waiting`` until a job takes it up, ``queued`` if a scheduler says so; ``preempted`` when the
            job was told to stop and saved what it was at; ``stopped`` when it died, said that it failed, or
            was taken out of the queue.
        cells: To train, as planned.
        cells_done: Written by the newest job of the shard.
        packs: That this job had to train.
        packs_done: Of these.
        host: Of that job; None while waiting.
        pid: Likewise.
        updated: Unix time in seconds of its last sign of life.
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


@dataclass(frozen=True, slots=True)
class StatusReport:
    """What ``runner status`` shows.

    Attributes:
        path: Folder of the store.
        newest: Counts over the cells of the newest launch; over all cells in a store without launches.
        all: Counts over the cells of every launch.
        launches: Oldest first.
        failures: Failed cells.
    """

    path: Path
    newest: Counts
    all: Counts
    launches: tuple[LaunchStatus, ...]
    failures: tuple[Failure, ...]

    @property
    def running(self) -> int:
        """Shards at work now."""
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
    # The plans before the cells: a cell that finishes in between is then seen, not called missing.
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
    owners = zip(plan["shard"].to_pylist(), plan["cell_id"].to_pylist(), strict=True)
    cells: dict[int, list[str]] = {}
    for shard, cell_id in owners:
        if shard is not None and shard >= 0:
            cells.setdefault(shard, []).append(cell_id)
    counts = _counts(plan["cell_id"].to_pylist(), standing)
    queued = queued_shards(store / "launches" / launch) if counts.missing else None
    shards = (
        _shard(store, launch, shard, ids, all(i in standing for i in ids), queued)
        for shard, ids in sorted(cells.items())
    )
    return LaunchStatus(
        id=launch,
        started=record["started"],
        command=record["command"],
        counts=counts,
        shards=tuple(shards),
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
    except (OSError, ValueError, TypeError, KeyError):  # none yet, or not what was written
        state, done = "waiting", {}
    if state not in {"running", "finished"}:
        if complete:  # by another launch, or by the job before it ended badly
            state = "finished"
        elif queued is not None:
            state = "queued" if shard in queued else "preempted" if state == "preempted" else "stopped"
    return ShardStatus(shard, state, len(cells), **done)


def _alive(path: Path, presence: Path, beat: Mapping[str, Any]) -> bool:
    """Whether the job is still there: by its lock where that can be seen, else by its last sign of life."""
    if beat["host"] == socket.gethostname() and (present := is_present(presence)) is not None:
        return present
    # Both times are the file server's where there is one; a clock that has jumped back makes no job old.
    return abs(time.time() - path.stat().st_mtime) < ALIVE_SECONDS


def _failures(store: Path, cells: pa.Table) -> Iterable[Failure]:
    import numpy as np

    failed = select(
        cells, np.array([status == "failed" for status in cells["status"].to_pylist()], dtype=bool)
    )
    for row in failed.to_pylist():
        path = failure_path(store, row["launch"], row["cell_id"])
        yield Failure(row["cell_id"], row["launch"], row["error"] or "", path if path.is_file() else None)
