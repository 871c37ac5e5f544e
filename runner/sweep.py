"""One launch: cells -> plan -> store; and one shard of it: packs -> training -> parts.

A launch and its shards talk through the store alone: a shard reads the snapshot that the launch wrote
(``launches/<id>/``), never the config that is there when it happens to start.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from runner import store as tables
from runner.cell import FIELDS, Cell
from runner.plan import Pack, Plan, make_plan, packs_of_rows
from runner.store import launches
from runner.workers import Progress, train_packs, worker_count

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from runner.record import PackTables


class SweepIncompleteError(Exception):
    """Cells failed or shards did not finish: shown as one line, exit code 1."""


class SweepInterrupted(KeyboardInterrupt):
    """Ctrl-C during a launch; the message says how far it got."""


class Silence:
    """A progress that shows nothing."""

    def begin(self, packs: Sequence[Pack], done: int, total: int) -> None:
        """Ignore."""

    def begin_pack(self, pack: Pack) -> None:
        """Ignore."""

    def step(self, pack: Pack, step: int, diverged: int) -> None:
        """Ignore."""

    def end_pack(self, pack: Pack, ok: int, diverged: int, failed: int) -> None:
        """Ignore."""

    def end(self) -> None:
        """Ignore."""


class Launched(NamedTuple):
    """A launch as recorded in the store.

    Attributes:
        launch: Its id.
        shards: Jobs to run; 0 when every cell is finished.
        missing: Cells to train.
        total: Cells of the grid.
    """

    launch: str
    shards: int
    missing: int
    total: int


# -- launch ------------------------------------------------------------------------------------------


def launch(
    cells: Sequence[Cell],
    config: Mapping[str, Any],
    store: Path,
    default_shards: int | None = 1,
    command: str | None = None,
) -> Launched:
    """Check everything, plan what is missing and record the launch; nothing is written before all is right.

    Args:
        cells: The whole grid.
        config: The resolved config: ``device``, ``retry``, ``shards``, ``regime`` count here, and all of it
            is kept as the launch's snapshot.
        store: Folder of the results.
        default_shards: Jobs where the config's ``shards`` is null; None lets the planner choose.
        command: What the user typed, for the record.

    Returns:
        The launch. When nothing is missing and the newest launch asked for the same cells, that one.

    Raises:
        UserError: For anything wrong in the grid, the device or the store.
    """
    from runner.regime import check_thresholds
    from runner.train import resolve_device

    device = resolve_device(config["device"])
    check_thresholds(config["regime"])
    finished = tables.finished(store, retry_failed=config["retry"] == "failed")
    plan = make_plan(cells, shards=config["shards"] or default_shards, finished=finished)
    tables.check_writable(store)
    known = _same_launch(plan, store) if not plan.packs else None
    provenance = {"device": str(device)} | ({"command": command} if command else {})
    name = known or launches.new_launch(store, config, plan.rows(), provenance)
    return Launched(name, plan.shards, plan.missing, plan.total)


def _same_launch(plan: Plan, store: Path) -> str | None:
    """Return the newest launch if it asked for these very cells."""
    newest = next(reversed(launches.launch_ids(store)), None)
    if newest is None:
        return None
    recorded = _asked(store, newest)
    asked = (cell.cell_id for pack in plan.finished for cell in pack.cells)
    return newest if len(recorded) == plan.total and set(recorded) == set(asked) else None


def unfinished(store: Path, launch: str) -> tuple[int, int]:
    """Return how many cells of a launch have no row yet, and how many of all failed."""
    asked = _asked(store, launch)
    settled = tables.finished(store)
    trained = tables.finished(store, retry_failed=True)
    return sum(i not in settled for i in asked), sum(i in settled and i not in trained for i in asked)


def progress_of(launched: Launched, store: Path) -> str:
    """Return one line on how far a launch is."""
    missing, _ = unfinished(store, launched.launch)
    done = launched.total - missing
    return f"{done} of {launched.total} cells are finished; the same command runs the rest"


def _asked(store: Path, launch: str) -> list[str]:
    return list(launches.read_plan(store, launch, ["cell_id"])["cell_id"].to_pylist())


# -- shard -------------------------------------------------------------------------------------------


def run_shard(store: Path, launch: str, shard: int, progress: Progress | None = None) -> None:
    """Train the packs of one shard, as the launch's snapshot says, and write their parts.

    A pack that raises is recorded as failed and the shard goes on. Packs that another run of the same
    shard has finished (Slurm requeues jobs) are skipped.

    Args:
        store: Folder of the store.
        launch: Id of the launch.
        shard: Which shard.
        progress: Who watches; nobody by default.
    """
    from runner import train

    progress = progress or Silence()
    config = launches.read_config(store, launch)
    rows = launches.read_plan(store, launch).to_pydict()
    packs = packs_of_rows(rows, shard, train.inspect)
    finished = tables.finished(store, retry_failed=config["retry"] == "failed")
    todo = [pack for pack in packs if any(cell.cell_id not in finished for cell in pack.cells)]
    alone = all(owner in {0, None} for owner in rows["shard"])
    total = len(rows["shard"]) if alone else sum(len(pack.cells) for pack in packs)
    trainer = _Trainer(store, launch, train.resolve_device(config["device"]), config["regime"])
    count = worker_count(todo, trainer.device.type == "cpu", config["workers"])
    with launches.shard_state(store, launch, shard, len(todo)) as state:
        try:
            progress.begin(todo, total - sum(len(pack.cells) for pack in todo), total)
            train_packs(todo, trainer, count, _Beating(progress, state))
        finally:
            progress.end()


class _Beating(NamedTuple):
    """Passes progress on, and keeps the shard's heartbeat."""

    progress: Progress
    state: launches.ShardState

    def begin(self, packs: Sequence[Pack], done: int, total: int) -> None:
        self.progress.begin(packs, done, total)

    def begin_pack(self, pack: Pack) -> None:
        self.progress.begin_pack(pack)

    def step(self, pack: Pack, step: int, diverged: int) -> None:
        self.state.beat()
        self.progress.step(pack, step, diverged)

    def end_pack(self, pack: Pack, ok: int, diverged: int, failed: int) -> None:
        self.progress.end_pack(pack, ok, diverged, failed)
        self.state.beat(packs=1, cells=len(pack.cells))

    def end(self) -> None:
        self.progress.end()


@dataclass(frozen=True, slots=True)
class _Trainer:
    """Trains packs of one launch and writes what comes of them."""

    store: Path
    launch: str
    device: torch.device
    thresholds: Mapping[str, Any]

    def run(self, pack: Pack, on_progress: Callable[[int, int], None]) -> dict[str, int]:
        """Train a pack, write its parts and return how many of its cells have which status."""
        from runner import train

        try:
            result = train.train_pack(pack.cells, self.device, on_progress)
            self._check(pack, result)
        except Exception as error:
            if _is_cancellation(error):
                raise
            return self.fail(pack, error)
        rows = self._finished(pack, result)
        # Cells last: a cell is finished by its row there.
        self._write("trace", pack, result.trace)
        self._write("layers", pack, result.layers)
        self._write("cells", pack, rows)
        return _counts(rows)

    def fail(self, pack: Pack, error: Exception) -> dict[str, int]:
        """Record a pack as failed, with the traceback, and return its counts."""
        rows = self._failed(pack, error)
        self._write("cells", pack, rows)
        return _counts(rows)

    def _check(self, pack: Pack, result: PackTables) -> None:
        if len(result.cells) != len(pack.cells):
            raise RuntimeError(f"the engine returned {len(result.cells)} rows for {len(pack.cells)} cells")

    def _finished(self, pack: Pack, result: PackTables) -> dict[str, list[Any]]:
        import pandas as pd

        from runner.regime import classify

        regimes = classify(pd.DataFrame(result.cells), self.thresholds)
        columns = self._config_columns(pack)
        names = dict.fromkeys(name for row in result.cells for name in row)
        columns |= {name: [row.get(name) for row in result.cells] for name in names if name not in columns}
        columns["regime"] = _nullable(regimes["regime"])
        columns["catapult"] = _nullable(regimes["catapult"])
        return columns

    def _failed(self, pack: Pack, error: Exception) -> dict[str, list[Any]]:
        text = "".join(traceback.format_exception(error))
        launches.record_failure(self.store, self.launch, pack.index, text)
        count = len(pack.cells)
        last = " ".join(traceback.format_exception_only(error)[-1].split())
        return {**self._config_columns(pack), "status": ["failed"] * count, "error": [last] * count}

    def _config_columns(self, pack: Pack) -> dict[str, list[Any]]:
        columns = {name: [getattr(cell, name) for cell in pack.cells] for name in ("cell_id", *FIELDS)}
        columns["launch"] = [self.launch] * len(pack.cells)
        columns["finished_at"] = [datetime.now(UTC).isoformat(timespec="seconds")] * len(pack.cells)
        return columns

    def _write(self, table: str, pack: Pack, columns: Mapping[str, Sequence[Any]]) -> None:
        tables.write_part(self.store, table, columns, f"{self.launch}-{pack.index:06d}")


def _counts(rows: Mapping[str, Sequence[Any]]) -> dict[str, int]:
    return {status: list(rows["status"]).count(status) for status in ("ok", "diverged", "failed")}


def _nullable(values: pd.Series) -> list[Any]:
    """Return a column as Python values, with None for missing ones."""
    return [None if missing else value for value, missing in zip(values, values.isna(), strict=True)]


def _is_cancellation(error: Exception) -> bool:
    """Whether a launcher asks the job to stop by raising inside it, as submitit does: not a failure."""
    return any(kind.__name__ == "UncompletedJobError" for kind in type(error).__mro__)
