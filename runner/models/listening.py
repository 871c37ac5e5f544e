"""What the submodules of a plain module are given and return while it runs."""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_unflatten

from runner.models.operations import Operations

_SOFTMAX = ("_softmax", "_safe_softmax")
_MASKED = -1e30
"""Logits below are those of a mask: minus infinity, or the smallest number that there is."""


@dataclass(frozen=True, slots=True)
class Event:
    """A call of a submodule, or the end of one whose output is followed.

    Attributes:
        path: Path of the submodule.
        ended: Whether it is the end.
        follows: Whether it was given something else than the call before.
    """

    path: str
    ended: bool
    follows: bool


@dataclass
class Arguments:
    """How a call was made, but for its tensors.

    Attributes:
        spec: Structure of positional and keyword arguments.
        rest: Those that are not tensors, and None in the places of tensors.
        places: The places of tensors.
    """

    spec: TreeSpec
    rest: list[Any]
    places: list[int]

    def __call__(self, tensors: Sequence[Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments with these tensors."""
        leaves = list(self.rest)
        for place, value in zip(self.places, tensors, strict=True):
            leaves[place] = value
        args, kwargs = tree_unflatten(leaves, self.spec)
        return args, kwargs


@dataclass
class Heard:
    """What was heard in one run of one sample; tensors of an event are at its place in ``events``.

    Attributes:
        events: In the order of the beginnings of calls.
        received: The first tensor that each call was given; an output for an end.
        given: All tensors that it was given; none for a layer with a structure.
        returned: Outputs of the calls of layers with a structure, in their order.
        arguments: By path, of its last call.
        inside: Path of the call that runs, if it is one around no others.
    """

    events: list[Event] = field(default_factory=list)
    received: list[Tensor] = field(default_factory=list)
    given: list[list[Tensor]] = field(default_factory=list)
    returned: list[Tensor] = field(default_factory=list)
    arguments: dict[str, Arguments] = field(default_factory=dict)
    inside: str = ""


@contextmanager
def listening(
    module: nn.Module, calls: Collection[str], layers: Collection[str], ends: Collection[str],
    whole: Collection[str], nudges: Sequence[Tensor] | None,
) -> Iterator[Heard]:  # fmt: skip
    """Listen to the submodules at some paths while the module runs.

    Args:
        calls: Paths whose calls are heard.
        layers: Those of them that return one tensor, to which a nudge is added.
        ends: Paths whose outputs are heard.
        whole: Those of ``calls`` around no others.
        nudges: One for each call of ``layers``, in their order.
    """
    heard = Heard()
    handles = []

    def begin(path: str) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            leaves, spec = tree_flatten((args, kwargs))
            places = [place for place, value in enumerate(leaves) if isinstance(value, Tensor)]
            tensors = [leaves[place] for place in places]
            rest = [None if isinstance(value, Tensor) else value for value in leaves]
            heard.arguments[path] = Arguments(spec, rest, places)
            first = tensors[0]
            before = heard.received[-1] if heard.received else None
            heard.events.append(
                Event(path, ended=False, follows=first is not before and first.is_floating_point())
            )
            heard.received.append(first)
            heard.inside = path if path in whole else ""
            heard.given.append([] if path in layers else tensors)

        return hook

    def end(path: str) -> Callable[..., Any]:
        def hook(_: nn.Module, args: Any, output: Any) -> Any:
            if path in layers:
                if nudges is not None:
                    output = output + nudges[len(heard.returned)]
                heard.returned.append(output)
            if path in ends:
                heard.events.append(Event(path, ended=True, follows=False))
                heard.received.append(next(v for v in tree_leaves(output) if isinstance(v, Tensor)))
                heard.given.append([])
            heard.inside = ""
            return output

        return hook

    for path, part in module.named_modules():
        if path in calls:
            handles.append(part.register_forward_pre_hook(begin(path), with_kwargs=True))
        if path in layers or path in ends or path in whole:
            handles.append(part.register_forward_hook(end(path)))
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()


class Logits(Operations):
    """Keeps what softmax is given: the logits of attention.

    Attributes:
        heard: What is heard in the present run.
        found: By the place of the call that they are of: that inside of which they are, or the next one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.heard = Heard()
        self.found: dict[int, list[Tensor]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if self.name_of(func) in _SOFTMAX:
            place = len(self.heard.events) - bool(self.heard.inside)
            self.found.setdefault(place, []).append(args[0].detach())
        return func(*args, **(kwargs or {}))

    def of(self, place: int, cells: int, samples: int) -> Tensor | None:
        """Return the logits of a call, ``[cell, sample, ...]``, not finite where masked; None if it has none.

        What torch batches has the axis of cells first and that of samples second; what runs one after the
        other is as many tensors.
        """
        found = [value.masked_fill(value < _MASKED, -math.inf) for value in self.found.get(place, [])]
        if found and len(found) % (cells * samples) == 0 and found[0].shape[:1] == (1,):
            return torch.stack(found).view(cells, samples, -1)
        parts = [value for value in found if value.shape[:2] == (cells, samples)]
        return torch.cat([value.flatten(2) for value in parts], 2) if parts else None
