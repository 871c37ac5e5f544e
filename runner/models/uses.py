"""How a plain module uses each of its parameters: what is summed over, and what is kept.

One forward pass is followed operation by operation. What is made of parameters alone, a slice, a transpose or
``g v / norm(v)``, stands for all of them; a use is an operation that such a tensor and the sample meet in.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_leaves

from runner.errors import UserError
from runner.models.check import cannot_run
from runner.models.operations import Operations, running
from runner.models.substitutes import substituted


@dataclass(frozen=True, slots=True)
class Use:
    """One use of a parameter.

    Attributes:
        operation: Its name, without namespace.
        fan_in: Numbers summed over for each result; 1 where nothing is.
        fan_out: Numbers of the parameter, or of what was made of it, for each one summed over.
        summed: Whether anything is summed over, if only one number.
        known: Whether it can be told from the operation what is summed over.
        outputs: Numbers that it returned for the sample.
        module: Path of the innermost module that was running.
    """

    operation: str
    fan_in: int
    fan_out: int
    summed: bool
    known: bool
    outputs: int
    module: str


Axes = Callable[[Tensor, Sequence[Any]], float]
"""Numbers summed over for each result, from what stands for a parameter and the operation's arguments."""


def _size(axis: int) -> Axes:
    return lambda weight, _: weight.shape[axis]


def _kernel(weight: Tensor, args: Sequence[Any]) -> float:
    """Of a convolution; a transposed one sums over every stride-th place of its kernel."""
    transposed = args[6]
    if not transposed:
        return weight[0].numel()
    size: float = weight.shape[0] * weight[0, 0].numel() / (args[8] * math.prod(args[3]))
    return size


_SUMS: dict[tuple[str, int], Axes] = {
    ("mm", 0): _size(-1), ("mm", 1): _size(-2), ("bmm", 0): _size(-1), ("bmm", 1): _size(-2),
    ("addmm", 1): _size(-1), ("addmm", 2): _size(-2), ("baddbmm", 1): _size(-1), ("baddbmm", 2): _size(-2),
    ("mv", 0): _size(-1), ("mv", 1): _size(-1), ("addmv", 1): _size(-1), ("addmv", 2): _size(-1),
    ("dot", 0): _size(-1), ("dot", 1): _size(-1), ("convolution", 1): _kernel,
}  # fmt: skip
"""Operations that sum, with the place of the argument."""
_PRODUCTS = {"mm", "bmm", "addmm", "baddbmm", "mv", "addmv", "dot"}
_PICKS = {"embedding", "index", "index_select", "gather"}
_EACH = {
    "add", "add_", "addcmul", "sub", "rsub", "mul", "mul_", "div", "pow", "maximum", "minimum", "where",
    "cat", "stack", "addmm", "addmv", "baddbmm", "convolution", "native_layer_norm", "native_group_norm",
    "native_batch_norm", "_native_batch_norm_legit_no_training", "_fused_rms_norm", "_prelu_kernel", "copy_",
    "index_put", "lerp",
}  # fmt: skip
"""Operations in which a number of the parameter meets one number of the sample."""


@dataclass(frozen=True)
class Followed:
    """What was seen in a forward pass.

    Attributes:
        uses: Name of every parameter to its uses, in their order; names of one parameter are told apart.
        called: Paths of all submodules, in the order of their first calls.
        recurrent: Those that are recurrent networks of torch.
    """

    uses: dict[str, list[Use]]
    called: tuple[str, ...]
    recurrent: frozenset[str] = frozenset()

    @property
    def convolved(self) -> int:
        """Multiplications of the sample by the kernels of convolutions."""
        return self._multiplied(lambda use: use.operation == "convolution")

    @property
    def recurred(self) -> int:
        """Multiplications in recurrent networks."""
        return self._multiplied(lambda use: use.module in self.recurrent)

    def _multiplied(self, among: Callable[[Use], bool]) -> int:
        used = [use for uses in self.uses.values() for use in uses if use.summed]
        return sum(use.outputs * use.fan_in for use in used if among(use))


def follow(module: nn.Module, sample: Tensor) -> Followed:
    """Follow a forward pass of one sample.

    Args:
        sample: With the axis of a batch, of which it is the only one.

    Raises:
        UserError: If the module cannot be called, or its parameters or buffers change when it is.
    """
    state = {
        name: value.detach().double().clone()
        for name, value in module.named_parameters(remove_duplicate=False)
    }
    buffers = {
        name: (value.double() if value.is_floating_point() else value).clone()
        for name, value in module.named_buffers()
    }
    before = {name: value.clone() for name, value in buffers.items()}
    try:
        following = _called(module, state, buffers, sample)
    except Exception as error:
        raise cannot_run(tuple(sample.shape[1:]), error) from error
    now = dict(module.named_parameters(remove_duplicate=False))
    if now.keys() != state.keys():
        changed = sorted(now.keys() ^ state.keys())[0]
        raise UserError(
            f"model.module must have the same parameters at every call, got {changed} at some only; "
            "make them in __init__"
        )
    for name, value in buffers.items():
        if not torch.equal(value, before[name]):
            raise UserError(
                f"model.module must not change when it is called, got a new value of its buffer {name}: "
                "its output would depend on samples that came before; leave it out, or put it in eval mode"
            )
    recurrent = (path for path, part in module.named_modules() if isinstance(part, nn.RNNBase))
    return Followed(following.uses, tuple(following.called), frozenset(recurrent))


def _called(
    module: nn.Module, state: Mapping[str, Tensor], buffers: Mapping[str, Tensor], sample: Tensor
) -> "_Following":
    with running(module) as (stack, called):
        following = _Following(state, sample, stack, called)
        with torch.no_grad(), substituted(), following:
            functional_call(module, {**state, **buffers}, (sample,), tie_weights=False)
    return following


class _Following(Operations):
    """Records uses."""

    def __init__(
        self, state: Mapping[str, Tensor], sample: Tensor, stack: Sequence[str], called: Mapping[str, None]
    ) -> None:
        super().__init__()
        self.uses: dict[str, list[Use]] = {name: [] for name in state}
        self._stack, self.called = stack, called
        self._made_of = {id(value): {name} for name, value in state.items()}
        self._met = {id(sample)}
        self._kept: list[object] = [state, sample]  # an id is of a tensor only while that lives

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        returned = func(*args, **(kwargs or {}))
        name = self.name_of(func)
        results = [value for value in tree_leaves(returned) if isinstance(value, Tensor)]
        given = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        self._kept.append((given, results))
        if any(id(value) in self._met for value in given):
            self._record(name, args, given, results)
            self._met |= {id(value) for value in results}
            return returned
        sources = [value for value in given if id(value) in self._made_of]
        if name in _PRODUCTS and id(given[-1]) in self._made_of:
            # What it multiplies, a constant or made of parameters, goes on as a sample would.
            self._record(name, args, given[-1:], results)
            sources = [value for value in given[:-1] if id(value) in self._made_of]
        made = set().union(*(self._made_of[id(value)] for value in sources))
        for value in results if made else ():
            self._made_of[id(value)] = self._made_of.get(id(value), set()) | made
        return returned

    def _record(
        self, name: str, args: Sequence[Any], given: Iterable[Tensor], results: Sequence[Tensor]
    ) -> None:
        places = {id(value): place for place, value in enumerate(args) if isinstance(value, Tensor)}
        for value in given:
            place = places.get(id(value), 0)
            summed = _SUMS.get((name, place))
            fan_in = 1.0 if summed is None else summed(value, args)
            size = value[0].numel() if name in _PICKS and place == 0 and value.dim() else value.numel()
            use = Use(
                name, max(1, round(fan_in)), max(1, round(size / fan_in)), summed is not None,
                summed is not None or name in _EACH or name in _PICKS or value.dim() < 2,
                results[0].numel() if results else 0, self._stack[-1] if self._stack else "",
            )  # fmt: skip
            for parameter in self._made_of.get(id(value), ()):
                self.uses[parameter].append(use)
