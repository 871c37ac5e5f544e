r"""First and second derivatives of a plain chain of dense layers, at a pass that was recorded.

With z_l = m_l A_l W_l what layer l returns, A_{l+1} = phi(z_l) what the next is given, m_l the multipliers of
the parameterization and S_l = m_{l+1} phi'(z_l) the slopes behind a layer, a change of the layers' outputs is
carried to those of the network, and a gradient D on those back to every layer, by::

    u_{l+1} = (u_l * S_l) W_{l+1} + change_{l+1}
    D_l     = (D_{l+1} W_{l+1}^T) * S_l

Autograd finds the same numbers with twice as many passes over memory, and forward mode would evaluate the
network anew for every product.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from runner.layers.base import Call, Layer, per_cell
from runner.layers.dense import Linear
from runner.numerics.precision import batch_product, dense_batch

Outputs = Float[Tensor, "cell sample output"]
Direction = Mapping[str, Float[Tensor, "cell ..."]]
"""Path of every parameter to the part of a direction that belongs to it."""


def is_chain(tape: list[Call], outputs: Tensor) -> bool:
    """Say whether a pass was one dense layer after the other with elementwise functions between them."""
    return (
        all(type(call.layer) is Linear and call.inputs.dim() == 3 for call in tape)
        and len({call.layer for call in tape}) == len(tape)
        and all(this.elementwise and next_.inputs is this.features for this, next_ in pairwise(tape))
        and tape[-1].outputs is outputs
    )


def slopes_behind(call: Call, above: Layer, *, twice: bool = False) -> Float[Tensor, "cell sample unit"]:
    """Return S, the derivative of an elementwise function where it was evaluated, times the multiplier above.

    Args:
        call: Of the layer before the function, with its graph.
    """
    assert call.features is not None
    if call.slopes is not None and not twice:
        return _scaled(call.slopes(), above)
    # Of a sum: with a gradient to begin from, torch first imports a symbolic algebra, a third of a second.
    slopes = torch.autograd.grad(call.features.sum(), call.outputs, retain_graph=True, create_graph=twice)[0]
    if twice and not slopes.requires_grad:  # of a linear function
        slopes = torch.zeros_like(slopes)
    elif twice:
        slopes = torch.autograd.grad(slopes.sum(), call.outputs, retain_graph=True, materialize_grads=True)[0]
    return _scaled(slopes, above)


def _scaled(slopes: Tensor, above: Layer) -> Tensor:
    return slopes * above.scale("weight", torch.ones_like(slopes[:, :1, :1]))


class ChainDerivatives:
    """Products with the Jacobian J of a chain's outputs with respect to its parameters, and with a Hessian.

    Args:
        tape: A recorded pass that :func:`is_chain`, with its graph.
    """

    def __init__(
        self, tape: list[Call], weights: Mapping[Layer, Float[Tensor, "cell fan_in fan_out"]]
    ) -> None:
        self._tape = tape
        self._layers = [call.layer for call in tape]
        self._inputs = [call.inputs.detach() for call in tape]
        self._above = [weights[layer] for layer in self._layers[1:]]
        self._slopes = [slopes_behind(*pair) for pair in zip(tape[:-1], self._layers[1:], strict=True)]

    def push(self, direction: Direction) -> Outputs:
        """Return J times a direction."""
        return _last(self._forward(self._changes(direction)))

    def pull(self, vector: Outputs, into: Direction) -> None:
        """Write J^T times a vector."""
        for layer, inputs, rows in zip(self._layers, self._inputs, self._backward(vector), strict=True):
            _write(layer, [(inputs, layer.scale("weight", rows))], rows, into)

    def kernel_product(
        self, columns: int | None = None
    ) -> Callable[[Float[Tensor, "cell column output"]], Outputs]:
        """Return what multiplies the lr-weighted tangent kernel J D J^T by one vector per cell.

        A product is a pass backward and one forward, with ``change_l = k_l A_l A_l^T D_l``, where k_l is the
        factor of the layer's learning rate.

        Args:
            columns: Vectors are on so many samples, the first; on all of them by default.
        """
        paired = [_pairing(call, columns) for call in self._tape]

        def product(vector: Tensor) -> Tensor:
            rows = self._backward(vector)[::-1]
            return _last(self._forward(pair(rows.pop()) for pair in paired))

        return product

    def hessian_product(
        self, gradient: Outputs, curvature: Callable[[Outputs], Outputs]
    ) -> Callable[[Direction, Direction], None]:
        r"""Return what multiplies the Hessian of a function L of the outputs by a direction.

        The derivative of a gradient ``m_l A_l^T D_l`` in a direction V, with u_l the change of the layers'
        outputs, is ``(u_{l-1} * S_{l-1})^T D_l + m_l A_l^T D'_l``, where::

            D'_l = (D'_{l+1} W_{l+1}^T + D_{l+1} V_{l+1}^T) * S_l + (D_{l+1} W_{l+1}^T) * S'_l * u_l

        Args:
            curvature: Multiplies a change of the outputs by the second derivative of L.

        Returns:
            Takes a direction and where to write the product.

        References:
            Pearlmutter (1994), "Fast exact multiplication by the Hessian", Neural Computation 6.
        """
        rows = self._backward(gradient)
        bends: list[Tensor | None] = []
        for place, above in enumerate(self._above):
            bend = slopes_behind(self._tape[place], self._layers[place + 1], twice=True)
            bends.append(batch_product(rows[place + 1], above.mT).mul_(bend) if bool(bend.any()) else None)

        def product(direction: Direction, into: Direction) -> None:
            moved: list[Tensor] = []
            changed = list(self._forward(self._changes(direction), moved))
            turned = curvature(changed[-1])
            for place in reversed(range(len(self._layers))):
                layer = self._layers[place]
                factors = [(self._inputs[place], layer.scale("weight", turned))]
                if place:
                    factors.append((moved[place - 1], rows[place]))
                _write(layer, factors, turned, into)
                if place:
                    step = direction[f"{layer.name}.weight"]
                    turned = torch.baddbmm(
                        batch_product(rows[place], step.mT), turned, self._above[place - 1].mT
                    )
                    turned = turned.mul_(self._slopes[place - 1])
                    if (bend := bends[place - 1]) is not None:
                        turned = turned.addcmul_(bend, changed[place - 1])

        return product

    def _changes(self, direction: Direction) -> Iterator[Tensor]:
        """What a direction alone does to the outputs of each layer."""
        for layer, inputs in zip(self._layers, self._inputs, strict=True):
            changed = layer.scale("weight", batch_product(inputs, direction[f"{layer.name}.weight"]))
            if layer.has_bias:
                changed += layer.scale("bias", direction[f"{layer.name}.bias"]).unsqueeze(1)
            yield changed

    def _forward(self, changes: Iterable[Tensor], moved: list[Tensor] | None = None) -> Iterator[Tensor]:
        """Carry changes of the layers' outputs forward: in place, or keeping each and its product with S."""
        carried: Tensor | None = None
        for place, change in enumerate(changes):
            if carried is not None:
                slope = self._slopes[place - 1]
                carried = carried.mul_(slope) if moved is None else carried * slope
                if moved is not None:
                    moved.append(carried)
                change = torch.baddbmm(change, carried, self._above[place - 1])
            carried = change
            yield change

    def _backward(self, vector: Float[Tensor, "cell column output"]) -> list[Tensor]:
        """Carry a vector on the outputs, of the first samples, back; one entry per layer."""
        rows = [vector]
        for weight, slope in zip(reversed(self._above), reversed(self._slopes), strict=True):
            rows.append(batch_product(rows[-1], weight.mT).mul_(slope[:, : vector.shape[1]]))
        return rows[::-1]


def _last(tensors: Iterator[Tensor]) -> Tensor:
    """Return the last, holding none of the others."""
    return deque(tensors, maxlen=1).pop()


def _write(layer: Layer, factors: list[tuple[Tensor, Tensor]], rows: Tensor, into: Direction) -> None:
    """Write the sum of ``left^T right`` as the weight's part, and what rows are for the bias."""
    weight = dense_batch(into[f"{layer.name}.weight"])
    for place, (left, right) in enumerate(factors):
        left = left.expand(len(weight), -1, -1).mT
        weight.baddbmm_(left, right, beta=min(place, 1))
    if layer.has_bias:
        into[f"{layer.name}.bias"].copy_(layer.scale("bias", rows.sum(1)))


def _pairing(call: Call, columns: int | None) -> Callable[[Tensor], Tensor]:
    """Return what multiplies rows by the lr-weighted inner products of a dense layer's inputs."""
    layer, inputs = call.layer, call.inputs.detach()
    factor = per_cell(layer.kernel_factor("weight"), 3)
    bias = per_cell(layer.kernel_factor("bias"), 3) if layer.has_bias else 0.0
    others = inputs[:, :columns].mT
    samples, features = inputs.shape[1:]
    if samples * others.shape[2] <= (samples + others.shape[2]) * features:
        gram = batch_product(inputs, others) * factor + bias
        return lambda rows: batch_product(gram, rows)

    def pair(rows: Tensor) -> Tensor:
        paired = batch_product(inputs, batch_product(others, rows)).mul_(factor)
        return paired.add_(bias * rows.sum(1, keepdim=True)) if layer.has_bias else paired

    return pair
