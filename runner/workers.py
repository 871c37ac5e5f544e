"""Training packs on every core: one single-threaded process per core, each with a pack at a time.

Packs share nothing, so processes scale where threads inside an operation do not (narrow nets), and where
the machine has other work, since no core waits at a barrier for another. One thread per worker also makes a
pack's numbers the same whatever the number of workers.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerContext, SpawnContext
    from multiprocessing.process import BaseProcess

    from runner.plan import Pack

_START_SECONDS = 4.0
"""Work, in estimated seconds, for which it does not pay to start processes that first import torch."""
_STOP_SECONDS = 5.0


class Trainer(Protocol):
    """What trains a pack and writes its parts; sent to the workers once."""

    def run(self, pack: Pack, on_progress: Callable[[int, int], None]) -> dict[str, int]:
        """Train a pack, write its parts and return how many of its cells have which status."""

    def fail(self, pack: Pack, error: Exception) -> dict[str, int]:
        """Record a pack as failed and return its counts."""


class Progress(Protocol):
    """What a shard tells whoever watches it."""

    def begin(self, packs: Sequence[Pack], done: int, total: int) -> None:
        """Say what is to be done; ``done`` of ``total`` cells are finished already."""

    def begin_pack(self, pack: Pack) -> None:
        """Say that a pack starts."""

    def step(self, pack: Pack, step: int, diverged: int) -> None:
        """Say how far a pack is, and how many of its cells have diverged."""

    def end_pack(self, pack: Pack, ok: int, diverged: int, failed: int) -> None:
        """Say how the cells of a pack ended."""

    def end(self) -> None:
        """Stop showing, whatever happened."""


class WorkerDiedError(Exception):
    """A worker ended without a word, as the kernel's out-of-memory killer makes it."""


def cores() -> int:
    """Return how many cores this job may use: Slurm's word, then OpenMP's, then the affinity mask."""
    for name in ("SLURM_CPUS_PER_TASK", "OMP_NUM_THREADS"):
        if (value := os.environ.get(name, "")).isdigit() and int(value) > 0:
            return int(value)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def worker_count(packs: Sequence[Pack], on_cpu: bool, asked: int | None) -> int:
    """Return how many processes train these packs; 1 is this process.

    Args:
        packs: What is to be trained.
        on_cpu: Whether they train on the CPU; a GPU is fed by one process.
        asked: The config's ``workers``.
    """
    if not on_cpu:
        return 1
    if asked is None and sum(pack.cost for pack in packs) < _START_SECONDS:
        return 1
    return max(1, min(asked or cores(), len(packs)))


def set_up_torch() -> None:
    """Set this process to one thread, and to treat denormals as zero."""
    import torch

    torch.set_num_threads(1)
    # Diverging and dying cells meet denormals, which are a hundred times slower.
    torch.set_flush_denormal(True)


def train_packs(packs: Sequence[Pack], trainer: Trainer, count: int, progress: Progress) -> None:
    """Train packs, in order, on ``count`` processes.

    A worker that dies costs its pack, which is recorded as failed; another takes its place. An exception
    that a worker raises beyond a pack's own (a full disk) ends them all and is raised here.

    Args:
        packs: What to train.
        trainer: Trains one; an exception of the training itself is its own business.
        count: Processes; 1 trains in this one.
        progress: Who watches.
    """
    if count == 1:
        set_up_torch()
        for pack in packs:
            progress.begin_pack(pack)
            counts = trainer.run(pack, lambda step, diverged, pack=pack: progress.step(pack, step, diverged))  # type: ignore[misc]
            progress.end_pack(pack, **counts)
        return
    pool = [_start(trainer) for _ in range(count)]
    try:
        _feed(pool, packs, trainer, progress)
        for worker in pool:
            worker.connection.close()  # the worker's cue to leave
        for worker in pool:
            worker.process.join(_STOP_SECONDS)
    finally:
        for worker in pool:
            worker.process.terminate()


class _Worker(NamedTuple):
    process: BaseProcess
    connection: Connection[Any, Any]


def _start(trainer: Trainer) -> _Worker:
    # A fork of this process could inherit torch's threads half-way through something; a server's cannot.
    context: SpawnContext | ForkServerContext
    if "forkserver" in multiprocessing.get_all_start_methods():
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["runner.sweep", "runner.train", "pyarrow.parquet", "pandas"])
    else:
        context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, trainer), daemon=True)
    process.start()
    theirs.close()  # so that the worker's death closes the pipe
    return _Worker(process, ours)


def _serve(connection: Connection[Any, Any], trainer: Trainer) -> None:
    """Train what comes through the pipe, until it closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that shows the progress
    set_up_torch()

    def tell(*message: object) -> None:
        try:
            connection.send(message)
        except OSError:
            os._exit(1)  # nobody is left to work for, and no exception must look like one of the training

    with suppress(EOFError, OSError):
        while True:
            pack = connection.recv()
            try:
                counts = trainer.run(pack, lambda step, diverged: tell("step", step, diverged))
            except Exception as error:
                tell("error", error)
            else:
                tell("done", counts)


def _feed(pool: list[_Worker], packs: Sequence[Pack], trainer: Trainer, progress: Progress) -> None:
    """Hand the packs out, one to a worker, and pass on what the workers say."""
    waiting, idle = deque(packs), list(pool)
    running: dict[Connection[Any, Any], tuple[_Worker, Pack]] = {}

    def end(connection: Connection[Any, Any], counts: Mapping[str, int], successor: _Worker) -> None:
        _, pack = running.pop(connection)
        idle.append(successor)
        progress.end_pack(pack, **counts)

    while waiting or running:
        while waiting and idle:
            worker, pack = idle.pop(0), waiting.popleft()
            worker.connection.send(pack)
            running[worker.connection] = (worker, pack)
            progress.begin_pack(pack)
        for connection in wait(list(running)):
            assert isinstance(connection, Connection)
            worker, pack = running[connection]
            try:
                kind, *content = connection.recv()
            except (EOFError, ConnectionError):
                worker.process.join(_STOP_SECONDS)
                pool[pool.index(worker)] = successor = _start(trainer)
                died = WorkerDiedError(f"the worker process ended with exit code {worker.process.exitcode}")
                end(connection, trainer.fail(pack, died), successor)
                continue
            if kind == "step":
                progress.step(pack, *content)
            elif kind == "done":
                end(connection, content[0], worker)
            else:
                raise content[0]
