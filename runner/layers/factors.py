r"""The factors of every layer's gradient: its inputs A, and the outputs' gradients G at what it returned.

Autograd gives G one output after the other. Where a network is a plain chain of dense layers,
``z_{l+1} = phi(z_l) W_{l+1}``, it follows for all outputs at once::

    G_out = 1,   G_l = (G_{l+1} W_{l+1}^T) * phi'(z_l)

The trace of the kernel sees gradients only through ``sum_k G_k(x)_i G_k(x')_i``. At the last hidden layer,
where ``G_k(x) = W_k * phi'(z(x))``, that sum is a product of two numbers, as if there were one output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from runner.layers.base import Call, Layer, per_cell
from runner.layers.dense import Linear


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
        tape: A recorded pass, with its graph.
        outputs: What it returned.
        weights: Of the layers, in that pass.
        full: Whether every output's gradients are needed, or any whose products have the same sum.
    """
    if is_chain(tape, outputs):
        return _of_chain(tape, weights, full)
    return _of_graph(tape, outputs)


def is_chain(tape: list[Call], outputs: Tensor) -> bool:
    """Say whether a pass was one dense layer after the other with elementwise functions between them."""
    return (
        all(type(call.layer) is Linear and call.inputs.dim() == 3 for call in tape)
        and len({call.layer for call in tape}) == len(tape)
        and all(this.elementwise and next_.inputs is this.features for this, next_ in pairwise(tape))
        and tape[-1].outputs is outputs
    )


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
        slopes, weight = _slopes(call, above), weights[above]
        alone = gradients is None and count > 1 and not full
        if alone:
            norms = weight.square().sum(2).sqrt().unsqueeze(1)
            yield Factors(call.layer, call.inputs.detach().unsqueeze(2), (slopes * norms)[:, None, :, None])
            if place == 0:
                return
        if gradients is None:
            gradients = weight.mT.contiguous().unsqueeze(3 - output_axis) * slopes.unsqueeze(output_axis)
        else:
            pulled = gradients.flatten(1, 2) @ weight.mT
            gradients = pulled.view(*gradients.shape[:3], -1).mul_(slopes.unsqueeze(output_axis))
        if not alone:
            rows = gradients.transpose(1, output_axis).unsqueeze(3)
            yield Factors(call.layer, call.inputs.detach().unsqueeze(2), rows)


def _slopes(call: Call, above: Layer) -> Tensor:
    """Derivative of an elementwise function where it was evaluated, times the multiplier above it."""
    assert call.features is not None
    # Of a sum: with a gradient to begin from, torch first imports a symbolic algebra, a third of a second.
    slopes = torch.autograd.grad(call.features.sum(), call.outputs, retain_graph=True)[0]
    return slopes * above.scale("weight", torch.ones_like(slopes[:, :1, :1]))


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
        columns, rows = both[0]
        if len(both) > 1:
            # A layer called again: its gradient is a sum over calls, as it is over positions.
            columns = torch.cat([c.expand(rows.shape[0], -1, -1, -1) for c, _ in both], 2)
            rows = torch.cat([r for _, r in both], 3)
        yield Factors(layer, columns, rows)


class ChainJacobian:
    """Products with the Jacobian J of a chain's outputs with respect to its parameters.

    With S_l the slopes behind layer l, a change of the outputs of layers is carried to those of the network
    by ``u_l = (u_{l-1} * S_{l-1}) W_l + change_l``, and a vector on those back to every layer by
    ``d_{l-1} = (d_l W_l^T) * S_{l-1}``.

    Args:
        tape: A recorded pass that :func:`is_chain`, with its graph.
        weights: Of the layers, in that pass.
    """

    def __init__(
        self, tape: list[Call], weights: Mapping[Layer, Float[Tensor, "cell fan_in fan_out"]]
    ) -> None:
        self._tape = tape
        layers = [call.layer for call in tape]
        self._above = [weights[layer] for layer in layers[1:]]
        self._slopes = [_slopes(call, layer) for call, layer in zip(tape[:-1], layers[1:], strict=True)]

    def push(self, direction: Mapping[str, Float[Tensor, "cell ..."]]) -> Float[Tensor, "cell sample output"]:
        """Return J times a direction.

        Args:
            direction: Path of every parameter to its part.
        """

        def change(call: Call) -> Tensor:
            layer = call.layer
            changed = layer.scale("weight", call.inputs.detach() @ direction[f"{layer.name}.weight"])
            if layer.has_bias:
                changed += layer.scale("bias", direction[f"{layer.name}.bias"]).unsqueeze(1)
            return changed

        return self._forward(map(change, self._tape))

    def kernel_product(
        self, columns: int | None = None
    ) -> Callable[[Float[Tensor, "cell column output"]], Float[Tensor, "cell sample output"]]:
        """Return what multiplies the lr-weighted tangent kernel J D J^T by one vector per cell.

        A product is a pass backward and one forward, with ``change_l = k_l A_l A_l^T d_l``, where k_l is the
        factor of the layer's learning rate.

        Args:
            columns: Vectors are on so many samples, the first; on all of them by default.
        """
        paired = [_pairing(call, columns) for call in self._tape]
        slopes = [slope[:, :columns] for slope in self._slopes]

        def product(vector: Tensor) -> Tensor:
            rows = [vector]
            for weight, slope in zip(reversed(self._above), reversed(slopes), strict=True):
                rows.append((rows[-1] @ weight.mT).mul_(slope))
            return self._forward(pair(row) for pair, row in zip(paired, reversed(rows), strict=True))

        return product

    def _forward(self, changes: Iterator[Tensor]) -> Tensor:
        """Carry changes of the layers' outputs, from the first on, to those of the network."""
        pushed = next(changes)
        for change, weight, slope in zip(changes, self._above, self._slopes, strict=True):
            pushed = torch.baddbmm(change, pushed.mul_(slope), weight)
        return pushed


def _pairing(call: Call, columns: int | None) -> Callable[[Tensor], Tensor]:
    """Return what multiplies rows by the lr-weighted inner products of a dense layer's inputs."""
    layer, inputs = call.layer, call.inputs.detach()
    factor = per_cell(layer.kernel_factor("weight"), 3)
    bias = per_cell(layer.kernel_factor("bias"), 3) if layer.has_bias else 0.0
    others = inputs[:, :columns].mT
    samples, features = inputs.shape[1:]
    if samples * others.shape[2] <= (samples + others.shape[2]) * features:
        gram = (inputs @ others) * factor + bias
        return lambda rows: gram @ rows

    def pair(rows: Tensor) -> Tensor:
        paired = (inputs @ (others @ rows)).mul_(factor)
        return paired.add_(bias * rows.sum(1, keepdim=True)) if layer.has_bias else paired

    return pair
