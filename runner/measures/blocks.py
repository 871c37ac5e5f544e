"""How far residual branches are from their linearization."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, jvp

from runner.layers import Branch, Layer
from runner.measures.movement import moved
from runner.measures.snapshot import Measurement, Snapshot

_ROUNDING = 64
"""Units of rounding of what a branch returns, below which a distance is none."""


def branch_linearization_error(now: Snapshot, start: Snapshot) -> Measurement:
    """Return how far a residual branch is from being linear in one of its weights, on probes.

    With B(W) what the branch returns to its inputs at init, all else in it as at init::

        norm(B(W_t) - B(W_0) - dB(W_0)[W_t - W_0]) / norm(dB(W_0)[W_t - W_0])

    Where it vanishes as depth grows, every block is lazy, however much the network as a whole learns: under
    branches times depth^(-1/2). It is 0 for the last weight of a branch, which is linear in it.

    Returns:
        ``branch_linearization_error`` per weight in a branch and cell; NaN where it has not moved. Nothing
        for a network without branches, and for a plain torch module, whose branches are not seen.

    References:
        Dey et al. (2025), "Don't be lazy: CompleteP enables compute-efficient deep transformers",
        arXiv 2505.01618: lazy learning in residual blocks.
    """
    errors: dict[str, Tensor] = {}
    for branch, x in _given(start):
        chain = nn.Sequential(*branch.parts)
        names = {
            f"{path}.{name}": f"{layer.name}.{name}"
            for path, layer in chain.named_modules()
            if isinstance(layer, Layer)
            for name in layer.specs
        }
        before = {local: start.parameters[name] for local, name in names.items()}
        for local, name in names.items():
            layer, _, kind = name.rpartition(".")
            if kind == "weight":
                errors[layer] = _error(chain, before, local, moved(now, start, name), x)
    return Measurement(layers={"branch_linearization_error": errors} if errors else {})


@torch.no_grad()
def _given(start: Snapshot) -> list[tuple[Branch, Tensor]]:
    """The branches with what they are given at init on probes, in the order of the forward pass."""
    found: list[tuple[Branch, Tensor]] = []
    branches = [module for module in start.ensemble.model.modules() if isinstance(module, Branch)]
    handles = [
        branch.register_forward_pre_hook(lambda module, given: found.append((module, given[0])))
        for branch in branches
    ]
    try:
        if branches:
            start.call(start.ensemble.inputs["probe"])
    finally:
        for handle in handles:
            handle.remove()
    return found


@torch.no_grad()
def _error(
    chain: nn.Module, before: dict[str, Tensor], name: str, change: Float[Tensor, "cell ..."],
    x: Float[Tensor, "cell probe ..."],
) -> Float[Tensor, "cell"]:  # fmt: skip
    """The relative distance from being linear in one weight."""

    def returned(weight: Tensor) -> Tensor:
        found: Tensor = functional_call(chain, before | {name: weight}, (x,))
        return found

    value, linear = jvp(returned, (before[name],), (change,))[:2]
    beyond = returned(before[name] + change) - value - linear
    far, scale, moved_by = (x.flatten(1).norm(dim=1) for x in (beyond, value, linear))
    rounding = _ROUNDING * torch.finfo(value.dtype).eps * scale
    error: Tensor = torch.where(far < rounding, 0.0, far) / moved_by
    return error
