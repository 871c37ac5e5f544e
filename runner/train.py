"""Training one pack: many cells as one ensemble, measured at log-spaced steps."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from runner import baselines, data, instantiate, layers, losses
from runner.cell import Cell
from runner.checkpoint import Checkpoint, State
from runner.data.order import BatchOrder
from runner.ensemble import Ensemble, take
from runner.errors import UserError
from runner.measures import Snapshot, lambda_max, requirements
from runner.measures.consistency import check_layers
from runner.measures.schedule import scheduled
from runner.models import build, check
from runner.record import PackTables, Recorder

DIVERGED_LOSS_RATIO = 1e6
"""A loss this many times its start counts as diverged: far above any catapult, which peaks near the width."""

_REPORT_SECONDS = 0.2


@dataclass(frozen=True)
class PackShape:
    """What the planner needs to know of a cell.

    Attributes:
        parameters: Trainable parameters.
        train_size: Training samples.
        inputs: Input features.
        outputs: Network outputs.
        activations: Numbers that the layers return for one sample.
        flops_per_step: 6 * multiplications * batch: forward, and backward for weights and for inputs.
    """

    parameters: int
    train_size: int
    inputs: int
    outputs: int
    activations: int
    flops_per_step: float


def resolve_device(name: str) -> torch.device:
    """Return the device for ``auto``, ``cpu`` or ``cuda``.

    Raises:
        UserError: If CUDA is asked for and absent.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "device must be available, got 'cuda' on a machine without a CUDA device; use device=cpu or auto"
        )
    return torch.device(name)


def inspect(cell: Cell) -> PackShape:
    """Return the shape of a cell's pack, having checked everything that could fail before training.

    Args:
        cell: Any cell of the pack, or one for each `lr_unit` and parameterization in it.

    Raises:
        UserError: If data, model, optimizer or measures do not fit together.
    """
    sections = json.loads(cell.settings)
    if not baselines.baseline_of(sections["model"]):
        # Without layers there is nothing to update: this checks the settings against the cell.
        _optimizer(sections, nn.Module(), [cell], torch.ones(1))
    return _inspect(*(getattr(cell, name) for name in ("settings", "width", "depth", "loss", "batch_size")))


@lru_cache(maxsize=4096)
def _inspect(settings: str, width: int, depth: int, loss: str, batch_size: int | None) -> PackShape:
    sections = json.loads(settings)
    dataset = data.load(sections["data"])
    if depth < 1:
        raise UserError(
            f"depth must be an integer >= 1, got {depth}; the model has at least one hidden layer"
        )
    if loss not in losses.LOSSES:
        raise UserError(f"loss must be one of {', '.join(sorted(losses.LOSSES))}, got {loss!r}")
    if loss == "cross_entropy" and dataset.task == "regression":
        raise UserError(
            "loss must be mse for a regression task, got 'cross_entropy'; use loss=mse or another data set"
        )
    train_size = len(dataset.train)
    if batch_size is not None and batch_size > train_size:
        raise UserError(
            f"batch_size must be at most data.train_size = {train_size}, got {batch_size}; "
            "use batch_size=null for full batch"
        )
    inputs = dataset.train.inputs[0].numel()
    if baseline := baselines.baseline_of(sections["model"]):
        baselines.check(baseline, dataset, width, depth)
        return PackShape(0, train_size, inputs, dataset.outputs, 0, 0.0)
    model = build(
        sections["model"], width=width, depth=depth, inputs=dataset.input_shape, outputs=dataset.outputs
    )
    size = check(model, dataset)
    check_layers(model, dataset)
    requirements.check(
        scheduled(sections["measure"]),
        requirements.Setting(dataset, sections["optimizer"], loss, batch_size),
    )
    count = layers.parameter_count(model)
    flops = 6.0 * size.multiplications * (batch_size or train_size)
    return PackShape(count, train_size, inputs, dataset.outputs, size.activations, flops)


def _optimizer(sections: Mapping[str, Any], model: nn.Module, cells: Sequence[Cell], lr: Tensor) -> Any:
    return instantiate.call("optimizer", sections["optimizer"], model=model, cells=cells, lr=lr)


def train_pack(
    cells: Sequence[Cell],
    device: torch.device,
    on_progress: Callable[[int, int], None] | None = None,
    checkpoint: Checkpoint | None = None,
) -> PackTables:
    """Train the cells of a pack together and measure them on the way.

    A cell whose loss is not finite, or beyond ``DIVERGED_LOSS_RATIO`` times its start, is retired with that
    step recorded; the others go on.

    Args:
        cells: Cells with one ``pack_key``.
        device: Where to train.
        on_progress: Called with (steps done, cells diverged so far) now and then.
        checkpoint: Where an earlier training of this pack was left, if it was, and where to leave this one.

    Returns:
        One row per cell, in the order given, and the rows of ``trace`` and ``layers``.

    Raises:
        UserError: If the cells ask for something that does not exist.
        Stopped: If the checkpoint's owner was told to stop.
    """
    began = time.perf_counter()
    sections = json.loads(cells[0].settings)
    if baselines.baseline_of(sections["model"]):
        return baselines.fit_pack(cells, device)
    dataset = data.load(sections["data"])
    run, first, before = _begin(cells, sections, dataset, device, checkpoint)
    measured = measuring_steps(cells[0].steps, sections["measure"].get("points", 12))
    reported = began
    for step in range(first, cells[0].steps + 1):
        if checkpoint:
            checkpoint.visit(step, lambda step=step: run.state(step, before + time.perf_counter() - began))  # type: ignore[misc]
        if step in measured:
            run.measure(step)
        now = time.perf_counter()
        if on_progress and (step in measured or now - reported > _REPORT_SECONDS):
            on_progress(step, len(cells) - len(run.active))
            reported = now
        if step == cells[0].steps or not run.active:
            break
        run.advance(step)
    run.recorder.peak(run.active, run.peak)
    return run.recorder.tables((before + time.perf_counter() - began) / len(cells), device)


def _begin(
    cells: Sequence[Cell],
    sections: Mapping[str, Any],
    dataset: data.Dataset,
    device: torch.device,
    checkpoint: Checkpoint | None,
) -> tuple[_Run, int, float]:
    """Return the pack, the step to go on from and the seconds that it took to get there."""
    run = _Run(cells, sections, dataset, device)
    state = checkpoint.load() if checkpoint else None
    if state is None:
        return run, 0, 0.0
    # What measures keep from the start is made again, by all cells of the start, hence to the same bits.
    run.measure(0)
    try:
        run.restore(state)
    except (KeyError, ValueError, TypeError, IndexError, RuntimeError):  # not of this code: start over
        return _Run(cells, sections, dataset, device), 0, 0.0
    return run, state.step, state.seconds


def measuring_steps(steps: int, points: int) -> list[int]:
    """Return the measured steps: 0, the last, and log-spaced ones between.

    Args:
        steps: Steps of the run.
        points: How many at most, at least 2.
    """
    count = points - 1 if points > 2 else 0
    spaced = torch.logspace(0, math.log10(steps), count, dtype=torch.float64).round()
    return sorted({0, steps, *(int(value) for value in spaced.tolist() if value < steps)})


class _Run:
    """A pack in training: the ensemble, its start, and which cells are still in it."""

    def __init__(
        self, cells: Sequence[Cell], sections: Mapping[str, Any], dataset: data.Dataset, device: torch.device
    ) -> None:
        self.shape = cells[0]
        self.loss = losses.LOSSES[self.shape.loss]
        self.measures = scheduled(sections["measure"])
        # Cells that differ in lr or gamma alone start alike: what is measured at init is measured once.
        starts = {(c.exponents, c.base_width, c.seed): i for i, c in reversed(list(enumerate(cells)))}
        order = {key: k for k, key in enumerate(starts)}
        index = torch.tensor([order[c.exponents, c.base_width, c.seed] for c in cells], device=device)
        self.ensemble = Ensemble([cells[i] for i in starts.values()], sections["model"], dataset, device)
        self.start = Snapshot(self.ensemble, 0, keep=True)
        lambda_init = lambda_max(self.start, self.start).trace["lambda_max"]
        for split in self.ensemble.inputs:
            self.start.raw_outputs(split)
        for measure in self.measures.values():
            measure.function(self.start, self.start)
        self.ensemble.select(index)
        self.ensemble.cells = list(cells)
        self.start.select(index)
        if self.shape.center_output:
            self.ensemble.center({split: self.start.raw_outputs(split) for split in self.ensemble.inputs})

        lambda_init = lambda_init[index].double()
        swept = torch.tensor([c.lr for c in cells], dtype=torch.float64, device=device)
        sharp = torch.tensor([c.lr_unit == "sharpness" for c in cells], device=device)
        rate = torch.where(sharp, swept / lambda_init, swept)
        self.ensemble.lr = rate
        self.optimizer = _optimizer(sections, self.ensemble.model, cells, rate)
        # lambda_max is a scale of the learning rate for gradient descent alone.
        descends = getattr(self.optimizer, "family", "sgd") == "sgd"
        self.batches = None
        if self.shape.batch_size is not None:
            seeds = [cell.seed for cell in cells]
            self.batches = BatchOrder(seeds, len(dataset.train), self.shape.batch_size, device)

        self.active = list(range(len(cells)))
        self.initial_loss = self.loss(self.start.outputs("train"), self.ensemble.targets["train"])
        self.peak = torch.ones_like(self.initial_loss)
        self.recorder = Recorder(
            [layer.name for layer in layers.layers_of(self.ensemble.model)],
            [layer.role for layer in layers.layers_of(self.ensemble.model)],
            cells,
            {
                "lr_absolute": rate.tolist(),
                "lr_sharpness": (rate * lambda_init).tolist() if descends else [None] * len(cells),
                "lambda_max_init": lambda_init.tolist(),
                "initial_train_loss": self.initial_loss.tolist(),
                "parameters": [layers.parameter_count(self.ensemble.model)] * len(cells),
            },
        )

    def advance(self, step: int) -> None:
        """Take one optimizer step and retire the cells that diverged at it."""
        index = self.batches.next() if self.batches else None
        raw = self.ensemble.model(take(self.ensemble.inputs["train"], index))
        f = self.ensemble.function(raw, "train", index)
        loss = self.loss(f, take(self.ensemble.targets["train"], index))
        parameters = list(self.ensemble.parameters.values())
        # Cells do not interact, so the gradient of the sum is each cell's own.
        gradients = torch.autograd.grad(loss.sum(), parameters)
        self.optimizer.step(parameters, gradients)
        self._watch(loss.detach(), step)

    def measure(self, step: int) -> None:
        """Measure every cell that is still training."""
        now = Snapshot(self.ensemble, step) if step else self.start
        train_loss = self.loss(now.outputs("train"), self.ensemble.targets["train"])
        if self._watch(train_loss, step):
            if not self.active:
                return
            now = Snapshot(self.ensemble, step)
            train_loss = self.loss(now.outputs("train"), self.ensemble.targets["train"])
        trace = {"train_loss": train_loss}
        trace["test_loss"] = self.loss(now.outputs("test"), self.ensemble.targets["test"])
        if self.ensemble.classification:
            for split in ("train", "test"):
                trace[f"{split}_error"] = losses.error_rate(now.outputs(split), self.ensemble.targets[split])
        if step == 0:
            trace |= lambda_max(now, now).trace
        per_layer: dict[str, Mapping[str, Tensor]] = {}
        for measure in self.measures.values():
            if measure.due(step, self.shape.steps):
                measured = measure.function(now, self.start)
                trace |= measured.trace
                per_layer |= measured.layers
        self.recorder.add(step, self.active, trace, per_layer)

    def state(self, step: int, seconds: float) -> State:
        """Return all that is needed to go on from here, on top of the cells."""
        parts = {"model": self.ensemble.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        if self.batches:
            parts["batches"] = self.batches.state_dict()
        tensors = {
            f"{part}/{name}": value for part, values in parts.items() for name, value in values.items()
        }
        return State(step, seconds, self.active, self.recorder.rows(), tensors | {"peak": self.peak})

    def restore(self, state: State) -> None:
        """Go back to a state; raises where it is not one of this pack."""
        kept = [self.active.index(cell) for cell in state.active]
        self._select(torch.tensor(kept, dtype=torch.int64, device=self.peak.device))
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "optimizer": {}, "batches": {}}
        for name, value in state.tensors.items():
            if name != "peak":
                part, _, rest = name.partition("/")
                parts[part][rest] = value.to(self.peak.device)
        self.ensemble.model.load_state_dict(parts["model"])
        self.optimizer.load_state_dict(parts["optimizer"])
        if self.batches:
            self.batches.load_state_dict(parts["batches"])
        self.peak = state.tensors["peak"].to(self.peak)
        self.recorder.restore(state.rows)

    def _watch(self, loss: Float[Tensor, "cell"], step: int) -> bool:
        """Follow the peak of the loss; retire cells beyond the limit and say whether there were any."""
        ratio = torch.where(loss.isfinite(), loss / self.initial_loss, torch.inf)
        self.peak = torch.maximum(self.peak, ratio)
        bad = ~(ratio <= DIVERGED_LOSS_RATIO)
        if not bool(bad.any()):
            return False
        self._retire(bad, step)
        return True

    def _retire(self, bad: Bool[Tensor, "cell"], step: int) -> None:
        for position in bad.nonzero()[:, 0].tolist():
            self.recorder.diverged(self.active[position], step, float(self.peak[position]))
        self._select((~bad).nonzero()[:, 0])

    def _select(self, index: Int[Tensor, "kept"]) -> None:
        for part in (self.ensemble, self.start, self.optimizer, self.batches):
            if part is not None:
                part.select(index)
        self.active = [self.active[i] for i in index.tolist()]
        self.peak, self.initial_loss = self.peak[index], self.initial_loss[index]
