"""One launch: cells -> plan -> store; and one shard of it: packs -> training -> parts.

A launch and its shards talk through the store alone: a shard reads the snapshot that the launch wrote
(``launches/<id>/``), never the config that is there when it happens to start.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from runner import store as tables
from runner.errors import UserError
from runner.grid.cell import Cell, canonical_json
from runner.grid.cells import Cells
from runner.launching.limits import solve_limits
from runner.launching.progress import Progress
from runner.launching.shard import PackTrainer
from runner.launching.sources import changes, sources
from runner.launching.workers import cores, train_packs, worker_count
from runner.numerics import compiled
from runner.planning.forecast import Forecast, forecast
from runner.planning.machine import USUAL, Machine, from_record, this_machine
from runner.planning.packs import Pack
from runner.planning.plan import Plan, make_plan, packs_of_rows
from runner.preemption import Stopped, stoppable
from runner.store import launches, shards, verify
from runner.store.arrow import is_in
from runner.store.files import locked
from runner.store.leases import Leases

if TYPE_CHECKING:
    import torch


class SweepIncompleteError(Exception):
    """Cells failed or shards did not finish: shown as one line, exit code 1."""


class SweepInterrupted(KeyboardInterrupt):
    """Ctrl-C during a launch; the message says how far it got."""


class Launched(NamedTuple):
    """A launch as recorded in the store.

    Attributes:
        launch: Id of the launch.
        shards: Jobs to run; 0 when every cell is finished.
        missing: Cells to train.
        total: Cells of the grid.
        notes: What was set aside because it could not be read, and code that is not what it was.
        forecast: What training them will take.
    """

    launch: str
    shards: int
    missing: int
    total: int
    notes: tuple[str, ...] = ()
    forecast: Forecast | None = None


# -- launch ------------------------------------------------------------------------------------------


def launch(
    cells: Sequence[Cell],
    config: Mapping[str, Any],
    store: Path,
    default_shards: int | None = 1,
    command: str | None = None,
    *,
    record: bool = True,
    about: Mapping[str, Any] | None = None,
) -> Launched:
    """Check everything, plan what is missing and record the launch; nothing is written before all is right.

    Args:
        config: The resolved config: ``device``, ``retry``, ``shards``, ``regime`` count here, and all of it
            is kept as the launch's snapshot.
        default_shards: Jobs where the config's ``shards`` is null; None lets the planner choose.
        command: What the user typed, for the record.
        record: Whether to record it; otherwise nothing is written, and the launch has no id.
        about: Further entries of its record.

    Returns:
        The launch. When nothing is missing and the newest launch asked for the same cells, that one.

    Raises:
        UserError: For anything wrong in the grid, the device or the store.
    """
    from runner.analysis.regime import check_thresholds
    from runner.layers import kernel_memory
    from runner.training import preflight

    device = preflight.resolve_device(config["device"])
    check_thresholds(config["regime"])
    cells = Cells.of(cells)
    if device.type == "cpu" and "tf32" in cells.column("dtype").values:
        raise UserError("dtype must be float32 or float64 on the CPU, got tf32; TF32 is of GPUs alone")
    provenance: dict[str, Any] = {"device": str(device), "cores": cores(), "threads_per_worker": 1}
    provenance |= ({"command": command} if command else {}) | dict(about or {})
    alone = config.get("shard") is not None
    damaged = verify.set_aside_unreadable(store) if record and not alone else ()
    machine = _machine(store, device)
    provenance |= {"machine": asdict(machine), "sources": sources(cells), "products": compiled.who()}
    if alone and record:
        return _join(make_plan(cells, shards=config["shards"], machine=machine), config, store, provenance)
    finished = tables.finished(store, config["retry"])
    shards = config["shards"] or default_shards
    plan = make_plan(cells, shards=shards, finished=finished, machine=machine)
    notes = tuple(changes(store, plan.ids, provenance["sources"])) if not config["retry"] else ()
    workers = worker_count(plan.packs, device.type == "cpu", config["workers"])
    with kernel_memory(config.get("kernel_memory_mb")):
        # A worker imports what this process has, which is nearly all that either does before it trains.
        ahead = forecast(plan, preflight.inspect, machine, workers, time.process_time(), store)
    if not record:
        return Launched("", plan.shards, plan.missing, plan.total, notes, ahead)
    tables.check_writable(store)
    provenance["threaded"] = [] if config["workers"] else list(plan.threaded)
    known = _same_launch(plan, store) if not plan.packs else None
    name = known or launches.new_launch(store, config, plan.rows(), provenance)
    return Launched(name, plan.shards, plan.missing, plan.total, (*damaged, *notes), ahead)


def _machine(store: Path, device: torch.device) -> Machine:
    """Return what the store's packs were formed for, so that they are formed again; else this machine."""
    newest = next(reversed(launches.launch_ids(store)), None)
    record = launches.read_launch(store, newest) if newest else {}
    known = from_record(record.get("machine")) if record.get("device") == str(device) else None
    return known or this_machine(device, cores() if device.type == "cpu" else 1)


def _join(plan: Plan, config: Mapping[str, Any], store: Path, provenance: Mapping[str, Any]) -> Launched:
    """Take part in the launch of a job array, of which each task is a process that was given its shard.

    The first to come records the launch, for all: over the whole grid, so that the shards of tasks that
    start at different times are parts of one plan.
    """
    tables.check_writable(store)
    content = [
        canonical_json(dict(config) | {"shard": None, "sweep": None}),
        os.environ.get("SLURM_ARRAY_JOB_ID", ""),
    ]
    content += plan.ids.to_pylist()
    array = hashlib.sha256("\n".join(content).encode()).hexdigest()
    with locked(store, ".launch.lock"):
        for known in reversed(launches.launch_ids(store)):
            if launches.read_launch(store, known).get("array") == array:
                break
        else:
            known = launches.new_launch(store, config, plan.rows(), {**provenance, "array": array})
    return Launched(known, plan.shards, plan.missing, plan.total)


def _same_launch(plan: Plan, store: Path) -> str | None:
    """Return the newest launch if it asked for these very cells; every plan has them in one order."""
    newest = next(reversed(launches.launch_ids(store)), None)
    return newest if newest and _asked(store, newest).equals(pa.chunked_array([plan.ids])) else None


def is_finished(store: Path, cells: Cells, retry: str | None) -> bool:
    """Return whether every one of these cells has a result."""
    return bool(is_in(cells.ids(), tables.finished(store, retry)).all())


def unfinished(store: Path, launch: str) -> tuple[int, int]:
    """Return how many cells of a launch have no row yet, and how many of all failed."""
    asked = _asked(store, launch)
    rows = tables.read_table(store, "cells", ["cell_id", "status"])
    failed = rows["cell_id"].filter(pc.equal(rows["status"], "failed"))
    return len(asked) - int(is_in(asked, rows["cell_id"]).sum()), int(is_in(asked, failed).sum())


def progress_of(launched: Launched, store: Path) -> str:
    """Return one line on how far a launch is."""
    missing, _ = unfinished(store, launched.launch)
    done = launched.total - missing
    return f"{done} of {launched.total} cells are finished; the same command runs the rest"


def _asked(store: Path, launch: str) -> pa.ChunkedArray:
    return launches.read_plan(store, launch, ["cell_id"])["cell_id"]


# -- shard -------------------------------------------------------------------------------------------


def run_shard(store: Path, launch: str, shard: int, progress: Progress | None = None) -> None:
    """Train the packs of one shard, as the launch's snapshot says, and write their parts.

    Cells that another run of the same shard has finished (Slurm requeues jobs) are skipped, a pack that it
    had to leave is gone on with.

    Raises:
        KeyboardInterrupt: On Ctrl-C, when what was in training is saved.
        SystemExit: On another signal to stop, when that is done.
    """
    import torch

    from runner.training import preflight

    progress = progress or Progress()
    config = launches.read_config(store, launch)
    record = launches.read_launch(store, launch)
    device = preflight.resolve_device(config["device"], shard)
    if device.index is not None:
        torch.cuda.set_device(device)
    trainer = PackTrainer(Leases(store, launch, shard), device, config)
    trainer.settled.skip()
    finished = tables.finished(store, config["retry"], launch)
    rows = launches.read_plan(store, launch, shard=shard)
    machine = from_record(record.get("machine")) or USUAL
    machine = replace(machine, threads=min(machine.threads, cores()))
    packs = packs_of_rows(rows, preflight.inspect, machine, record.get("threaded", ()))
    todo = packs.only(~is_in(rows["cell_id"], finished))
    total = record["cells"] if record["shards"] <= 1 else rows.num_rows
    del rows, finished  # a training takes long, and a grid may be large: what it grows by, is given back
    pa.default_memory_pool().release_unused()
    count = worker_count(todo, trainer.device.type == "cpu", config["workers"])
    todo = todo.costliest_first() if count > 1 else todo
    with stoppable() as stop, shards.shard_state(store, launch, shard, len(todo)) as state:
        try:
            progress.begin(todo, total - len(todo.cells), total)
            beating = _Beating(progress, state)
            solve_limits(todo, store, beating, stop)
            train_packs(todo, trainer, count, beating, stop)
        except Stopped:
            state.state = "preempted"
        finally:
            progress.end()
    stop.obey()


@dataclass
class _Beating(Progress):
    """Passes progress on, and keeps the shard's heartbeat."""

    progress: Progress
    state: shards.ShardState

    def begin(self, packs: Sequence[Pack], done: int, total: int) -> None:
        self.progress.begin(packs, done, total)

    def preparing(self, text: str) -> None:
        self.state.beat()
        self.progress.preparing(text)

    def note(self, text: str) -> None:
        self.progress.note(text)

    def begin_pack(self, pack: Pack) -> None:
        self.progress.begin_pack(pack)

    def step(self, pack: Pack, step: int, diverged: int) -> None:
        self.state.beat()
        self.progress.step(pack, step, diverged)

    def waiting(self, pack: Pack) -> None:
        self.progress.waiting(pack)

    def end_pack(self, pack: Pack, ok: int, diverged: int, failed: int) -> None:
        self.progress.end_pack(pack, ok, diverged, failed)
        self.state.beat(packs=1, cells=ok + diverged + failed)

    def end(self) -> None:
        self.progress.end()
