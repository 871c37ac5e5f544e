"""How far a store is: told from its files alone, without pandas, so that it answers in a blink."""

from __future__ import annotations

import json
import os
import socket
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from runner.errors import UserError
from runner.store.launches import failure_path, launch_ids, read_launch, read_plan
from runner.store.parts import read_table, select

if TYPE_CHECKING:
    import pyarrow as pa

ALIVE_SECONDS = 120.0
"""A shard that gave no sign of life for longer is taken for stopped."""

ShardStanding = Literal["waiting", "running", "finished", "stopped"]


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
        state: ``waiting`` until a job takes it up; ``stopped`` when the job died or said that it failed.
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
        failures=tuple(_failures(store, cells, plans)),
    )


def _counts(cell_ids: Iterable[str], standing: Mapping[str, str]) -> Counts:
    tally = Counter(map(standing.get, cell_ids))
    return Counts(tally.total(), tally["ok"], tally["diverged"], tally["failed"], tally[None])


def _launch(store: Path, launch: str, plan: pa.Table, standing: Mapping[str, str]) -> LaunchStatus:
    record = read_launch(store, launch)
    sizes = Counter(shard for shard in plan["shard"].to_pylist() if shard is not None and shard >= 0)
    return LaunchStatus(
        id=launch,
        started=record["started"],
        command=record["command"],
        counts=_counts(plan["cell_id"].to_pylist(), standing),
        shards=tuple(_shard(store / "launches" / launch, shard, sizes[shard]) for shard in sorted(sizes)),
    )


def _shard(folder: Path, shard: int, cells: int) -> ShardStatus:
    try:
        beat: dict[str, Any] = json.loads((folder / f"shard-{shard}.json").read_bytes())
    except FileNotFoundError:
        return ShardStatus(shard, "waiting", cells)
    state: ShardStanding = beat["state"]
    if state == "running" and not _alive(beat):
        state = "stopped"
    done = {key: beat[key] for key in ("cells_done", "packs", "packs_done", "host", "pid", "updated")}
    return ShardStatus(shard, state, cells, **done)


def _alive(beat: Mapping[str, Any]) -> bool:
    """Whether the job gave a recent sign of life and, where that can be seen, its process still exists."""
    if time.time() - beat["updated"] > ALIVE_SECONDS:
        return False
    if beat["host"] == socket.gethostname():
        with suppress(PermissionError):  # exists, and is another user's
            try:
                os.kill(beat["pid"], 0)
            except ProcessLookupError:
                return False
    return True


def _failures(store: Path, cells: pa.Table, plans: Mapping[str, pa.Table]) -> Iterable[Failure]:
    import numpy as np

    failed = select(
        cells, np.array([status == "failed" for status in cells["status"].to_pylist()], dtype=bool)
    )
    packs: dict[str, dict[str, int | None]] = {}
    for row in failed.to_pylist():
        cell_id, launch = row["cell_id"], row["launch"]
        if launch in plans and launch not in packs:
            plan = plans[launch]
            packs[launch] = dict(zip(plan["cell_id"].to_pylist(), plan["pack"].to_pylist(), strict=True))
        pack = packs.get(launch, {}).get(cell_id)
        path = None if pack is None else failure_path(store, launch, pack)
        yield Failure(cell_id, launch, row["error"] or "", path if path and path.is_file() else None)
