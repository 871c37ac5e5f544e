"""How far the parameters moved."""

import torch
from jaxtyping import Float
from torch import Tensor

from runner.layers import layers_of
from runner.measures.snapshot import Measurement, Snapshot
from runner.numerics.eigen import spectral_norm, top_singular


def param_movement(now: Snapshot, start: Snapshot) -> Measurement:
    """Return norm(theta_t - theta_0) / norm(theta_0) over all raw parameters.

    In a wide network the hidden matrices dominate this norm, so that it can fall with width although the
    network learns features: read it beside the movement per layer.

    Returns:
        ``param_movement`` per cell.

    References:
        Chizat, Oyallon & Bach (2019), arXiv 1812.07956, section 1.1.
    """
    paths = list(start.parameters)
    change = torch.stack([_moved_norm(now, start, path) for path in paths]).norm(dim=0)
    origin = torch.stack([_norm(start, path) for path in paths]).norm(dim=0)
    return Measurement(trace={"param_movement": change / origin})


def layer_movement(now: Snapshot, start: Snapshot) -> Measurement:
    """Return the relative movement of every layer's weight in Frobenius and in spectral norm.

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
        frobenius[layer.name] = _moved_norm(now, start, path) / _norm(start, path)
        origin_norm = start.cached(f"spectral/{path}", lambda w=origin: _spectral(w))  # type: ignore[misc]
        moved_norm = _spectral(moved(now, start, path), start.guesses, f"moved/{path}")
        spectral[layer.name] = moved_norm / origin_norm
    return Measurement(layers={"movement_frobenius": frobenius, "movement_spectral": spectral})


def prepare_norms(start: Snapshot) -> None:
    """Compute the norms that :func:`param_movement` divides by."""
    for path in start.parameters:
        _norm(start, path)


def prepare_layers(start: Snapshot) -> None:
    """Compute the norms that :func:`layer_movement` divides by, and begin its search for singular vectors."""
    layer_movement(start, start)


def moved(now: Snapshot, start: Snapshot, path: str) -> Float[Tensor, "cell ..."]:
    """Return how a parameter moved; kept, since more than one measure asks."""
    return now.cached(f"moved/{path}", lambda: now.parameters[path] - start.parameters[path])


def _norm(snapshot: Snapshot, path: str) -> Float[Tensor, "cell"]:
    """Frobenius norm of a parameter."""
    return snapshot.cached(f"norm/{path}", lambda: snapshot.parameters[path].flatten(1).norm(dim=1))


def _moved_norm(now: Snapshot, start: Snapshot, path: str) -> Float[Tensor, "cell"]:
    """Frobenius norm of a parameter's movement; kept likewise."""
    return now.cached(f"moved_norm/{path}", lambda: moved(now, start, path).flatten(1).norm(dim=1))


def _spectral(
    weight: Float[Tensor, "cell ..."], guesses: dict[str, Tensor] | None = None, key: str = ""
) -> Float[Tensor, "cell"]:
    """Spectral norm of a weight as a matrix: kernels of a convolution by channel, a gain as one row."""
    if weight.dim() == 2:
        norm: Tensor = weight.norm(dim=1)
        return norm
    if guesses is None:
        return spectral_norm(weight.flatten(2))
    norm, vector = top_singular(weight.flatten(2), guesses.get(key))
    if vector is not None:
        guesses[key] = vector
    return norm
