"""Training packs on every core: one single-threaded process per core, each with a pack at a time.

Packs share nothing, so processes scale where threads inside an operation do not (narrow nets), and where
the machine has other work, since no core waits at a barrier for another. One thread per worker also makes a
pack's numbers the same whatever the number of workers. Only a pack that would keep the others waiting, for it
is as long as all of them, is trained on all cores: alone, before the others, and if the planner said so.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

from runner.launching.progress import Progress
from runner.planning.packs import Pack, total_cost
from runner.preemption import Stopped, stoppable

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerContext, SpawnContext
    from multiprocessing.process import BaseProcess

_START_SECONDS = 4.0
"""Work, in estimated seconds, for which it does not pay to start processes that first import torch."""
_STOP_SECONDS = 5.0
_POLL_SECONDS = 0.2
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_KEPT_BYTES = 512 << 20
_RETRY_SECONDS = 1.0
"""Until a pack that another process has is asked for again."""


class Outcome(NamedTuple):
    """What came of a pack.

    Attributes:
        counts: Cells by status: ``ok``, ``diverged`` and ``failed``.
        left: Cells that another process is training: to be asked for again.
    """

    counts: dict[str, int]
    left: Pack | None = None


@runtime_checkable
class Trainer(Protocol):
    """What trains a pack and writes its parts; sent to the workers once."""

    def run(self, pack: Pack, on_progress: Callable[[int, int], None], stop: Callable[[], object]) -> Outcome:
        """Train a pack and write its parts; raises ``Stopped`` soon after ``stop()`` is true."""

    def fail(self, pack: Pack, error: BaseException) -> Outcome:
        """Record a pack as failed."""


NOTHING = Outcome({"ok": 0, "diverged": 0, "failed": 0})


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
        on_cpu: Whether they train on the CPU; a GPU is fed by one process.
        asked: The config's ``workers``.
    """
    if not on_cpu:
        return 1
    if asked is None and total_cost(packs) < _START_SECONDS:
        return 1
    return max(1, min(asked or cores(), len(packs)))


def set_up_torch(threads: int = 1) -> None:
    """Set this process to some threads, fast products, flushed denormals, and to keep the memory it frees."""
    import torch

    from runner.numerics.precision import set_cpu_products

    set_cpu_products()
    torch.set_num_threads(threads)
    # Diverging and dying cells meet denormals, which are a hundred times slower.
    torch.set_flush_denormal(True)
    # A pack asks for the same sizes again and again. Pages fresh from the system cost up to as much as the
    # arithmetic on them, so glibc is told to hand back little, and to keep large blocks, too.
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None:
        mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def train_packs(
    packs: Sequence[Pack], trainer: Trainer, count: int, progress: Progress, stop: Callable[[], object] = bool
) -> None:
    """Train packs, in order, on ``count`` processes.

    A worker that dies, as the kernel's out-of-memory killer makes it, leaves its pack in two halves to
    others, and a cell that kills a worker by itself is recorded as failed. An exception that a worker
    raises beyond a pack's own (a full disk) ends them all and is raised here.

    Args:
        trainer: Trains one; an exception of the training itself is its own business.
        count: Processes; 1 trains in this one.
        stop: Says whether to stop.

    Raises:
        Stopped: ``stop()`` was true; what was in training is saved.
    """
    queue = _Queue(packs)
    if count == 1:
        _train_here(queue, trainer, progress, stop)
        return
    pool = [_start(trainer) for _ in range(count)]
    try:
        _feed(pool, queue, trainer, progress, stop)
    except BaseException:
        for worker in pool:
            worker.process.terminate()  # to stop at the next step
        raise
    finally:
        for worker in pool:
            worker.connection.close()  # the worker's cue to leave
        for worker in pool:
            worker.process.join(_STOP_SECONDS)
            worker.process.kill()


class _Queue:
    """Packs to train, and those that another process has, to be asked for again later."""

    def __init__(self, packs: Sequence[Pack]) -> None:
        self._packs, self._next = packs, 0  # each is made when its turn comes
        self._ready: deque[Pack] = deque()
        self._later: list[tuple[float, Pack]] = []

    def __bool__(self) -> bool:
        return bool(self._ready or self._later or self._next < len(self._packs))

    def next(self) -> Pack | None:
        """Return a pack to try now, if there is one."""
        if self._ready:
            return self._ready.popleft()
        if self._next < len(self._packs):
            self._next += 1
            return self._packs[self._next - 1]
        if self._later and self._later[0][0] <= time.monotonic():
            return self._later.pop(0)[1]
        return None

    def first(self, packs: Sequence[Pack]) -> None:
        """Put packs at the head."""
        self._ready.extendleft(reversed(packs))

    def later(self, pack: Pack | None) -> None:
        """Put a pack aside for a moment."""
        if pack is not None:
            self._later.append((time.monotonic() + _RETRY_SECONDS, pack))


def _train_here(queue: _Queue, trainer: Trainer, progress: Progress, stop: Callable[[], object]) -> None:
    while queue:
        if stop():
            raise Stopped
        pack = queue.next()
        if pack is None:
            time.sleep(_POLL_SECONDS)
            continue
        set_up_torch(pack.threads)
        progress.begin_pack(pack)
        outcome = trainer.run(pack, partial(progress.step, pack), stop)
        queue.later(outcome.left)
        if outcome.left:
            progress.waiting(outcome.left)
        progress.end_pack(pack, **outcome.counts)


class _Worker(NamedTuple):
    process: BaseProcess
    connection: Connection[Any, Any]


def _context() -> SpawnContext | ForkServerContext:
    # A fork of this process could inherit torch's threads half-way through something; a server's cannot.
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["runner.launching.launch", "runner.training.train", "pyarrow.parquet", "pandas"]
    )
    return context


def warm_up() -> None:
    """Have torch imported for the workers to come, while this process imports it for itself.

    Takes a second or two of another core, and does not wait for it.
    """
    if _context().get_start_method() == "forkserver":
        from multiprocessing import forkserver

        alone = threading.current_thread() is threading.main_thread()
        before = signal.signal(signal.SIGINT, signal.SIG_IGN) if alone else None  # which the server inherits
        try:
            forkserver.ensure_running()
        finally:
            if alone:
                signal.signal(signal.SIGINT, before)


def _start(trainer: Trainer) -> _Worker:
    warm_up()
    context = _context()
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, trainer), daemon=True)
    process.start()
    theirs.close()  # so that the worker's death closes the pipe
    return _Worker(process, ours)


def _serve(connection: Connection[Any, Any], trainer: Trainer) -> None:
    """Train what comes through the pipe, until it closes or a signal says to stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that shows the progress

    def tell(*message: object) -> None:
        try:
            connection.send(message)
        except OSError:
            os._exit(1)  # nobody is left to work for, and no exception must look like one of the training

    with stoppable() as stop, suppress(EOFError, OSError):
        while True:
            pack = connection.recv()
            set_up_torch(pack.threads)
            tell("begin")
            try:
                outcome = trainer.run(pack, lambda step, diverged: tell("step", step, diverged), stop)
            except Stopped:
                tell("stopped")
                return
            except Exception as error:
                tell("error", error)
            else:
                tell("done", outcome)


def _feed(
    pool: list[_Worker], queue: _Queue, trainer: Trainer, progress: Progress, stop: Callable[[], object]
) -> None:
    """Hand the packs out, one to a worker, and pass on what the workers say."""
    idle = list(pool)
    running: dict[Connection[Any, Any], tuple[_Worker, Pack]] = {}

    def end(connection: Connection[Any, Any], outcome: Outcome, successor: _Worker) -> None:
        _, pack = running.pop(connection)
        idle.append(successor)
        queue.later(outcome.left)
        if outcome.left:
            progress.waiting(outcome.left)
        progress.end_pack(pack, **outcome.counts)

    while queue or running:
        if stop():
            _stop([worker for worker, _ in running.values()])
            raise Stopped
        while idle and (pack := queue.next()):
            if running and any(
                some.threads > 1 for some in (pack, *(other for _, other in running.values()))
            ):
                queue.first([pack])  # threads that wait for each other wait long where cores are taken
                break
            worker = idle.pop(0)
            worker.connection.send(pack)
            running[worker.connection] = (worker, pack)
        for connection in wait(list(running), _POLL_SECONDS):
            assert isinstance(connection, Connection)
            worker, pack = running[connection]
            try:
                kind, *content = connection.recv()
            except (EOFError, ConnectionError):
                worker.process.join(_STOP_SECONDS)
                pool[pool.index(worker)] = successor = _start(trainer)
                died = WorkerDiedError(f"the worker process ended with exit code {worker.process.exitcode}")
                queue.first(pack.halves())
                end(connection, trainer.fail(pack, died) if len(pack.cells) == 1 else NOTHING, successor)
                continue
            if kind == "begin":  # not when it was sent: a new process first imports torch
                progress.begin_pack(pack)
            elif kind == "step":
                progress.step(pack, *content)
            elif kind == "done":
                end(connection, content[0], worker)
            elif kind == "stopped":  # by a signal of its own; if it was for all of us, ours is on its way
                pool[pool.index(worker)] = successor = _start(trainer)
                queue.first([pack])
                end(connection, NOTHING, successor)
            else:
                raise content[0]


def _stop(workers: Sequence[_Worker]) -> None:
    """Have workers save what they are at, and wait until they are gone."""
    for worker in workers:
        worker.process.terminate()
    for worker in workers:
        with suppress(EOFError, OSError):
            while worker.connection.recv()[0] in {"begin", "step"}:
                pass
        worker.connection.close()
        worker.process.join()
