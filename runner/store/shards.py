"""The heartbeat of a job: a file per shard that says how far it is, and a lock that says that it lives."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from runner.errors import UserError
from runner.store.files import atomic
from runner.store.launches import now_text, read_launch
from runner.store.leases import presence

BEAT_SECONDS = 2.0

ShardPhase = Literal["running", "finished", "preempted", "stopped"]


def presence_path(store: Path, launch: str, shard: int) -> Path:
    """Return the file that the job of a shard holds a lock on."""
    return store / "launches" / launch / "leases" / f"shard-{shard}"


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
        state: ``preempted`` when the job was told to stop and saved what it was at, ``stopped`` when an
            exception ended it.
    """

    path: Path
    shard: int
    packs: int
    pid: int = field(default_factory=os.getpid)
    host: str = field(default_factory=socket.gethostname)
    started: str = field(default_factory=now_text)
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
                self.write()

    def finish(self, state: ShardPhase = "finished") -> None:
        """Say that the job has ended: ``finished`` with its shard done, else ``stopped``."""
        self.state = state
        self.write()

    def write(self) -> None:
        """Write the file."""
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
    state.write()
    return state


@contextmanager
def shard_state(store: Path, launch: str, shard: int, packs: int) -> Iterator[ShardState]:
    """Run a shard in this block: ``finished`` on leaving it, ``stopped`` when an exception does."""
    with presence(presence_path(store, launch, shard)):
        state = start_shard(store, launch, shard, packs)
        try:
            yield state
        except BaseException:
            # The exception tells more than a second one from a full disk would.
            with suppress(OSError, UserError):
                state.finish("stopped")
            raise
        state.finish("preempted" if state.state == "preempted" else "finished")
