"""A pack in training: what its cells share, how a step is taken, what is measured and how it is saved."""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from runner import data, layers
from runner.data.online import FreshBatches, is_online
from runner.data.order import Batch, BatchOrder
from runner.errors import UserError
from runner.grid import instantiate
from runner.grid.cell import Cell
from runner.measures.kernel import lambda_max
from runner.measures.schedule import Scheduled, scheduled
from runner.measures.snapshot import Measurement, Snapshot
from runner.models.descent import Descent
from runner.models.ensemble import Ensemble
from runner.numerics import losses
from runner.numerics.precision import set_precision
from runner.schema import TABLES
from runner.training.checkpoint import State
from runner.training.descent import descent_of
from runner.training.divergence import loss_limits
from runner.training.record import Recorder
from runner.training.stopping import StopRule

_SEARCHING = frozenset({"lambda_max", "sharpness"})
"""Measures that take lambda_max at init, or its eigenvector."""
_TAKEN = {
    table: {column.name for column in TABLES[table]} | {column.name for column in TABLES["cells"]}
    for table in ("trace", "layers")
}
"""Columns that a user's measure must not return."""


class Run:
    """A pack in training: the ensemble, its start, and which cells are still in it.

    Args:
        cells: Cells with one ``pack_key``.
    """

    def __init__(
        self, cells: Sequence[Cell], sections: Mapping[str, Any], dataset: data.Dataset, device: torch.device
    ) -> None:
        self.shape = cells[0]
        batch = self.shape.batch_size or len(dataset.train)
        set_precision(self.shape.precision, batch * self.shape.width**2)
        self.loss = losses.LOSSES[self.shape.loss]
        self.measures = scheduled(sections["measure"])
        self.stops = StopRule(sections.get("stop", {}), len(dataset.train), self.shape.batch_size)
        # Cells that differ in lr or gamma alone start alike: what is measured at init is measured once.
        starts = {cell.start_key: place for place, cell in reversed(list(enumerate(cells)))}
        order = {key: place for place, key in enumerate(starts)}
        index = torch.tensor([order[cell.start_key] for cell in cells], device=device)
        self.ensemble = Ensemble([cells[i] for i in starts.values()], sections["model"], dataset, device)
        self.start = Snapshot(self.ensemble, 0, keep=True)
        family = getattr(instantiate.resolve("optimizer", sections["optimizer"]), "family", "sgd")
        self.searched = needs_lambda_max(dataset, family, self.measures)
        lambda_init = torch.full((len(starts),), torch.nan, dtype=torch.float64, device=device)
        if self.searched:
            lambda_init = lambda_max(self.start, self.start).trace["lambda_max"].double()
        for split in self.ensemble.inputs:
            self.start.raw_outputs(split)
        for measure in self.measures.values():
            measure.declared.prepare_start(self.start, measure.options)
        self.ensemble.select(index, cells)
        self.start.select(index)
        if self.shape.center_output:
            self.ensemble.center({split: self.start.raw_outputs(split) for split in self.ensemble.inputs})

        lambda_init = lambda_init[index]
        swept = torch.tensor([c.lr for c in cells], dtype=torch.float64, device=device)
        sharp = torch.tensor([c.lr_unit == "sharpness" for c in cells], device=device)
        rate = torch.where(sharp, swept / lambda_init, swept)
        self.ensemble.lr = rate
        self.optimizer = optimizer_of(sections, self.ensemble.model, cells, rate)
        # lambda_max is a scale of the learning rate for gradient descent alone.
        descends = getattr(self.optimizer, "family", "sgd") == "sgd"
        self.descent: Descent | None = None
        # To look at a loss is to wait for the GPU.
        self.look_every = 4 if device.type == "cuda" else 1
        self._unseen: list[Tensor] = []
        self.batches = self._batches(cells, sections, dataset)
        self.active = list(range(len(cells)))
        self.initial_loss = self.loss(self.start.outputs("train"), self.ensemble.targets["train"])
        self.peak = torch.ones_like(self.initial_loss)
        self.limit = loss_limits(cells, rate.cpu(), self.initial_loss.cpu(), descends).to(self.initial_loss)
        self.recorder = Recorder(
            [layer.name for layer in layers.followed(self.ensemble.model)],
            [layer.role for layer in layers.followed(self.ensemble.model)],
            cells,
            {
                "lr_absolute": rate.tolist(),
                "lr_sharpness": (rate * lambda_init).tolist() if descends else [None] * len(cells),
                "lambda_max_init": lambda_init.tolist() if self.searched else [None] * len(cells),
                "initial_train_loss": self.initial_loss.tolist(),
                "precision": [cell.precision for cell in cells],
                "parameters": [layers.parameter_count(self.ensemble.model)] * len(cells),
            },
            self.ensemble.scored,
        )

    def _batches(
        self, cells: Sequence[Cell], sections: Mapping[str, Any], dataset: data.Dataset
    ) -> BatchOrder | FreshBatches | None:
        """What the cells descend on, step after step; None for full batch."""
        size, device = self.shape.batch_size, self.ensemble.device
        if size is None:
            return None
        seeds = [cell.seed for cell in cells]
        if is_online(sections["data"]):
            assert dataset.fresh is not None
            return FreshBatches(seeds, dataset.fresh, size, device, self.ensemble.dtype)
        return BatchOrder(seeds, len(dataset.train), size, device)

    def advance(self, step: int, until: int | None = None) -> int:
        """Take optimizer steps in one go; cells that diverged are retired after them, or soon after on a GPU.

        Args:
            step: Steps taken so far.
            until: Steps to be taken at most, all in all; by default one more.

        Returns:
            Steps taken by now.
        """
        if self.descent is None:
            self.descent = descent_of(self.start, self.optimizer)
        count = min(self.descent.at_once, (until or step + 1) - step)
        batches = [self.batches.next() if self.batches else Batch() for _ in range(count)]
        self._unseen.append(self.descent.several(batches))
        if sum(map(len, self._unseen)) >= self.look_every:
            self.look(step + count - 1)
        return step + count

    def look(self, step: int) -> None:
        """Follow the losses of the steps up to this one, and retire the cells that diverged at them."""
        if self._unseen:
            seen, self._unseen = torch.cat(self._unseen), []
            self._watch(seen, step)

    def measure(self, step: int) -> None:
        """Measure every cell that is still training."""
        self.look(step - 1)
        if not self.active:
            return
        now = self._now(step)
        train_loss = self.loss(now.outputs("train"), self.ensemble.targets["train"])
        if self._watch(train_loss[None], step):
            if not self.active:
                return
            now = self._now(step)
        self._measure(now, self.start, self.active, self.shape.steps)

    def stop(self, step: int) -> None:
        """Measure the cells that have come to a level at which they end, and retire them."""
        if not self.active or not self.stops.due(step):
            return
        self.look(step - 1)
        if not self.active:
            return
        now = self._now(step)
        reached = self.stops.reached(now.outputs("train"), self.ensemble.targets["train"], self.loss)
        done = torch.stack(list(reached.values())).any(0)
        if not bool(done.any()):
            return
        index = done.nonzero()[:, 0]
        ending = [self.active[i] for i in index.tolist()]
        start = copy.copy(self.start)
        start.select(index)
        start.ensemble = self.ensemble.some(index)
        self._measure(Snapshot(start.ensemble, step) if step else start, start, ending, step)
        names = [[name for name, hit in reached.items() if hit[i]] for i in index.tolist()]
        self.recorder.stopped(ending, step, names)
        self.recorder.peak(ending, self.peak[index])
        self.select((~done).nonzero()[:, 0])

    def _now(self, step: int) -> Snapshot:
        return Snapshot(self.ensemble, step) if step else self.start

    def _measure(self, now: Snapshot, start: Snapshot, active: Sequence[int], last: int) -> None:
        """Record what is due of some cells, for which step ``last`` is the last."""
        step, ensemble = now.step, now.ensemble
        trace = {"train_loss": self.loss(now.outputs("train"), ensemble.targets["train"])}
        trace["test_loss"] = self.loss(now.outputs("test"), ensemble.targets["test"])
        if ensemble.classification:
            for split in ("train", "test"):
                trace[f"{split}_error"] = losses.error_rate(now.outputs(split), ensemble.targets[split])
            margins = losses.margins(now.outputs("train"), ensemble.targets["train"])
            trace |= {"margin": margins.amin(1), "wrong_margin": losses.wrong_margin(margins)}
        trace["max_logit"] = now.outputs("train").abs().amax((1, 2))
        if step == 0 and self.searched:
            trace |= lambda_max(now, now).trace
        places = [self.active.index(cell) for cell in active]
        trace |= {name: value[places] for name, value in self.optimizer.reported().items()}
        per_layer: dict[str, Mapping[str, Tensor]] = {}
        outputs: dict[str, Tensor] = {}
        for name, measure in self.measures.items():
            if measure.due(step, last):
                if measure.declared.module:
                    measured = measure.function(now, start)
                else:
                    measured = self._guarded(name, measure.function, now, start)
                    self._check(name, measured, len(active))
                trace |= measured.trace
                per_layer |= measured.layers
                outputs |= measured.outputs
        self.recorder.add(step, active, trace, per_layer, outputs)

    def _guarded(
        self, name: str, function: Callable[..., Measurement], now: Snapshot, start: Snapshot
    ) -> Measurement:
        """Call a user's measure; at init, where it still costs nothing, see that it writes into nothing."""
        if now.step:
            return function(now, start)
        shared = {**now.features(), **{split: now.raw_outputs(split) for split in self.ensemble.inputs}}
        shared |= now.parameters
        before = {key: value.clone() for key, value in shared.items()}
        measured = function(now, start)
        for key, value in shared.items():
            if not torch.equal(value.nan_to_num(), before[key].nan_to_num()):
                raise UserError(
                    f"measure.functions.{name} must not write into what it is given, got changes of "
                    f"{key}, which other measures read; write into a copy"
                )
        return measured

    def _check(self, name: str, measured: Measurement, count: int) -> None:
        """Raise UserError unless a user's measure gives one number per cell, in columns of its own."""
        key = f"measure.functions.{name}"
        names = [layer.name for layer in layers.layers_of(self.ensemble.model)]
        if taken := sorted({*measured.trace} & _TAKEN["trace"] | {*measured.layers} & _TAKEN["layers"]):
            raise UserError(f"{key} must return columns of its own, got {taken[0]}; rename it")
        values = {**measured.trace}
        for column, by_layer in measured.layers.items():
            if unknown := sorted(by_layer.keys() - {*names}):
                known = f"layers of the model ({', '.join(names)})"
                raise UserError(f"{key} must name {known}, got {unknown[0]} in {column}")
            values |= {f"{column} of {layer}": value for layer, value in by_layer.items()}
        for column, value in values.items():
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            if shape != (count,):
                raise UserError(
                    f"{key} must return a tensor of one number per cell, of shape ({count},), got {shape} "
                    f"for {column}; keep the cell axis and reduce the others"
                )

    def state(self, step: int, seconds: float) -> State:
        """Return all that is needed to go on from here, on top of the cells."""
        self.look(step - 1)
        parts = {"model": self.ensemble.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        parts["guesses"] = self.start.guesses
        if self.batches:
            parts["batches"] = self.batches.state_dict()
        tensors = {
            f"{part}/{name}": value for part, values in parts.items() for name, value in values.items()
        }
        return State(step, seconds, self.active, self.recorder.rows(), tensors | {"peak": self.peak})

    def restore(self, state: State) -> None:
        """Go back to a state; raises where it is not one of this pack."""
        kept = [self.active.index(cell) for cell in state.active]
        self.select(torch.tensor(kept, dtype=torch.int64, device=self.peak.device))
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "optimizer": {}, "guesses": {}, "batches": {}}
        for name, value in state.tensors.items():
            if name != "peak":
                part, _, rest = name.partition("/")
                parts[part][rest] = value.to(self.peak.device)
        self.ensemble.model.load_state_dict(parts["model"])
        self.optimizer.load_state_dict(parts["optimizer"])
        self.start.guesses = parts["guesses"]
        if self.batches:
            self.batches.load_state_dict(parts["batches"])
        self.peak = state.tensors["peak"].to(self.peak)
        self.recorder.restore(state.rows)

    def _watch(self, seen: Float[Tensor, "step cell"], last: int) -> bool:
        """Follow the peak of the loss; retire cells beyond the limit and say whether there were any."""
        ratio = seen / self.initial_loss
        # False for NaN, too.
        fine = ratio <= self.limit
        if bool(fine.all()):
            self.peak = torch.maximum(self.peak, ratio.amax(0))
            return False
        # What a cell did after it diverged does not count.
        before = fine.int().cumprod(0).bool()
        counts = before.sum(0)
        ratio = torch.where(ratio.isfinite(), ratio, torch.inf)
        met = torch.cat([torch.ones_like(before[:1]), before[:-1]])
        self.peak = torch.maximum(self.peak, torch.where(met, ratio, 0.0).amax(0))
        bad = ~fine.all(0)
        for position in bad.nonzero()[:, 0].tolist():
            step = last - len(seen) + 1 + int(counts[position])
            self.recorder.diverged(self.active[position], step, float(self.peak[position]))
        self.select((~bad).nonzero()[:, 0])
        return True

    def select(self, index: Int[Tensor, "kept"]) -> None:
        """Keep the cells at ``index``, in that order."""
        for part in (self.ensemble, self.start, self.optimizer, self.batches):
            if part is not None:
                part.select(index)
        self.descent = None
        self.active = [self.active[i] for i in index.tolist()]
        self.peak, self.limit = self.peak[index], self.limit[index]
        self.initial_loss = self.initial_loss[index]


def needs_lambda_max(dataset: data.Dataset, family: str, measures: Mapping[str, Scheduled]) -> bool:
    """Say whether a pack looks for lambda_max at init.

    All do but those that predict a symbol at every position, unless it is measured or scales their learning
    rates: the search is worth over a thousand mini-batches there, and Adam knows no critical learning rate.
    """
    return dataset.vocabulary is None or family == "sgd" or not measures.keys().isdisjoint(_SEARCHING)


def optimizer_of(
    sections: Mapping[str, Any], model: nn.Module, cells: Sequence[Cell], lr: Float[Tensor, "cell"]
) -> Any:
    """Return the optimizer of a pack, as its settings name it."""
    return instantiate.call("optimizer", sections["optimizer"], model=model, cells=cells, lr=lr)
