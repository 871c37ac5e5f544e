"""How far the parameters moved."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from runner.eigen import spectral_norm
from runner.layers import layers_of
from runner.measures.snapshot import Measurement, Snapshot


def param_movement(now: Snapshot, start: Snapshot) -> Measurement:
    """Return norm(theta_t - theta_0) / norm(theta_0) over all raw parameters.

    In a wide network the hidden matrices dominate this norm, so that it can fall with width although the
    network learns features: read it beside the movement per layer.

    Args:
        now: The moment.
        start: Init.

    Returns:
        ``param_movement`` per cell.

    References:
        Chizat, Oyallon & Bach (2019), arXiv 1812.07956, section 1.1.
    """
    moved = sum(_square(now.parameters[path] - value) for path, value in start.parameters.items())
    origin = start.cached(
        "parameter_square", lambda: torch.stack([_square(p) for p in start.parameters.values()]).sum(0)
    )
    return Measurement(trace={"param_movement": (moved / origin).sqrt()})


def layer_movement(now: Snapshot, start: Snapshot) -> Measurement:
    """Return the relative movement of every layer's weight in Frobenius and in spectral norm.

    Args:
        now: The moment.
        start: Init.

    Returns:
        ``movement_frobenius`` and ``movement_spectral`` per layer and cell.

    References:
        Yang, Simon & Bernstein (2023), "A Spectral Condition for Feature Learning", arXiv 2310.17813.
    """
    frobenius: dict[str, Tensor] = {}
    spectral: dict[str, Tensor] = {}
    for layer in layers_of(now.ensemble.model):
        path = f"{layer.name}.weight"
        origin = start.parameters[path]
        moved = now.parameters[path] - origin
        frobenius[layer.name] = (_square(moved) / _square(origin)).sqrt()
        origin_norm = start.cached(f"spectral/{path}", lambda w=origin: _spectral(w))  # type: ignore[misc]
        spectral[layer.name] = _spectral(moved) / origin_norm
    return Measurement(layers={"movement_frobenius": frobenius, "movement_spectral": spectral})


def _square(value: Float[Tensor, "cell ..."]) -> Float[Tensor, "cell"]:
    """Squared Frobenius norm per cell."""
    return value.flatten(1).square().sum(1)


def _spectral(weight: Float[Tensor, "cell ..."]) -> Float[Tensor, "cell"]:
    """Spectral norm of a weight as a matrix: kernels of a convolution by channel, a gain as one row."""
    if weight.dim() == 2:
        norm: Tensor = weight.norm(dim=1)
        return norm
    return spectral_norm(weight.flatten(2))
