"""The heartbeat of a job: a file per shard that says how far it is, and a lock that its process holds."""

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
    """Return the file that the job of a shard keeps locked."""
    return store / "launches" / launch / "leases" / f"shard-{shard}"


@dataclass
class ShardState:
    """The heartbeat of the job that runs one shard.

    Attributes:
        packs: Packs that this job has to train.
        started: UTC, ISO 8601.
        updated: Unix time in seconds of the last heartbeat.
        packs_done: Packs written by this job.
        cells_done: Cells written by this job.
        state: ``preempted`` if the job was told to stop and saved a checkpoint, ``stopped`` if an exception
            ended it.
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
        """Count packs and cells written since the last call; cheap enough to call at every step."""
        self.packs_done += packs
        self.cells_done += cells
        if packs or not 0 <= time.time() - self.updated < BEAT_SECONDS:
            # A full disk shows when results are written; a missed beat must not end a training.
            with suppress(OSError, UserError):
                self.write()

    def finish(self, state: ShardPhase = "finished") -> None:
        """Write down that the job has ended, and how."""
        self.state = state
        self.write()

    def write(self) -> None:
        """Write the file."""
        self.updated = time.time()
        content = {key: item for key, item in asdict(self).items() if key != "path"}
        # Not durable: after a power cut no job runs, and status sees that by the age of the file.
        with atomic(self.path, durable=False) as file:
            file.write(json.dumps(content).encode())


def start_shard(store: Path, launch: str, shard: int, packs: int) -> ShardState:
    """Write the first heartbeat of a job, over that of a job before it.

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
