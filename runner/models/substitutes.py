"""Plain equivalents of what torch has no batching rule or no second derivative for.

Inside :func:`substituted` a module runs as it is written, but for these functions and for the kernel of
attention, which is torch's own mathematical one.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

Cell = Callable[[Tensor, tuple[Tensor, ...], Sequence[Any]], tuple[Tensor, ...]]
"""From the input's part of the gates, the state, and its weight, bias or None, projection, to the next."""


@contextmanager
def substituted() -> Iterator[None]:
    """Run torch's functions by their plain equivalents."""
    with sdpa_kernel(SDPBackend.MATH), _Substitutes():
        yield


class _Substitutes(TorchFunctionMode):
    """Calls the plain equivalent of a function that has one."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return _PLAIN.get(func, func)(*args, **(kwargs or {}))


def bilinear(one: Tensor, other: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return ``one^T W_k other + b_k`` for every output k."""
    pairs = (one.unsqueeze(-1) * other.unsqueeze(-2)).flatten(-2)
    return nn.functional.linear(pairs, weight.flatten(1), bias)


def weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """Return g v / norm(v), the norm over all axes but one; over all for -1."""
    axes = [axis for axis in range(v.dim()) if axis != dim % v.dim() or dim == -1]
    return v * (g / v.square().sum(axes, keepdim=True).sqrt())


def _recurrent(states: int, cell: Cell) -> Callable[..., Any]:
    """A recurrent network of torch, layer by layer and step by step."""

    def run(
        x: Tensor, start: Tensor | tuple[Tensor, ...], weights: Sequence[Tensor], bias: bool, layers: int,
        dropout: float, train: bool, bidirectional: bool, batch_first: bool,
    ) -> Any:  # fmt: skip
        if (
            dropout and train and layers > 1
        ):  # drawn as torch draws it, which is refused where it is no function
            raise RuntimeError("vmap: called random operation while in randomness error mode")
        begin = start if isinstance(start, tuple) else (start,)
        steps = x.transpose(0, 1) if batch_first else x
        per = len(weights) // (layers * (2 if bidirectional else 1))
        ends: list[tuple[Tensor, ...]] = []
        for _ in range(layers):
            sides = []
            for side in range(2 if bidirectional else 1):
                place = len(ends)
                own = weights[place * per : (place + 1) * per]
                outputs, end = _layer(cell, steps, tuple(part[place] for part in begin), own, bias, side)
                sides.append(outputs)
                ends.append(end)
            steps = torch.cat(sides, -1) if bidirectional else sides[0]
        last = tuple(torch.stack(parts) for parts in zip(*ends, strict=True))
        return (steps.transpose(0, 1) if batch_first else steps, *last[:states])

    return run


def _layer(
    cell: Cell, steps: Tensor, state: tuple[Tensor, ...], weights: Sequence[Tensor], bias: bool, backward: int
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """One direction of one layer: what it returns at every step, and the state that it ends in."""
    given, of_state, *rest = weights
    biases, projection = rest[: 2 * bias], rest[2 * bias :]
    gates = nn.functional.linear(steps, given, biases[0] if bias else None)
    own = [of_state, biases[1] if bias else None, *projection]
    outputs = []
    for gate in gates.flip(0) if backward else gates:
        state = cell(gate, state, own)
        outputs.append(state[0])
    return torch.stack(outputs[::-1] if backward else outputs), state


def _simple(function: Callable[[Tensor], Tensor]) -> Cell:
    def cell(gate: Tensor, state: tuple[Tensor, ...], own: Sequence[Any]) -> tuple[Tensor, ...]:
        return (function(gate + nn.functional.linear(state[0], own[0], own[1])),)

    return cell


def _gru(gate: Tensor, state: tuple[Tensor, ...], own: Sequence[Any]) -> tuple[Tensor, ...]:
    r, z, n = gate.chunk(3, -1)
    r_of, z_of, n_of = nn.functional.linear(state[0], own[0], own[1]).chunk(3, -1)
    kept = (z + z_of).sigmoid()
    fresh = (n + (r + r_of).sigmoid() * n_of).tanh()
    return (fresh + kept * (state[0] - fresh),)


def _lstm(gate: Tensor, state: tuple[Tensor, ...], own: Sequence[Any]) -> tuple[Tensor, ...]:
    gates = gate + nn.functional.linear(state[0], own[0], own[1])
    i, f, g, o = gates.chunk(4, -1)
    memory = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
    outputs = o.sigmoid() * memory.tanh()
    return (nn.functional.linear(outputs, own[2]) if len(own) > 2 else outputs, memory)


_PLAIN: dict[Any, Callable[..., Any]] = {
    torch.bilinear: bilinear,
    nn.functional.bilinear: bilinear,
    torch._weight_norm: weight_norm,
    torch.lstm: _recurrent(2, _lstm),
    torch.gru: _recurrent(1, _gru),
    torch.rnn_tanh: _recurrent(1, _simple(torch.tanh)),
    torch.rnn_relu: _recurrent(1, _simple(torch.relu)),
}
