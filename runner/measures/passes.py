"""A forward pass that remembers its layers' calls, with the graph that their gradients follow from."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.func import functional_call

from runner import layers


class Pass(NamedTuple):
    """A recorded pass.

    Attributes:
        tape: Calls of the layers that have parameters, in order.
        calls: The same, and the places that are followed without having any.
        outputs: What the network returned.
        leaves: Parameters by path.
        weights: Those of them that are a layer's weight, by layer.
    """

    tape: list[layers.Call]
    calls: list[layers.Call]
    outputs: Float[Tensor, "cell sample output"]
    leaves: dict[str, Tensor]
    weights: dict[layers.Layer, Tensor]


def forward(
    model: nn.Module,
    parameters: Mapping[str, Tensor],
    x: Shaped[Tensor, "#cell sample *inputs"],
    *,
    factored: bool = True,
) -> Pass:
    """Return a pass whose outputs, and those of its layers, can be differentiated.

    Args:
        factored: Whether those of layers will be, sample by sample.
    """
    leaves = {path: value.detach().requires_grad_() for path, value in parameters.items()}
    with torch.enable_grad(), layers.record(factored=factored) as calls:
        outputs = functional_call(model, leaves, (x,))
    weights = {
        layer: leaves[path].detach()
        for path, _, _, layer in layers.parameters_of(model)
        if path.rpartition(".")[2] == "weight"
    }
    tape = [call for call in calls if call.layer.specs]
    return Pass(tape, calls, outputs, leaves, weights)


def jacobian_product(passed: Pass) -> Callable[[Mapping[str, Tensor]], Float[Tensor, "cell sample output"]]:
    """Return what multiplies the Jacobian of the outputs by a direction, given as path to tensor.

    Args:
        passed: Recorded pass at whose parameters the Jacobian is taken; it serves every product.
    """
    if layers.is_chain(passed.tape, passed.outputs):
        return layers.ChainDerivatives(passed.tape, passed.weights).push
    # J^T v is linear in v, so its derivative in the direction u is J u. Forward mode would evaluate the
    # network anew for every product, and imports a compiler first: a second in every process.
    probe = torch.zeros_like(passed.outputs, requires_grad=True)
    pulled = torch.autograd.grad(passed.outputs, list(passed.leaves.values()), probe, create_graph=True)

    def product(direction: Mapping[str, Tensor]) -> Tensor:
        parts = [direction[path] for path in passed.leaves]
        return torch.autograd.grad(pulled, probe, parts, retain_graph=True)[0]

    return product
