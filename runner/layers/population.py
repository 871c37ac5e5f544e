"""The cells of a model: drawing, listing and choosing them."""

import copy
import math
from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from runner.grid.cell import Cell
from runner.layers.base import Layer, per_cell
from runner.layers.opaque import Mark
from runner.layers.specs import ParameterSpec


def layers_of(model: nn.Module) -> list[Layer]:
    """Return the model's layers that have parameters, in the order of its definition."""
    return [module for module in model.modules() if isinstance(module, Layer) and module.specs]


def followed(model: nn.Module) -> list[Layer]:
    """Return the layers that have rows of their own in a table: those with parameters, and marks."""
    return [
        module
        for module in model.modules()
        if isinstance(module, Layer) and (module.specs or isinstance(module, Mark))
    ]


def parameters_of(model: nn.Module) -> Iterator[tuple[str, ParameterSpec, nn.Parameter, Layer]]:
    """Yield (path, description, parameter, layer) of every parameter of every layer."""
    for path, module in model.named_modules():
        if isinstance(module, Layer):
            for name, spec in module.specs.items():
                yield f"{path}.{name}", spec, getattr(module, name), module


def kernel_weights(model: nn.Module) -> dict[str, Float[Tensor, "cell ..."]]:
    """Return every parameter's weight k r^(-c) in the lr-weighted kernel, shaped to multiply its gradient."""
    return {
        path: per_cell(getattr(layer, f"{path.rpartition('.')[2]}_kernel_weight"), parameter.dim())
        for path, _, parameter, layer in parameters_of(model)
    }


def parameter_count(model: nn.Module) -> int:
    """Return the number of trainable parameters of one cell."""
    return sum(math.prod(spec.shape) for _, spec, _, _ in parameters_of(model))


def initialize(model: nn.Module, cells: Sequence[Cell], dtype: torch.dtype, device: torch.device) -> None:
    """Give every layer its cells: parameters drawn from the cell's seed, factors from its parameterization.

    A parameter is drawn in float64 on the CPU from a stream named by the seed and the parameter's path, so
    that a cell starts the same in any pack, dtype and device, and in every parameterization up to scale.

    Args:
        cells: One entry per cell of the pack.
    """
    like = torch.empty(0, dtype=dtype, device=device)
    for path, module in model.named_modules():
        if isinstance(module, Layer):
            module.name = path
            module.populate(cells, like)


def allocate(model: nn.Module, count: int, device: str, dtype: torch.dtype = torch.float32) -> None:
    """Give every layer room for so many cells, full of ones; on ``meta``, shapes without memory or values."""
    _replace(model, lambda value: torch.ones(count, *value.shape[1:], device=device, dtype=dtype))


def select(model: nn.Module, index: Int[Tensor, "kept"]) -> None:
    """Keep only the cells at ``index``, in that order; parameters become new leaves."""
    _replace(model, lambda value: value[index])


def some(model: nn.Module, index: Int[Tensor, "kept"]) -> nn.Module:
    """Return a model of the cells at ``index``, in that order; the one given keeps all of them."""
    replaced = [
        value
        for layer in layers_of(model)
        for value in (*layer.parameters(recurse=False), *layer.buffers(recurse=False))
    ]
    # What the selection will replace is not copied.
    part = copy.deepcopy(model, {id(value): value for value in replaced})
    select(part, index)
    return part


def _replace(model: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
    """Change what every layer keeps per cell: its parameters and its factors."""
    for layer in model.modules():
        if isinstance(layer, Layer):
            for name, parameter in list(layer.named_parameters(recurse=False)):
                layer.register_parameter(name, nn.Parameter(change(parameter.detach())))
            for name, buffer in list(layer.named_buffers(recurse=False)):
                layer.register_buffer(name, change(buffer), persistent=False)
