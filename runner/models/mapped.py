"""One function for many cells or samples: batched by torch, or one after the other."""

import warnings
from collections.abc import Callable, Iterable
from itertools import repeat
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from runner.models.substitutes import substituted
from runner.numerics.outputs import tensor_of

CONVOLVED, RECURRED = 2**26, 2**24
"""Multiplications in convolutions and in recurrent networks, for a cell's batch, that are worth own calls."""


def cells_at_once(convolved: int, recurred: int, samples: int, device: torch.device) -> bool:
    """Say whether cells of a module that can be batched are, or follow one another.

    torch batches convolutions of different kernels as the groups of one convolution. On a CPU that saves the
    calls, but takes up to a third longer than one convolution after the other once there is much to
    multiply. Recurrent networks it does not batch, but has a kernel for all steps of one, faster by as much.
    All other products are as fast batched, or faster. Neither the number of cells nor a clock decides, so
    that a cell is trained in the same way in any pack and at any time. On a GPU calls cost more: all cells
    run at once.

    Args:
        convolved: Multiplications of one sample by kernels of convolutions.
        recurred: Those in recurrent networks.
        samples: In a batch of a cell.
    """
    few = convolved * samples < CONVOLVED and recurred * samples < RECURRED
    return device.type != "cpu" or few


def mapped(
    function: Callable[..., Any], in_dims: tuple[int | None, ...], *, batched: bool
) -> Callable[..., Any]:
    """Return a function of arguments with a leading axis where ``in_dims`` is 0, whose results have one.

    Args:
        in_dims: 0 or None for each argument, which may be nested lists and dicts of tensors.
        batched: Whether by ``torch.func.vmap``; otherwise in a loop.
    """
    if batched:
        return vmap(function, in_dims=in_dims)

    def loop(*args: Any) -> Any:
        places = zip(
            *(_taken_apart(arg, axis) for arg, axis in zip(args, in_dims, strict=True)), strict=False
        )
        results = [function(*place) for place in places]
        return tree_map(_stacked, *results)

    return loop


def _stacked(*values: Tensor) -> Tensor:
    return torch.stack(values)


def _taken_apart(arg: Any, axis: int | None) -> Iterable[Any]:
    """Yield what each call is given, without end where that is the same.

    All at once: the gradient of one place by itself would be as large as the whole.
    """
    if axis is None:
        return repeat(arg)
    leaves, spec = tree_flatten(arg)
    return [tree_unflatten(place, spec) for place in zip(*(leaf.unbind() for leaf in leaves), strict=True)]


def can_be_mapped(module: nn.Module, sample: Tensor) -> bool:
    """Say whether torch can run a module for several cells and samples at once, each operation as one.

    Args:
        sample: With the axis of a batch.
    """
    state = {
        name: torch.stack([value.detach()] * 2).double()
        for name, value in module.named_parameters(remove_duplicate=False)
    }
    buffers = {
        name: value.double() if value.is_floating_point() else value for name, value in module.named_buffers()
    }

    def run(own: dict[str, Tensor], sample: Tensor) -> Tensor | None:
        return tensor_of(functional_call(module, {**own, **buffers}, (sample[None],), tie_weights=False))

    both = vmap(vmap(run, in_dims=(None, 0)), in_dims=(0, None))
    try:
        with torch.no_grad(), warnings.catch_warnings(), substituted():
            warnings.simplefilter("error")  # torch warns where it takes one after the other
            both(state, torch.cat([sample, sample]))
    except (RuntimeError, ValueError, TypeError, IndexError, UserWarning):
        return False
    return True
