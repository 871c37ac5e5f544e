"""One function for many cells or samples: batched by torch, or one after the other."""

import warnings
from collections.abc import Callable
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.utils._pytree import tree_map, tree_map_only

from runner.models.substitutes import substituted


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
        count = next(
            _length(arg) for arg, axis in zip(args, in_dims, strict=True) if axis == 0 and _length(arg)
        )
        results = [
            function(*(
                arg if axis is None else tree_map_only(Tensor, itemgetter(place), arg)
                for arg, axis in zip(args, in_dims, strict=True)
            ))
            for place in range(count)
        ]  # fmt: skip
        return tree_map(_stacked, *results)

    return loop


def _stacked(*values: Tensor) -> Tensor:
    return torch.stack(values)


def _length(arg: Any) -> int:
    found: list[int] = []
    tree_map_only(Tensor, lambda value: found.append(value.shape[0]), arg)
    return found[0] if found else 0


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

    def run(own: dict[str, Tensor], sample: Tensor) -> Any:
        return tree_map_only(
            Tensor,
            lambda value: value,
            functional_call(module, {**own, **buffers}, (sample[None],), tie_weights=False),
        )

    both = vmap(vmap(run, in_dims=(None, 0)), in_dims=(0, None))
    try:
        with torch.no_grad(), warnings.catch_warnings(), substituted():
            warnings.simplefilter("error")  # torch warns where it takes one after the other
            both(state, torch.cat([sample, sample]))
    except (RuntimeError, ValueError, TypeError, IndexError, UserWarning):
        return False
    return True
