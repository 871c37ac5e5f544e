"""Training one pack of a launch and writing what comes of it, whatever happens on the way.

A pack that raises is halved until what raises is alone: a bug that shows at one cell, or memory that does
not hold all of them, costs the others nothing. What a process must not do is train cells that another one
trains or has trained: leases and the table itself tell.
"""

from __future__ import annotations

import gc
import json
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from runner import store as tables
from runner.grid.cell import FIELDS
from runner.launching.workers import Outcome
from runner.planning.packs import Pack
from runner.store import launches
from runner.store.leases import Leases

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from runner.measures.declaration import Column
    from runner.training.record import PackTables

STATUSES = ("ok", "diverged", "failed")


@dataclass(frozen=True, slots=True)
class PackTrainer:
    """Trains packs of one shard.

    Attributes:
        leases: Leases of the shard: which cells are its own for now.
        device: Device to train on.
        config: The launch's snapshot; ``regime``, ``checkpoint_minutes``, ``kernel_memory_mb`` and
            ``retry`` count here.
        settled: Cells that have a result.
    """

    leases: Leases
    device: torch.device
    config: Mapping[str, Any]
    settled: tables.Settled = field(init=False)

    def __post_init__(self) -> None:
        settled = tables.Settled(self.leases.store, self.leases.launch, self.config.get("retry"))
        object.__setattr__(self, "settled", settled)

    def run(
        self, pack: Pack, on_progress: Callable[[int, int], None], stop: Callable[[], object] = bool
    ) -> Outcome:
        """Train the cells of a pack that nobody else trains, and write their parts.

        Args:
            on_progress: Called with (steps done, cells diverged so far) now and then.
            stop: Says whether to stop; the pack is then saved, and :class:`Stopped` raised.
        """
        ids = {cell.cell_id for cell in pack.cells}
        with self.leases.take(ids) as free:
            # Asked after the cells are ours: whoever had them before has written them by now.
            settled = self.settled.refresh(f"{self.leases.launch}-{pack.name}")
            counts = Counter(settled[cell_id] for cell_id in ids if cell_id in settled)
            mine = pack.only(free - settled.keys())
            if mine.cells:
                counts += self._train(mine, on_progress, stop)
        left = pack.only(ids - free - settled.keys())
        return Outcome({status: counts[status] for status in STATUSES}, left if left.cells else None)

    def fail(self, pack: Pack, error: BaseException) -> Outcome:
        """Record a pack as failed, with the traceback."""
        text = "".join(traceback.format_exception(error))
        for cell in pack.cells:
            launches.record_failure(self.leases.store, self.leases.launch, cell.cell_id, text)
        count = len(pack.cells)
        last = " ".join(traceback.format_exception_only(error)[-1].split())
        rows = {**self._config_columns(pack), "status": ["failed"] * count, "error": [last] * count}
        self._write("cells", pack, rows)
        return Outcome({"ok": 0, "diverged": 0, "failed": count})

    def _train(
        self, pack: Pack, on_progress: Callable[[int, int], None], stop: Callable[[], object]
    ) -> Counter[str]:
        from runner.layers import kernel_memory
        from runner.limits import limits_from
        from runner.store.limits import stored_limit
        from runner.training import train
        from runner.training.checkpoint import Checkpoint

        checkpoint = Checkpoint(
            self.leases.store, pack.cells, self.device, self.config.get("checkpoint_minutes"), stop,
            self.leases.launch, own=self.config.get("retry") == "all",
        )  # fmt: skip
        try:
            limits = limits_from(partial(stored_limit, self.leases.store))
            with kernel_memory(self.config.get("kernel_memory_mb")), limits:
                result = train.train_pack(pack.cells, self.device, on_progress, checkpoint)
            if len(result.cells) != len(pack.cells):
                raise RuntimeError(
                    f"the engine returned {len(result.cells)} rows for {len(pack.cells)} cells"
                )
        except Exception as error:
            if _is_cancellation(error):
                raise
            checkpoint.remove()
            halves = pack.halves()
            if not halves:
                return Counter(self.fail(pack, error).counts)
        else:
            rows = self._finished(pack, result)
            # Cells last: a cell is finished by its row there.
            self._write("trace", pack, result.trace, _declared(pack, "trace"))
            self._write("layers", pack, result.layers, _declared(pack, "layers"))
            if result.outputs:
                self._write("outputs", pack, result.outputs)
            self._write("cells", pack, rows, _declared(pack, "trace"))
            checkpoint.remove()
            return Counter(rows["status"])
        # Here the error is forgotten, and with it the frames that hold the pack's tensors.
        _free_memory(self.device)
        counts: Counter[str] = Counter()
        for half in halves:
            counts += self._train(half, on_progress, stop)
        return counts

    def _finished(self, pack: Pack, result: PackTables) -> dict[str, list[Any]]:
        import pandas as pd

        from runner.analysis.regime import JUDGED, classify

        columns = self._config_columns(pack)
        known = {name: columns[name] for name in ("loss", "settings")}
        regimes = classify(pd.DataFrame(result.cells).assign(**known), self.config["regime"])
        names = dict.fromkeys(name for row in result.cells for name in row)
        columns |= {name: [row.get(name) for row in result.cells] for name in names if name not in columns}
        columns |= {name: _nullable(regimes[name]) for name in JUDGED}
        counted = {"trace_rows": result.trace, "layer_rows": result.layers}
        counted |= {"output_rows": result.outputs} if result.outputs else {}
        for name, table in counted.items():
            rows = Counter(table.get("cell_id", ()))
            columns[name] = [rows[cell_id] for cell_id in columns["cell_id"]]
        return columns

    def _config_columns(self, pack: Pack) -> dict[str, list[Any]]:
        columns = {name: [getattr(cell, name) for cell in pack.cells] for name in ("cell_id", *FIELDS)}
        columns["launch"] = [self.leases.launch] * len(pack.cells)
        columns["finished_at"] = [datetime.now(UTC).isoformat(timespec="seconds")] * len(pack.cells)
        return columns

    def _write(
        self, table: str, pack: Pack, columns: Mapping[str, Sequence[Any]], declared: Sequence[Column] = ()
    ) -> None:
        name = f"{self.leases.launch}-{pack.name}"
        tables.write_part(self.leases.store, table, columns, name, declared)


def _declared(pack: Pack, table: str) -> list[Column]:
    """Return the columns of ``trace`` or ``layers`` that the measures of a pack declare."""
    from runner.measures.schedule import scheduled

    measures = scheduled(json.loads(pack.cells[0].settings).get("measure", {})).values()
    return [column for measure in measures for column in getattr(measure.declared, table)]


def _free_memory(device: torch.device) -> None:
    """Give back what a pack that raised still holds: it may have raised for want of memory."""
    gc.collect()
    if device.type == "cuda":
        import torch

        torch.cuda.empty_cache()


def _nullable(values: pd.Series) -> list[Any]:
    """Return a column as Python values, with None for missing ones."""
    return [None if missing else value for value, missing in zip(values, values.isna(), strict=True)]


def _is_cancellation(error: Exception) -> bool:
    """Whether a launcher asks the job to stop by raising inside it, as submitit does: not a failure."""
    if "submitit" not in sys.modules:  # then none of its errors is on its way
        return False
    from submitit.core.utils import UncompletedJobError

    return isinstance(error, UncompletedJobError)
