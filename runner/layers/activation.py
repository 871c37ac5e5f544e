"""Elementwise nonlinearities."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from runner.errors import unknown
from runner.layers.base import hidden


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

    def forward(self, x: Float[Tensor, "cell sample ..."]) -> Float[Tensor, "cell sample ..."]:
        """Apply the function."""
        return hidden(self.function(x))


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": lambda x: torch.relu(x) * math.sqrt(2),
    "gelu": nn.functional.gelu,
    "tanh": torch.tanh,
    "erf": torch.erf,
    "linear": lambda x: x,
}
