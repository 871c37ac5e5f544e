"""Elementwise nonlinearities, with their derivatives."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from runner.errors import unknown
from runner.layers.base import Layer, hidden, recording
from runner.layers.gains import gains_are_in_weights
from runner.layers.lowered import CannotLower, Value
from runner.layers.lowering import Lowering

_ATEN = torch.ops.aten


@dataclass(frozen=True)
class Nonlinearity:
    """An elementwise function phi(z) = gain * psi(z), and how a gradient is pulled back through psi.

    Attributes:
        value: phi, for autograd.
        write: ``write(z, out)`` writes psi(z).
        pull: ``pull(gradient, z, a)`` multiplies a gradient by psi'(z) in place, given z and a = psi(z).
        from_value: Whether psi' follows from a alone: then z may be overwritten by a.
        homogeneous: Whether psi(c z) = c psi(z) for c > 0, so that factors can be moved past it.
        gain: Constant factor; not 1 only of a homogeneous function.
        without_gain: psi, for autograd, where the gain is not 1.
    """

    value: Callable[[Tensor], Tensor]
    write: Callable[[Tensor, Tensor], object]
    pull: Callable[[Tensor, Tensor, Tensor], object]
    from_value: bool = True
    homogeneous: bool = False
    gain: float = 1.0
    without_gain: Callable[[Tensor], Tensor] = torch.clone


def _pull_erf(gradient: Tensor, z: Tensor, a: Tensor) -> None:
    gradient.mul_(z.square_().neg_().exp_()).mul_(2 / math.sqrt(math.pi))


ACTIVATIONS = {
    "relu": Nonlinearity(
        lambda x: torch.relu(x) * math.sqrt(2),
        lambda z, out: torch.clamp_min(z, 0, out=out),
        lambda gradient, z, a: _ATEN.threshold_backward.grad_input(gradient, a, 0, grad_input=gradient),
        homogeneous=True,
        gain=math.sqrt(2),
        without_gain=torch.relu,
    ),
    "gelu": Nonlinearity(
        nn.functional.gelu,
        lambda z, out: _ATEN.gelu.out(z, out=out),
        lambda gradient, z, a: _ATEN.gelu_backward.grad_input(gradient, z, grad_input=gradient),
        from_value=False,
    ),
    "tanh": Nonlinearity(
        torch.tanh,
        lambda z, out: torch.tanh(z, out=out),
        lambda gradient, z, a: _ATEN.tanh_backward.grad_input(gradient, a, grad_input=gradient),
    ),
    "erf": Nonlinearity(torch.erf, lambda z, out: torch.erf(z, out=out), _pull_erf, from_value=False),
    "linear": Nonlinearity(
        lambda x: x, lambda z, out: out, lambda gradient, z, a: gradient, homogeneous=True
    ),
}


class Activation(nn.Module):
    """An elementwise nonlinearity; what it returns are the features of the layer before it.

    Args:
        name: ``relu`` (times sqrt 2, so that it keeps the second moment), ``gelu``, ``tanh``, ``erf`` or
            ``linear``.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        if name not in ACTIVATIONS:
            raise unknown("model.activation", name, ACTIVATIONS)
        self.name = name
        self.function = ACTIVATIONS[name]
        self._feeds = False

    def feeds(self, *layers: object) -> None:
        """Declare which layers' weights multiply what it returns, all of them.

        Then its gain can be left to them, see :func:`runner.layers.gains_in_weights`.
        """
        self._feeds = True
        for layer in layers:
            assert isinstance(layer, Layer)
            layer.gain = self.function.gain

    def forward(self, x: Float[Tensor, "cell sample ..."]) -> Float[Tensor, "cell sample ..."]:
        """Apply the function."""
        function, gain = self.function.value, self.function.gain
        if self._feeds and gain != 1 and gains_are_in_weights():
            function, gain = self.function.without_gain, 1.0
        returned = function(x)
        if not recording():
            return returned
        return hidden(returned, x, partial(self._slopes, x.detach(), returned.detach(), gain))

    def _slopes(self, z: Tensor, returned: Tensor, gain: float) -> Tensor:
        """Return gain * psi'(z), given also gain * psi(z)."""
        slopes = torch.full_like(z, gain)
        a = returned if gain == 1 else returned / gain
        self.function.pull(slopes, z if self.function.from_value else z.clone(), a)
        return slopes

    def lower(
        self, lowering: Lowering, x: Value, onto: Value | None = None, factor: Tensor | None = None
    ) -> Value:
        """Add the function to compiled steps; its gain is left to the layers that it feeds."""
        if onto is not None or factor is not None or (self.function.gain != 1 and not self._feeds):
            raise CannotLower
        return lowering.curve(x, self.name)
