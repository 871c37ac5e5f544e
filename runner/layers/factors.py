r"""The factors of every layer's gradient: its inputs A, and the outputs' gradients G at what it returned.

Autograd gives G one output after the other. Where a network is a plain chain of dense layers,
``z_{l+1} = phi(z_l) W_{l+1}``, it follows for all outputs at once::

    G_out = 1,   G_l = (G_{l+1} W_{l+1}^T) * phi'(z_l)

The trace of the kernel sees gradients only through ``sum_k G_k(x)_i G_k(x')_i``. At the last hidden layer,
where ``G_k(x) = W_k * phi'(z(x))``, that sum is a product of two numbers, as if there were one output.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from runner.layers.base import Call, Layer
from runner.layers.derivatives import is_chain, slopes_behind
from runner.numerics.precision import batch_product


class Factors(NamedTuple):
    """What a layer's summand of the tangent kernel follows from; see :meth:`Layer.kernel`.

    Attributes:
        layer: The layer.
        columns: A, as :meth:`Layer.columns` returns it.
        rows: G, as :meth:`Layer.rows` returns it.
    """

    layer: Layer
    columns: Float[Tensor, "#cell sample position fan_in"]
    rows: Float[Tensor, "cell output sample position fan_out"]


def factors(
    tape: list[Call],
    outputs: Float[Tensor, "cell sample output"],
    weights: Mapping[Layer, Float[Tensor, "cell ..."]],
    *,
    full: bool,
) -> Iterator[Factors]:
    """Yield the factors of every layer, in no particular order.

    Args:
        full: Whether every output's gradients are needed, or any whose products have the same sum.
    """
    if is_chain(tape, outputs):
        return _of_chain(tape, weights, full)
    return _of_graph(tape, outputs)


def _of_chain(tape: list[Call], weights: Mapping[Layer, Tensor], full: bool) -> Iterator[Factors]:
    """Backward, all outputs in one product; ``[cell, output, sample, unit]`` if full, else sample first."""
    last = tape[-1]
    cells, samples, count = last.outputs.shape
    if full:
        rows = torch.eye(count, dtype=last.outputs.dtype, device=last.outputs.device)
        rows = rows.view(1, count, 1, 1, count).expand(cells, -1, samples, -1, -1)
    else:
        rows = torch.ones_like(last.outputs)[:, None, :, None]
    yield Factors(last.layer, last.inputs.detach().unsqueeze(2), rows)
    output_axis = 1 if full else 2
    gradients: Tensor | None = None
    for place in reversed(range(len(tape) - 1)):
        call, above = tape[place], tape[place + 1].layer
        slopes, weight = slopes_behind(call, above), weights[above]
        alone = gradients is None and count > 1 and not full
        if alone:
            norms = weight.square().sum(2).sqrt().unsqueeze(1)
            yield Factors(call.layer, call.inputs.detach().unsqueeze(2), (slopes * norms)[:, None, :, None])
            if place == 0:
                return
        if gradients is None:
            gradients = weight.mT.contiguous().unsqueeze(3 - output_axis) * slopes.unsqueeze(output_axis)
        else:
            pulled = batch_product(gradients.flatten(1, 2), weight.mT)
            gradients = pulled.view(*gradients.shape[:3], -1).mul_(slopes.unsqueeze(output_axis))
        if not alone:
            rows = gradients.transpose(1, output_axis).unsqueeze(3)
            yield Factors(call.layer, call.inputs.detach().unsqueeze(2), rows)


def factors_by_output(
    tape: list[Call],
    outputs: Float[Tensor, "cell sample output"],
    picks: Int[Tensor, "picked"],
    among: Collection[Layer],
) -> Iterator[tuple[int, Factors]]:
    """Yield the place in ``picks`` of an output, and the factors of its gradient, output after output.

    All outputs' gradients at once are many times the activations; here a layer's inputs are brought to their
    form once and serve every output.

    Args:
        among: Layers that are asked for, at least one of those on the tape.
    """
    calls = [call for call in tape if call.layer in among]
    targets = [call.outputs for call in calls]
    places: dict[Layer, list[int]] = {}
    for index, call in enumerate(calls):
        places.setdefault(call.layer, []).append(index)
    columns = {
        layer: _side_by_side([layer.columns(calls[index].inputs.detach()) for index in found], 2)
        for layer, found in places.items()
    }
    for place, pick in enumerate(picks.tolist()):
        gradients = torch.autograd.grad(
            outputs[:, :, pick].sum(), targets, retain_graph=True, materialize_grads=True
        )
        for layer, column in columns.items():
            rows = [layer.rows(gradients[found].unsqueeze(1)) for found in places[layer]]
            yield place, Factors(layer, column, _side_by_side(rows, 3))


def _side_by_side(calls: Sequence[Tensor], positions: int) -> Tensor:
    """A layer called again: its gradient is a sum over calls, as it is over positions."""
    if len(calls) == 1:
        return calls[0]
    cells = max(call.shape[0] for call in calls)
    return torch.cat([call.expand(cells, *call.shape[1:]) for call in calls], positions)


def _of_graph(tape: list[Call], outputs: Tensor) -> Iterator[Factors]:
    """By autograd, for one output k after the other; a layer's calls side by side."""
    targets = [call.outputs for call in tape]
    picks = torch.eye(outputs.shape[2], dtype=outputs.dtype, device=outputs.device)
    # A layer may have no part in the outputs: the queries of a single position, for one.
    found = [
        torch.autograd.grad(
            outputs, targets, pick.expand_as(outputs), retain_graph=True, materialize_grads=True
        )
        for pick in picks
    ]
    stacked = [torch.stack(gradients, 1) for gradients in zip(*found, strict=True)]
    del found  # as much again
    calls: dict[Layer, list[tuple[Tensor, Tensor]]] = {}
    for call, gradient in zip(tape, stacked, strict=True):
        columns = call.layer.columns(call.inputs.detach())
        calls.setdefault(call.layer, []).append((columns, call.layer.rows(gradient)))
    for layer, both in calls.items():
        received, passed_back = zip(*both, strict=True)
        yield Factors(layer, _side_by_side(received, 2), _side_by_side(passed_back, 3))
