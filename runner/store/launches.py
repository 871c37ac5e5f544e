"""Launches: what each call of ``runner sweep`` asked for, how far its shards are, what went wrong.

::

    launches/<id>/
      config.yaml           resolved config, a snapshot: later edits do not leak into queued jobs
      plan.parquet          every cell asked for, with its pack and shard (-1 if finished before)
      launch.json           time, command, versions, git commit, host, device; written last
      shard-<k>.json        heartbeat of the job that runs shard k
      errors/pack-<n>.txt   traceback of a failed pack

Files only: no process needs to be reachable for ``runner status`` to tell the truth.
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from runner.cell import FIELDS
from runner.errors import UserError, unknown
from runner.schema import CELLS, SCHEMA_VERSION, Column
from runner.store.arrow import WRITE_OPTIONS, to_arrow
from runner.store.files import atomic, disk_errors, locked
from runner.store.parts import check_version, readable
from runner.store.provenance import git_state, versions

if TYPE_CHECKING:
    import pyarrow as pa

PLAN = (
    *(column for column in CELLS if column.name in {"cell_id", *FIELDS}),
    Column("pack", "int64", "", "Pack of the cell"),
    Column("shard", "int64", "", "Shard that trains the cell; -1 if it was finished before"),
)
BEAT_SECONDS = 2.0
_HEADER = """\
# What `runner sweep` ran in this folder: the config of the newest launch, what it ran with, and all launches.
# Rewritten by every launch; a record, never read back as input.
"""

ShardPhase = Literal["running", "finished", "stopped"]


def new_launch(
    store: Path,
    config: Mapping[str, Any],
    rows: Mapping[str, Sequence[Any]],
    provenance: Mapping[str, Any] | None = None,
) -> str:
    """Record a launch before any of its cells is trained.

    Args:
        store: Folder of the store; made if need be.
        config: Resolved config, plain values only.
        rows: Columns of the plan: every field of a cell, ``cell_id``, ``pack`` and ``shard``.
        provenance: What only the caller knows, such as ``device``; overrides what is found out here.

    Returns:
        The launch's id: sorts by time, unique even for launches within one microsecond.

    Raises:
        UserError: The store cannot be written or is from a newer schema.
    """
    import pyarrow.parquet as pq

    launch_ids(store)
    plan = to_arrow(rows, PLAN)
    text = _yaml(dict(config))
    launch, folder = _new_folder(store)
    shards = [shard for shard in plan["shard"].to_pylist() if shard is not None and shard >= 0]
    record = {
        "id": launch,
        "started": _now(),
        "command": sys.argv,
        "cells": plan.num_rows,
        "to_train": len(shards),
        "shards": len(set(shards)),
        "host": socket.gethostname(),
        "device": None,
        "folder": str(Path.cwd()),
        "schema_version": SCHEMA_VERSION,
        "versions": versions(),
        "git": git_state(),
        **(provenance or {}),
    }
    if not isinstance(record["command"], str):
        program, *words = record["command"]
        record["command"] = shlex.join([Path(program).name, *words])
    with atomic(folder / "config.yaml") as file:
        file.write(text.encode())
    with atomic(folder / "plan.parquet") as file:
        pq.write_table(plan, file, **WRITE_OPTIONS)
    with atomic(folder / "launch.json") as file:  # last: a launch without it does not count
        file.write(json.dumps(record, indent=1).encode())
    _refresh_summary(store)
    return launch


def _new_folder(store: Path) -> tuple[str, Path]:
    while True:
        launch = f"{datetime.now(UTC):%Y%m%dT%H%M%S-%f}-{secrets.token_hex(4)}"
        folder = store / "launches" / launch
        with disk_errors(store):
            folder.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):
                folder.mkdir()
                return launch, folder


def _refresh_summary(store: Path) -> None:
    """Rewrite sweep.yaml from the launches' own records."""
    with locked(store):
        records = [read_launch(store, launch) for launch in launch_ids(store)]
        newest = records[-1]
        history = ("id", "started", "command", "cells", "to_train", "shards")
        summary = {
            "launch": newest["id"],
            "config": read_config(store, newest["id"]),
            **{key: value for key, value in newest.items() if key not in history},
            "launches": [{key: record[key] for key in history} for record in records],
        }
        with atomic(store / "sweep.yaml") as file:
            file.write((_HEADER + _yaml(summary)).encode())


def _yaml(value: Mapping[str, Any]) -> str:
    import yaml

    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def launch_ids(store: Path) -> list[str]:
    """Return the ids of a store's launches, oldest first.

    Raises:
        UserError: The newest launch was made by a newer version of runner.
    """
    found = sorted(path.parent.name for path in (store / "launches").glob("*/launch.json"))
    if found:
        read_launch(store, found[-1])
    return found


def read_launch(store: Path, launch: str) -> dict[str, Any]:
    """Return what ``launch.json`` says.

    Raises:
        UserError: There is no such launch, or a newer version of runner made it.
    """
    path = store / "launches" / launch / "launch.json"
    try:
        record: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        known = [path.parent.name for path in (store / "launches").glob("*/launch.json")]
        raise unknown("launch", launch, known) from None
    check_version(record["schema_version"], path)
    return record


def read_plan(store: Path, launch: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Return the plan of a launch: cells in the grid's order, with the columns of ``PLAN``.

    Raises:
        UserError: There is no such launch, or its plan is corrupt.
    """
    import pyarrow.parquet as pq

    read_launch(store, launch)
    path = store / "launches" / launch / "plan.parquet"
    with readable(path), pq.ParquetFile(path, page_checksum_verification=True) as file:
        return file.read(columns=columns)


def read_config(store: Path, launch: str) -> dict[str, Any]:
    """Return the resolved config of a launch.

    Raises:
        UserError: There is no such launch.
    """
    import yaml

    read_launch(store, launch)
    config: dict[str, Any] = yaml.safe_load((store / "launches" / launch / "config.yaml").read_text("utf-8"))
    return config


def record_failure(store: Path, launch: str, pack: int, traceback_text: str) -> Path:
    """Keep the traceback of a pack that failed; returns where."""
    path = failure_path(store, launch, pack)
    with atomic(path) as file:
        file.write(traceback_text.encode("utf-8", "backslashreplace"))
    return path


def failure_path(store: Path, launch: str, pack: int) -> Path:
    """Return where the traceback of a pack is kept."""
    return store / "launches" / launch / "errors" / f"pack-{pack}.txt"


@dataclass
class ShardState:
    """The heartbeat of the job that runs one shard.

    Attributes:
        path: The shard's file.
        shard: Number of the shard.
        packs: That this job has to train.
        pid: Of the process.
        host: Where the process runs.
        started: UTC, ISO 8601.
        updated: Unix time in seconds of the last sign of life.
        packs_done: Packs written by this job.
        cells_done: Cells written by this job.
        state: ``stopped`` when an exception ended the job.
    """

    path: Path
    shard: int
    packs: int
    pid: int = field(default_factory=os.getpid)
    host: str = field(default_factory=socket.gethostname)
    started: str = field(default_factory=_now)
    updated: float = 0.0
    packs_done: int = 0
    cells_done: int = 0
    state: ShardPhase = "running"

    def beat(self, packs: int = 0, cells: int = 0) -> None:
        """Give a sign of life; cheap enough to call at every step.

        Args:
            packs: Written since the last call.
            cells: Written since the last call.
        """
        self.packs_done += packs
        self.cells_done += cells
        if packs or not 0 <= time.time() - self.updated < BEAT_SECONDS:
            # A full disk shows when results are written; a missed beat must not end a training.
            with suppress(OSError, UserError):
                self._write()

    def finish(self, state: ShardPhase = "finished") -> None:
        """Say that the job has ended: ``finished`` with its shard done, else ``stopped``."""
        self.state = state
        self._write()

    def _write(self) -> None:
        self.updated = time.time()
        # Not worth an fsync: after a power cut nothing is running, and status says so from the file's age.
        with atomic(self.path, durable=False) as file:
            file.write(
                json.dumps({key: item for key, item in asdict(self).items() if key != "path"}).encode()
            )


def start_shard(store: Path, launch: str, shard: int, packs: int) -> ShardState:
    """Say that this process runs a shard; a requeued job takes over from its predecessor.

    Args:
        store: Folder of the store.
        launch: Id of the launch.
        shard: Number of the shard.
        packs: That this job has to train.

    Raises:
        UserError: There is no such launch, or the store cannot be written.
    """
    read_launch(store, launch)
    state = ShardState(store / "launches" / launch / f"shard-{shard}.json", shard, packs)
    state._write()
    return state


@contextmanager
def shard_state(store: Path, launch: str, shard: int, packs: int) -> Iterator[ShardState]:
    """Run a shard in this block: ``finished`` on leaving it, ``stopped`` when an exception does."""
    state = start_shard(store, launch, shard, packs)
    try:
        yield state
    except BaseException:
        # The exception tells more than a second one from a full disk would.
        with suppress(OSError, UserError):
            state.finish("stopped")
        raise
    state.finish()
