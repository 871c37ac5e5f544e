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
from torch import nn

from runner import baselines, data, layers
from runner.errors import UserError
from runner.grid.cell import Cell
from runner.measures import requirements
from runner.measures.consistency import check_layers
from runner.measures.schedule import scheduled
from runner.models import build, check
from runner.numerics import losses
from runner.training.checkpoint import Checkpoint
from runner.training.record import PackTables
from runner.training.run import Run, optimizer_of

_REPORT_SECONDS = 0.2


@dataclass(frozen=True)
class PackShape:
    """What the planner needs to know of a cell.

    Attributes:
        parameters: Trainable parameters.
        train_size: Training samples.
        test_size: Test samples.
        probe_size: Samples that kernels are measured on.
        inputs: Input features.
        outputs: Network outputs.
        activations: Numbers that the layers return for one sample.
        flops_per_step: 6 * multiplications * batch: forward, and backward for weights and for inputs.
    """

    parameters: int
    train_size: int
    test_size: int
    probe_size: int
    inputs: int
    outputs: int
    activations: int
    flops_per_step: float


def resolve_device(name: str, shard: int = 0) -> torch.device:
    """Return the device for ``auto``, ``cpu`` or ``cuda``.

    Args:
        name: Which of these.
        shard: Where there are several GPUs, shards take them in turn.

    Raises:
        UserError: If CUDA is asked for and absent.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "device must be available, got 'cuda' on a machine without a CUDA device; use device=cpu or auto"
        )
    if name == "cuda" and (count := torch.cuda.device_count()) > 1:
        return torch.device(name, shard % count)
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
        optimizer_of(sections, nn.Module(), [cell], torch.ones(1))
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
    train_size, test_size, probe_size = (len(split) for split in (dataset.train, dataset.test, dataset.probe))
    if batch_size is not None and batch_size > train_size:
        raise UserError(
            f"batch_size must be at most data.train_size = {train_size}, got {batch_size}; "
            "use batch_size=null for full batch"
        )
    inputs = dataset.train.inputs[0].numel()
    if baseline := baselines.baseline_of(sections["model"]):
        baselines.check(baseline, dataset, width, depth)
        return PackShape(0, train_size, test_size, probe_size, inputs, dataset.outputs, 0, 0.0)
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
    return PackShape(
        count, train_size, test_size, probe_size, inputs, dataset.outputs, size.activations, flops
    )


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
) -> tuple[Run, int, float]:
    """Return the pack, the step to go on from and the seconds that it took to get there."""
    run = Run(cells, sections, dataset, device)
    state = checkpoint.load() if checkpoint else None
    if state is None:
        return run, 0, 0.0
    # What measures keep from the start is made again, by all cells of the start, hence to the same bits.
    run.measure(0)
    try:
        run.restore(state)
    except (KeyError, ValueError, TypeError, IndexError, RuntimeError):  # not of this code: start over
        return Run(cells, sections, dataset, device), 0, 0.0
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
