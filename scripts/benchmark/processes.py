"""Processes that are timed, one per core, each with some functions that take steps."""

from __future__ import annotations

import multiprocessing
import os
import resource
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, NamedTuple, Self

from runner.launching.workers import cores

Steps = Callable[[], int]
"""Takes some steps with some cells, and returns the number of cells times that of steps."""


class Rate(NamedTuple):
    """How fast a process was.

    Attributes:
        steps: Cells x steps per second.
        faults: Page faults per call.
    """

    steps: float
    faults: float


class Worker:
    """A process that takes steps when it is asked to.

    Args:
        core: Which it may use; None for any.
    """

    def __init__(self, core: int | None = None) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, core), daemon=True)
        self.process.start()

    def make(self, name: str, make: Callable[..., Steps], *arguments: object) -> None:
        """Have it call ``make(*arguments)`` and keep what it returns under a name; wait for that."""
        self.connection.send((name, make, arguments))
        self.connection.recv()

    def drop(self, name: str) -> None:
        """Have it forget what it keeps under a name."""
        self.connection.send((name, None, None))
        self.connection.recv()

    def begin(self, name: str, seconds: float) -> None:
        """Have it take steps for so long."""
        self.connection.send((name, seconds, None))

    def result(self) -> Rate:
        """Wait for what :meth:`begin` asked for."""
        found: Rate = self.connection.recv()
        return found

    def end(self) -> None:
        """End the process."""
        self.connection.send(None)
        self.process.join()


class Workers:
    """One process per core; ends them on the way out of ``with``.

    Args:
        pinned: Whether each has a core of its own, or any as the workers of a sweep do.
        count: How many; by default one per core.
    """

    def __init__(self, *, pinned: bool = False, count: int | None = None) -> None:
        self._stack = ExitStack()
        own: list[int | None] = [*sorted(os.sched_getaffinity(0))] if pinned else [None] * cores()
        own = own[:count]
        self.workers = [Worker(core) for core in own]
        for worker in self.workers:
            self._stack.callback(worker.end)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def __len__(self) -> int:
        return len(self.workers)

    def make(self, name: str, make: Callable[..., Steps], *arguments: object) -> None:
        """As a worker's, one after the other: what the first compiles the others may find on disk."""
        for worker in self.workers:
            worker.make(name, make, *arguments)

    def drop(self, name: str) -> None:
        """As a worker's."""
        for worker in self.workers:
            worker.drop(name)

    def rate(self, name: str, seconds: float) -> Rate:
        """Have all take steps at once: the sum of their steps, the largest of their faults."""
        for worker in self.workers:
            worker.begin(name, seconds)
        found = [worker.result() for worker in self.workers]
        return Rate(sum(rate.steps for rate in found), max(rate.faults for rate in found))

    def best(self, candidates: Mapping[str, tuple[Any, ...]], seconds: float) -> str:
        """Make each of some candidates, keep the fastest and return its name.

        Args:
            candidates: By name, the arguments of :meth:`make`.
        """
        fastest, kept = -1.0, ""
        for name, made in candidates.items():
            self.make(name, *made)
            self.rate(name, seconds / 4)
            rate = self.rate(name, seconds).steps
            if rate > fastest:
                self.drop(kept)
                fastest, kept = rate, name
            else:
                self.drop(name)
        return kept


def _serve(connection: Connection[Any, Any], core: int | None) -> None:
    if core is not None:
        os.sched_setaffinity(0, {core})
    held: dict[str, Steps] = {}
    while (asked := connection.recv()) is not None:
        name, what, arguments = asked
        if isinstance(what, float):
            connection.send(_timed(held[name], what))
        else:
            held.pop(name, None)
            if what is not None:
                held[name] = what(*arguments)
            connection.send("done")


def _timed(steps: Steps, seconds: float) -> Rate:
    taken = calls = 0
    faults, began = _faults(), time.perf_counter()
    while (elapsed := time.perf_counter() - began) < seconds:
        taken += steps()
        calls += 1
    return Rate(taken / elapsed, (_faults() - faults) / calls)


def _faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
