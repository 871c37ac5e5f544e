"""A training problem of one cell as numbers, for rivals that must not see this package."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmark.training import run_of
from runner import layers
from runner.grid.cell import Cell
from runner.training.preflight import inspect
from runner.training.run import Run

Arrays = dict[str, np.ndarray[Any, np.dtype[np.float32]]]


@dataclass(frozen=True)
class Problem:
    """What a rival trains: gradient descent on ``sum (f - y)^2 / (2 samples)``, f = h - h at init.

    The multipliers m of the parameterization are not there. ``m w`` takes their weights' place and ``m^2 lr``
    that of their learning rates, which is the same network in every step and as fast as it can be written.
    So are the factors of the relus.

    Attributes:
        net: ``mlp``, ``cnn`` or ``transformer``.
        depth: Hidden layers or blocks.
        heads: Of the transformer.
        logit_factor: What multiplies the logits of its attention.
        weights: By path, as this package lays them out: matrices (fan_in, fan_out), kernels (out, in, y, x).
        rates: Learning rates, likewise.
        inputs: Of the first layer.
        targets: y, (sample, output).
        flops: Of a step of one cell.
    """

    net: str
    depth: int
    heads: int
    logit_factor: float
    weights: Arrays
    rates: dict[str, float]
    inputs: np.ndarray[Any, np.dtype[np.float32]]
    targets: np.ndarray[Any, np.dtype[np.float32]]
    flops: float


def problem_of(cell: Cell) -> Problem:
    """Return the problem of a cell that is trained by plain gradient descent on full batches."""
    run = run_of([cell])
    model: Any = run.ensemble.model
    net = type(model).__name__.lower()
    slots = {slot.path: slot for slot in run.optimizer.slots}
    weights, rates = {}, {}
    for path, _, parameter, layer in layers.parameters_of(model):
        factor = float(getattr(layer, f"{path.rpartition('.')[2]}_multiplier"))
        if path.startswith("hidden."):
            factor *= model.activation.function.gain
        weights[path] = (parameter[0].detach() * factor).numpy().copy()
        rates[path] = -float(slots[path].minus_lr) * factor**2
    with layers.record() as tape, torch.no_grad():
        model(run.ensemble.inputs["train"])
    heads, logit_factor = 0, 0.0
    if net == "transformer":
        attention = model.blocks[0].attention
        heads = attention.heads
        logit_factor = float(attention.logit_factor) / (cell.width / heads) ** 0.5
    return Problem(
        net, cell.depth, heads, logit_factor, weights, rates, tape[0].inputs[0].numpy().copy(),
        run.ensemble.targets["train"][0].numpy().copy(), inspect(cell).flops_per_step,
    )  # fmt: skip


def losses(cell: Cell, steps: int) -> list[float]:
    """Return this package's loss before each of some steps of one cell."""
    run = run_of([cell])
    found = []
    for step in range(steps):
        found.append(float(run.loss(run.ensemble.function(_raw(run), "train"), _targets(run))))
        run.advance(step)
    return found


def worst_difference(found: Sequence[float], truth: Sequence[float]) -> float:
    """Return the largest relative difference of losses."""
    return max(abs(one - other) / abs(other) for one, other in zip(found, truth, strict=True))


def _raw(run: Run) -> torch.Tensor:
    with torch.no_grad():
        raw: torch.Tensor = run.ensemble.model(run.ensemble.inputs["train"])
    return raw


def _targets(run: Run) -> torch.Tensor:
    return run.ensemble.targets["train"]
