"""Collecting what a pack measures into the columns of the tables."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from runner.grid.cell import Cell
from runner.measures.catalog import MEASURES
from runner.schema import EXTREMES

_TRACE_ONLY = {column.name for measure in MEASURES if not measure.in_cells for column in measure.trace}
_AT_INIT = [column.name for measure in MEASURES for column in measure.init]
_OF_INIT = {*_AT_INIT, *(column.name for measure in MEASURES if measure.of_init for column in measure.trace)}
"""What holds of the init, and is kept of a cell that diverges."""
_PICKS: dict[str, Callable[[float, float], float]] = {"min": min, "max": max}
FITTED = 0.1
"""A split is fitted at this error rate or, in regression, at this share of its loss at init."""


@dataclass(frozen=True)
class PackTables:
    """What a pack leaves behind.

    Attributes:
        cells: Result columns of the ``cells`` table, one dict per cell in the order of the pack.
        trace: Columns of the ``trace`` table.
        layers: Columns of the ``layers`` table.
        outputs: Columns of the ``outputs`` table; none where no measure keeps outputs.
    """

    cells: list[dict[str, Any]]
    trace: dict[str, list[Any]]
    layers: dict[str, list[Any]]
    outputs: dict[str, Any] = field(default_factory=dict)


class Recorder:
    """Rows of a pack, gathered while it trains.

    Args:
        layer_names: Layers in the order of the forward pass.
        known: Columns known at init, one value per cell.
        targets: From a split to what the loss compares each output on it with.
    """

    def __init__(
        self,
        layer_names: Sequence[str],
        layer_roles: Sequence[str],
        cells: Sequence[Cell],
        known: Mapping[str, Sequence[Any]],
        targets: Callable[[str], Shaped[Tensor, "sample output"]],
    ) -> None:
        self._targets = targets
        self._ids = [cell.cell_id for cell in cells]
        self._layers = list(zip(layer_names, layer_roles, strict=True))
        self._results: list[dict[str, Any]] = [
            {"status": "ok", **{name: values[i] for name, values in known.items()}} for i in range(len(cells))
        ]
        self._trace: list[dict[str, Any]] = []
        self._layer_rows: list[dict[str, Any]] = []
        self._outputs: list[dict[str, Any]] = []

    def add(
        self,
        step: int,
        active: Sequence[int],
        trace: Mapping[str, Float[Tensor, "cell"]],
        per_layer: Mapping[str, Mapping[str, Float[Tensor, "cell"]]],
        outputs: Mapping[str, Float[Tensor, "cell sample output"]] | None = None,
    ) -> None:
        """Add what was measured at a step.

        Args:
            active: Place in the pack of every cell that was measured.
            per_layer: Column to layer to value per measured cell.
            outputs: Split to the outputs that are kept of each measured cell.
        """
        for split, kept in (outputs or {}).items():
            for cell, values in zip(active, kept, strict=True):
                key = {"cell_id": self._ids[cell], "step": step, "split": split}
                self._outputs.append(
                    key | {"count": kept.shape[2], "values": values.flatten().double().cpu().numpy()}
                )
        columns = {name: value.tolist() for name, value in trace.items()}
        layer_columns = {
            name: {layer: value.tolist() for layer, value in values.items()}
            for name, values in per_layer.items()
        }
        for position, cell in enumerate(active):
            key = {"cell_id": self._ids[cell], "step": step}
            values = {name: column[position] for name, column in columns.items()}
            self._trace.append(key | values)
            self._results[cell] |= {name: v for name, v in values.items() if name not in _TRACE_ONLY}
            if step == 0:
                at_init = ((name, name.removesuffix("_init")) for name in _AT_INIT)
                self._results[cell] |= {name: values[now] for name, now in at_init if now in values}
            for name, (source, which) in EXTREMES.items():
                if source in values:
                    before = self._results[cell].get(name, math.inf if which == "min" else -math.inf)
                    self._results[cell][name] = _PICKS[which](before, values[source])
            for i, (layer, role) in enumerate(self._layers):
                row = key | {"layer": layer, "layer_index": i, "role": role}
                row |= {n: by[layer][position] for n, by in layer_columns.items() if layer in by}
                self._layer_rows.append(row)

    def peak(self, active: Sequence[int], ratio: Float[Tensor, "cell"]) -> None:
        """Set the peak loss ratio of cells."""
        for cell, value in zip(active, ratio.tolist(), strict=True):
            self._results[cell]["peak_loss_ratio"] = value

    def diverged(self, cell: int, step: int, peak: float) -> None:
        """Mark a cell as diverged; its final measures are void."""
        kept = (
            "lr_absolute",
            "lr_sharpness",
            "lambda_max_init",
            "initial_train_loss",
            "precision",
            "parameters",
        )
        result = self._results[cell]
        met = {name: v for name, v in result.items() if name in EXTREMES or name in _OF_INIT}
        self._results[cell] = {
            "status": "diverged",
            "diverged_step": step,
            "peak_loss_ratio": peak,
            **{name: result[name] for name in kept},
            **met,
        }

    def stopped(self, cells: Sequence[int], step: int, levels: Sequence[Sequence[str]]) -> None:
        """Mark cells as done before their last step, by the levels that each has come to."""
        for cell, reached in zip(cells, levels, strict=True):
            self._results[cell] |= {"stopped_step": step, "stopped_by": ",".join(reached)}

    def count(self, status: str) -> int:
        """Return how many cells have a status."""
        return sum(result["status"] == status for result in self._results)

    def rows(self) -> dict[str, list[dict[str, Any]]]:
        """Return what has been recorded, as plain values."""
        outputs = [one | {"values": one["values"].tolist()} for one in self._outputs]
        kept = {"results": self._results, "trace": self._trace, "layers": self._layer_rows}
        return kept | {"outputs": outputs}

    def restore(self, rows: Mapping[str, list[dict[str, Any]]]) -> None:
        """Go on from what :meth:`rows` returned."""
        if len(rows["results"]) != len(self._ids):
            raise ValueError(f"{len(rows['results'])} rows for {len(self._ids)} cells")
        self._results, self._trace, self._layer_rows = rows["results"], rows["trace"], rows["layers"]
        self._outputs = [one | {"values": np.array(one["values"])} for one in rows["outputs"]]

    def tables(self, seconds: float, device: torch.device) -> PackTables:
        """Return the tables."""
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
        measured: dict[str, list[dict[str, Any]]] = {}
        for row in self._trace:
            measured.setdefault(row["cell_id"], []).append(row)
        rows = [
            row | {"train_seconds": seconds, "device": name} | delay(measured.get(cell_id, []))
            for cell_id, row in zip(self._ids, self._results, strict=True)
        ]
        return PackTables(rows, _columns(self._trace), _columns(self._layer_rows), self._kept())

    def _kept(self) -> dict[str, Any]:
        """Return the columns of ``outputs``, a target beside each number."""
        splits = dict.fromkeys(one["split"] for one in self._outputs)
        targets = {split: self._targets(split).flatten().double().cpu().numpy() for split in splits}
        return _long([one | {"targets": targets[one["split"]]} for one in self._outputs])


def delay(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return when a cell had fitted train and test, and how much later the latter was: grokking.

    Args:
        rows: The cell's rows of ``trace``, by step.

    Returns:
        ``train_fit_step`` and ``test_fit_step``, the first measured steps at ``FITTED``, and
        ``generalization_delay``, their ratio; infinite if test never was, nothing where train never was.

    References:
        Power et al. (2022), "Grokking", arXiv 2201.02177; Kumar et al. (2023), arXiv 2310.06110.
    """
    train, test = (_fit_step(rows, split) for split in ("train", "test"))
    steps = {"train_fit_step": train, "test_fit_step": test}
    if train is None:
        return steps
    return steps | {"generalization_delay": math.inf if test is None else test / max(train, 1)}


def _fit_step(rows: Sequence[Mapping[str, Any]], split: str) -> int | None:
    """First measured step at which a split is fitted."""
    if not rows:
        return None
    key = f"{split}_error" if f"{split}_error" in rows[0] else f"{split}_loss"
    limit = FITTED * (1.0 if key.endswith("error") else rows[0][key])
    return next((row["step"] for row in rows if row[key] <= limit), None)


def _long(kept: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the columns of ``outputs``, a row for each number."""
    if not kept:
        return {}
    sizes = [one["values"].size for one in kept]
    owner = np.repeat(np.arange(len(kept)), sizes)
    columns: dict[str, Any] = {
        name: np.array([one[name] for one in kept])[owner] for name in ("cell_id", "step", "split")
    }
    places = np.concatenate([np.arange(size) for size in sizes])
    columns["sample"], columns["output"] = np.divmod(places, np.array([one["count"] for one in kept])[owner])
    for column, values in {"value": "values", "target": "targets"}.items():
        columns[column] = np.concatenate([one[values] for one in kept])
    return columns


def _columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Turn rows into columns; a value that a row lacks is None."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}
