r"""A chain of dense layers whose backward pass is written out.

Autograd allocates every activation and every gradient anew at each step, and a gradient as large as the
weights only to add it to them. Here buffers are made once, an elementwise function works in place where its
derivative allows, and a weight's gradient is handed over as the two factors whose product it is, so that
gradient descent can add it to the weight without forming it.

With p_l = x_{l-1} W_l, z_l = m_l p_l + m'_l b_l, x_l = phi(z_l) and D_l = dL/dp_l, where m and m' are the
multipliers of the parameterization, one number per cell::

    dL/dW_l = x_{l-1}^T D_l
    dL/db_l = m'_l sum_samples D_l / m_l
    D_{l-1} = m_{l-1} (D_l W_l^T) * phi'(z_{l-1})

Between homogeneous functions and without biases only the product of all m matters: see :func:`postponed`.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from runner.layers.activation import Nonlinearity
from runner.layers.base import per_cell
from runner.layers.dense import Linear
from runner.layers.lowering import common_factor

_MODERATE = 2.0**20
"""Factor by which features may be off while others are kept back: far from what float32 cannot hold."""


class Product(NamedTuple):
    """The gradient of a weight, ``factor * left @ right``; who receives it may overwrite both.

    Attributes:
        left: The layer's inputs, transposed.
        right: Gradient with respect to what the weight returned, but for the factor.
        factor: The same for all cells.
    """

    left: Float[Tensor, "cell fan_in sample"]
    right: Float[Tensor, "cell sample fan_out"]
    factor: float


class DenseChain:
    """Layers with one nonlinearity between any two, for inputs of one shape.

    Holds the layers as they are: after their cells have been selected anew, make another chain.

    Args:
        layers: Of an initialized ensemble, from the inputs on.
    """

    def __init__(self, layers: Sequence[Linear], function: Nonlinearity, samples: int) -> None:
        self._function = function
        self._names = [layer.name for layer in layers]
        # The same memory, so that what changes in place is seen here.
        self._weights = [layer.weight.detach() for layer in layers]
        self._biases = [layer.bias.detach() if layer.has_bias else None for layer in layers]
        # Where phi is homogeneous its constant is moved into the multipliers: one pass less per layer.
        gains = [function.gain] * (len(layers) - 1) + [1.0]

        def scales(name: str) -> list[Tensor]:
            factors = [getattr(layer, f"{name}_multiplier", torch.ones(1)) for layer in layers]
            return [per_cell(factor * gain, 3) for factor, gain in zip(factors, gains, strict=True)]

        scale = scales("weight")
        if function.homogeneous and not any(layer.has_bias for layer in layers):
            scale = postponed(scale)
        self._scales = [common_factor(factor) for factor in scale]
        self._bias_scales = scales("bias")

        self._before = [self._room(weight, samples) for weight in self._weights]
        inner = self._weights[:-1]
        self._after = self._before if function.from_value else [self._room(one, samples) for one in inner]
        self._gradients = [self._room(weight, samples) for weight in inner]
        self._inputs: Tensor | None = None

    @staticmethod
    def _room(weight: Float[Tensor, "cell fan_in fan_out"], rows: int) -> Float[Tensor, "cell row fan_out"]:
        """Memory for what a layer returns."""
        return weight.new_empty(weight.shape[0], rows, weight.shape[2])

    def forward(self, x: Float[Tensor, "#cell sample features"]) -> Float[Tensor, "cell sample output"]:
        """Return the outputs, in a buffer that the next call overwrites.

        Args:
            x: Inputs of the first layer; kept until :meth:`backward`.
        """
        x = self._inputs = x.expand(self._before[0].shape[0], -1, -1)
        for place, weight in enumerate(self._weights):
            factor, scale = self._scales[place]
            z = self._before[place]
            if place and weight.shape[2] == 1:
                # oneDNN takes twice as long for a single column; the gradients are not needed yet.
                products = torch.mul(x, (weight * factor).mT, out=self._gradients[place - 1])
                torch.sum(products, 2, keepdim=True, out=z)
            else:
                z.baddbmm_(x, weight, beta=0, alpha=factor)
            if scale is not None:
                z.mul_(scale)
            if (bias := self._biases[place]) is not None:
                z.add_(self._bias_scales[place] * bias.unsqueeze(1))
            if place < len(self._gradients):
                x = self._after[place]
                self._function.write(z, x)
        return self._before[-1]

    def backward(
        self, gradient: Float[Tensor, "cell sample output"]
    ) -> Iterator[tuple[str, Tensor | Product]]:
        """Yield the path and the gradient of every parameter, from the outputs on.

        When a layer's gradients are yielded, its weight is not needed any more and may be changed.
        """
        for place in reversed(range(len(self._weights))):
            if self._biases[place] is not None:
                summed = gradient.sum(1, keepdim=True)
                yield f"{self._names[place]}.bias", (summed * self._bias_scales[place])[:, 0]
            factor, scale = self._scales[place]
            right = gradient if scale is None else gradient.mul_(scale)
            if place:
                gradient, inputs = self._pull(place, right, factor), self._after[place - 1]
            else:
                assert self._inputs is not None
                inputs = self._inputs
            yield f"{self._names[place]}.weight", Product(inputs.mT, right, factor)

    def _pull(self, place: int, right: Float[Tensor, "cell sample fan_out"], factor: float) -> Tensor:
        """Return D of the layer before, given that of a layer."""
        gradient, weight = self._gradients[place - 1], self._weights[place].mT
        if weight.shape[1] == 1:
            torch.mul(right if factor == 1 else right * factor, weight, out=gradient)
        else:
            gradient.baddbmm_(right, weight, beta=0, alpha=factor)
        self._function.pull(gradient, self._before[place - 1], self._after[place - 1])
        return gradient


def postponed(scales: Sequence[Float[Tensor, "cell 1 1"]]) -> list[Float[Tensor, "cell 1 1"]]:
    """Move positive factors past homogeneous functions to later layers, while numbers stay moderate.

    A product without a factor is up to a tenth faster. Where factors are kept back features are larger or
    smaller than they should be, but never by more than ``_MODERATE``.

    Args:
        scales: Of every layer, from the inputs on.

    Returns:
        The same number of factors, of the same product, most of them 1.
    """
    kept, carried = [], torch.ones_like(scales[0])
    for place, scale in enumerate(scales):
        carried = carried * scale
        moderate = bool(((carried > 1 / _MODERATE) & (carried < _MODERATE)).all())
        if moderate and place < len(scales) - 1:
            kept.append(torch.ones_like(scale))
        else:
            kept.append(carried)
            carried = torch.ones_like(scale)
    return kept
