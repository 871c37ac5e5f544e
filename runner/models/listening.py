"""What the submodules of a plain module are given and return while it runs."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from runner.numerics.logits import ListenToLogits, Logits
from runner.numerics.outputs import tensor_of

_NOTHING = torch.empty(0)
"""In the place of a tensor where there is none."""


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
        logits: Those of every attention.
        attending: Place in ``events`` of the call that each is of: that inside of which it is, or the next.
    """

    events: list[Event] = field(default_factory=list)
    received: list[Tensor] = field(default_factory=list)
    given: list[list[Tensor]] = field(default_factory=list)
    returned: list[Tensor] = field(default_factory=list)
    arguments: dict[str, Arguments] = field(default_factory=dict)
    inside: str = ""
    logits: list[Logits] = field(default_factory=list)
    attending: list[int] = field(default_factory=list)

    def attend(self, logits: Logits) -> None:
        """Keep the logits of an attention."""
        self.logits.append(logits)
        self.attending.append(len(self.events) - bool(self.inside))


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
            first = tensors[0] if tensors else _NOTHING
            before = heard.received[-1] if heard.received else None
            heard.events.append(
                Event(path, ended=False, follows=first is not before and first.dtype.is_floating_point)
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
                found = tensor_of(output)
                heard.received.append(_NOTHING if found is None else found)
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
        with ListenToLogits(heard.attend):
            yield heard
    finally:
        for handle in handles:
            handle.remove()
