"""What is checked before anything is trained: that data, model, optimizer and measures fit together.

What a key may be by itself is checked where the cell is made, in :mod:`runner.grid.rules`.
"""

import json
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from runner import baselines, data, layers
from runner.data import online
from runner.errors import UserError
from runner.grid import instantiate
from runner.grid.cell import Cell
from runner.measures.consistency import check_layers
from runner.measures.requirements import Setting
from runner.measures.schedule import Scheduled, scheduled
from runner.measures.schedule import check as check_measures
from runner.models import MLP, TorchModule, build, check, has_compiled_form
from runner.models.check import Size
from runner.models.ensemble import Ensemble
from runner.optim import Optimizer, has_compiled_steps
from runner.training import stopping
from runner.training.run import needs_lambda_max, optimizer_of

_SOME = 4
"""Samples on which outputs at init are looked at."""
_TRIED = 1 << 26
"""Parameters of a network that is: a gigabyte for two in float64."""
_CHAIN_CALLS, _CHAIN_PASSES = 15, 12
"""Operations of a step without autograd, per weight matrix, and passes over weights and activations."""
_COMPILED_CALLS, _COMPILED_PASSES = 3, 12
"""The same of one of the steps that compiled code takes in one go, whatever its depth; passes are over
activations alone, and stand for functions, norms and attention."""
_AUTOGRAD_CALLS, _AUTOGRAD_PASSES = 5, 5
"""What a step of autograd is worth, in dispatched operations and in written numbers of a forward pass.
Between 3 and 7 in steps of residual, convolutional and attention networks of 1 to 12 cells on a CPU."""
_CANCELLED = 1e-9
"""How small outputs are, in float64, of which all but rounding cancelled."""


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
        paired: Multiplications that the kernel of a pair of samples takes, of one output.
        positions: Predictions of a sample.
        searched: Whether lambda_max is looked for at init.
        wrapped: Whether the model is a plain torch module.
        optimizer_flops: Of products of matrices in the optimizer's own part of a step.
        evaluations: Gradients that a step takes.
        calls: Operations that a step dispatches.
        passes: Over weights in a step, beside the products; without autograd over activations, too.
        written: Numbers that a step of autograd writes for one sample, as measures take it where steps are
            compiled; 0 of a perceptron.
        compiled: Whether compiled code takes steps.
    """

    parameters: int
    train_size: int
    test_size: int
    probe_size: int
    inputs: int
    outputs: int
    activations: int
    flops_per_step: float
    paired: int = 0
    positions: int = 1
    searched: bool = True
    wrapped: bool = False
    optimizer_flops: float = 0.0
    evaluations: float = 1.0
    calls: int = 15
    passes: int = 12
    written: int = 0
    compiled: bool = False


def resolve_device(name: str, shard: int = 0) -> torch.device:
    """Return the device that a name stands for.

    Args:
        name: ``auto``, ``cpu`` or ``cuda``.
        shard: Number of the shard: shards take several GPUs in turn.

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
    if cell.symmetric_init and cell.width % 2:
        raise UserError(
            f"width must be even with symmetric_init=true, got {cell.width}; units start in pairs"
        )
    if not baselines.baseline_of(sections["model"]):
        # Without layers there is nothing to update: this checks the settings against the cell.
        optimizer_of(sections, nn.Module(), [cell], torch.ones(1))
    shape = _inspect(*(getattr(cell, name) for name in ("settings", "width", "depth", "loss", "batch_size")))
    for name, measure in _measures(cell.settings).items():
        for require in measure.declared.requires_cell:
            require(name, cell)
    # Of a network too large to be tried out its own training tells.
    small = shape.parameters < _TRIED
    if cell.symmetric_init and small and not baselines.baseline_of(sections["model"]):
        _require_zero(cell, sections)
    return shape


@lru_cache(maxsize=4096)
def _measures(settings: str) -> dict[str, Scheduled]:
    return scheduled(json.loads(settings)["measure"])


def _require_zero(cell: Cell, sections: dict[str, Any]) -> None:
    """Raise UserError if the pairs of ``symmetric_init`` do not cancel in a model."""
    dataset, device = data.load(sections["data"]), torch.device("cpu")
    both = [replace(cell, dtype="float64", symmetric_init=pairs) for pairs in (True, None)]
    networks = Ensemble(both, sections["model"], dataset, device)
    with torch.no_grad():
        paired, other = networks.model(networks.inputs["probe"][:, :_SOME]).abs().flatten(1).amax(1).tolist()
    if not paired <= _CANCELLED * other:
        raise UserError(
            f"symmetric_init must make the outputs 0 at init, got {paired:.2g}, {other:.2g} without it: the "
            "halves of every layer must be able to trade places, also in attention (one head, or an even "
            "number of them), and no readout be tied; leave it out, or use center_output=true"
        )


@lru_cache(maxsize=4096)
def _inspect(settings: str, width: int, depth: int, loss: str, batch_size: int | None) -> PackShape:
    sections = json.loads(settings)
    dataset = data.load(sections["data"])
    if loss == "cross_entropy" and dataset.task == "regression":
        raise UserError(
            "loss must be mse for a regression task, got 'cross_entropy'; use loss=mse or another data set"
        )
    if loss == "mse" and dataset.vocabulary is not None:
        raise UserError(
            "loss must be cross_entropy where a symbol is predicted at every position, got 'mse'; "
            "use loss=cross_entropy or another data set"
        )
    train_size, test_size, probe_size = (len(split) for split in (dataset.train, dataset.test, dataset.probe))
    fresh = online.is_online(sections["data"])
    if fresh:
        online.check(sections["data"], dataset, batch_size)
    elif batch_size is not None and batch_size > train_size:
        raise UserError(
            f"batch_size must be at most data.train_size = {train_size}, got {batch_size}; "
            "use batch_size=null for full batch"
        )
    stopping.check(sections.get("stop", {}), dataset)
    inputs = dataset.train.inputs[0].numel()
    if baseline := baselines.baseline_of(sections["model"]):
        baselines.check(baseline, dataset, width, depth)
        return PackShape(0, train_size, test_size, probe_size, inputs, dataset.outputs, 0, 0.0)
    model = build(
        sections["model"], width=width, depth=depth, inputs=dataset.input_shape, outputs=dataset.outputs
    )
    size = check(model, dataset)
    check_layers(model, dataset)
    setting = Setting(dataset, sections["optimizer"], loss, batch_size, fresh, sections["model"])
    measures = scheduled(sections["measure"])
    check_measures(measures, setting)
    optimizer = instantiate.resolve("optimizer", sections["optimizer"])
    family = getattr(optimizer, "family", "sgd")
    of_optimizer = getattr(optimizer, "flops", Optimizer.flops)
    count = layers.parameter_count(model)
    compiled = has_compiled_steps(optimizer, sections["optimizer"]) and has_compiled_form(
        model, dataset.train.inputs[0]
    )
    flops = 6.0 * size.multiplications * (batch_size or train_size)
    return PackShape(
        count, train_size, test_size, probe_size, inputs, dataset.outputs, size.activations, flops,
        size.paired, dataset.positions, needs_lambda_max(dataset, family, measures),
        isinstance(model, TorchModule),
        sum(of_optimizer(spec) for _, spec, _, _ in layers.parameters_of(model)),
        getattr(optimizer, "evaluations", Optimizer.evaluations),
        *_dispatched(model, size, compiled),
        compiled,
    )  # fmt: skip


def _dispatched(model: nn.Module, size: Size, compiled: bool) -> tuple[int, int, int]:
    """Return the operations and passes of a step, and what those of autograd write for one sample.

    Args:
        compiled: Whether compiled code takes steps.
    """
    written = 0 if type(model) is MLP else _AUTOGRAD_PASSES * size.written
    if compiled:
        return _COMPILED_CALLS, _COMPILED_PASSES, written
    if type(model) is not MLP:
        return _AUTOGRAD_CALLS * size.calls, _CHAIN_PASSES, written
    matrices = sum(spec.role != "vector" for _, spec, _, _ in layers.parameters_of(model))
    return _CHAIN_CALLS * matrices, _CHAIN_PASSES, 0
