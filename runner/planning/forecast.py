"""What a plan will take, told before it is trained: time, memory, disk."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from runner.grid.cell import PACK_FIELDS, Cell
from runner.planning.costs import kept_outputs, measured_points
from runner.planning.limits import limit_seconds
from runner.planning.machine import Machine
from runner.planning.memory import peak_bytes
from runner.planning.plan import Plan

if TYPE_CHECKING:
    from runner.training.preflight import PackShape

_PROCESS_BYTES = 400 << 20
"""A worker with torch and data."""
_PART_BYTES = 90 << 10
"""The three files of a pack, without rows: nearly all of it says what columns mean."""
_ROW_BYTES = {"cells": 600, "trace": 60, "layers": 15, "outputs": 8}
"""Measured in stores of MLPs, CNNs and transformers."""
_TIMES = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))
_BYTES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


class Forecast(NamedTuple):
    """What is to come, by the planner's estimates.

    Attributes:
        cells: Of the grid.
        missing: Those to train.
        packs: That they are trained in.
        jobs: That the packs are divided into.
        workers: Processes of a job, or the cores that it keeps busy.
        seconds: That the longest job takes, limits of infinite width that it waits for included.
        memory: Bytes that the processes of a job hold together, at most.
        disk: Bytes that the results take.
        outputs: Rows that are kept of the networks' outputs.
    """

    cells: int
    missing: int
    packs: int
    jobs: int
    workers: int
    seconds: float
    memory: int
    disk: int
    outputs: int = 0

    def time(self) -> str:
        """Return how long it takes, in words."""
        each = " each" if self.jobs > 1 else ""
        cores = f"{self.workers} worker{'s' if self.workers > 1 else ''}"
        return f"about {_rounded(self.seconds, _TIMES)}{each} on {cores}"

    def lines(self) -> list[str]:
        """Return all of it, in words."""
        jobs = f" in {self.jobs} jobs" if self.jobs > 1 else ""
        return [
            f"cells   {self.missing} to train of {self.cells}, {self.packs} packs{jobs}",
            f"time    {self.time() if self.missing else 'none: all are finished'}",
            f"memory  {_rounded(self.memory, _BYTES)} at most" + (" for each job" if jobs else ""),
            f"disk    about {_rounded(self.disk, _BYTES)}",
            *([f"outputs {self.kept()}"] if self.outputs else []),
        ]

    def kept(self) -> str:
        """Return how large the table of outputs gets, in words."""
        return f"{self.outputs:,} rows, about {_rounded(_ROW_BYTES['outputs'] * self.outputs, _BYTES)}"


def forecast(
    plan: Plan,
    shape_of: Callable[[Cell], PackShape],
    machine: Machine,
    workers: int,
    until_training: float = 0.0,
    store: Path | None = None,
) -> Forecast:
    """Return what a plan will take.

    Args:
        workers: Processes that a job has.
        until_training: Seconds that a process takes before it trains; with a single one it has passed.
        store: Folder of the store, which may have limits of infinite width.
    """
    packs = plan.packs
    gains = np.ones(len(packs))
    for place in np.flatnonzero(np.isin(packs.indices, plan.threaded)).tolist():
        gains[place] = machine.gain(packs.first(place).width)
    alone = gains > 1
    shard = np.array(plan.shard_of, int)
    longest = 0.0
    for number in range(plan.shards):
        costs = packs.costs[(shard == number) & ~alone]
        together = packs.costs[(shard == number) & alone] / gains[(shard == number) & alone]
        shared = max(costs.sum() / workers, costs.max(initial=0.0))
        longest = max(longest, float(shared + together.sum()) + until_training * (workers > 1))
    longest += limit_seconds(packs.cells, machine, store)
    memory = 0
    rows = {"cells": plan.missing, "trace": 0, "layers": 0, "outputs": 0}
    firsts = packs.cells.take(packs.stops - packs.sizes)
    for start, stop in itertools.pairwise([*firsts.starts(PACK_FIELDS).tolist(), len(packs)]):
        cell = firsts[start]
        shape, count = shape_of(cell), int(packs.sizes[start:stop].sum())
        memory = max(memory, peak_bytes(cell, shape, int(packs.sizes[start:stop].max())))
        rows["trace"] += measured_points(cell) * count
        rows["layers"] += measured_points(cell) * count * (cell.depth + 1)  # as an mlp has
        rows["outputs"] += kept_outputs(cell, shape) * count
    disk = _PART_BYTES * len(packs) + sum(size * rows[table] for table, size in _ROW_BYTES.items())
    held = workers * (memory + _PROCESS_BYTES) if len(packs) else 0
    return Forecast(
        plan.total,
        plan.missing,
        len(packs),
        max(1, plan.shards),
        workers,
        longest,
        held,
        disk,
        rows["outputs"],
    )


def _rounded(value: float, units: tuple[tuple[float, str], ...]) -> str:
    """Return a size with two digits and its unit."""
    scale, unit = next((pair for pair in units if value >= pair[0]), units[-1])
    return f"{float(f'{value / scale:.2g}'):g} {unit}"
