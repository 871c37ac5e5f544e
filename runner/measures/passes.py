"""A forward pass that remembers its layers' calls, with the graph that their gradients follow from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.func import functional_call

from runner import layers


class Pass(NamedTuple):
    """A recorded pass.

    Attributes:
        tape: Calls of the layers, in order.
        outputs: What the network returned.
        leaves: Parameters by path.
        weights: Those of them that are a layer's weight, by layer.
    """

    tape: list[layers.Call]
    outputs: Float[Tensor, "cell sample output"]
    leaves: dict[str, Tensor]
    weights: dict[layers.Layer, Tensor]


def forward(
    model: nn.Module, parameters: Mapping[str, Tensor], x: Shaped[Tensor, "#cell sample *inputs"]
) -> Pass:
    """Return a pass whose outputs, and those of its layers, can be differentiated.

    Args:
        model: An initialized ensemble.
        parameters: Path to parameter.
        x: Samples.
    """
    leaves = {path: value.detach().requires_grad_() for path, value in parameters.items()}
    with torch.enable_grad(), layers.record() as tape:
        outputs = functional_call(model, leaves, (x,))
    weights = {
        layer: leaves[path].detach()
        for path, _, _, layer in layers.parameters_of(model)
        if path.rpartition(".")[2] == "weight"
    }
    return Pass(tape, outputs, leaves, weights)
