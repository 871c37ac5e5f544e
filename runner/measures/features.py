"""How far the hidden representations moved."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from runner.measures.snapshot import Measurement, Snapshot


def feature_movement(now: Snapshot, start: Snapshot) -> Measurement:
    """Return the relative RMS change of hidden activations on probes, norm(x_t - x_0) / norm(x_0).

    Args:
        now: The moment.
        start: Init.

    Returns:
        ``feature_movement`` per layer and cell, and of the last hidden layer per cell.

    References:
        Yang & Hu (2021), arXiv 2011.14522, definition of feature learning.
    """
    before, after = start.features(), now.features()
    movement = {
        name: (after[name] - x).flatten(1).norm(dim=1) / x.flatten(1).norm(dim=1)
        for name, x in before.items()
    }
    last = list(movement.values())[-1:]
    return Measurement(
        trace={"feature_movement": last[0]} if last else {}, layers={"feature_movement": movement}
    )


def update_size(now: Snapshot, start: Snapshot) -> Measurement:
    """Return the RMS change of every hidden representation and of the outputs f: the coordinate check.

    In a network that learns features at every width, all of them change by an amount that does not depend on
    width after a few steps; in the lazy regime hidden ones change by width^(-1/2).

    Args:
        now: The moment.
        start: Init.

    Returns:
        ``update_size`` per layer and cell: of the representation that follows it or, for the last layer, of
        the outputs.

    References:
        Yang et al. (2022), "Tensor Programs V", arXiv 2203.03466, appendix D.1.
    """
    before, after = start.features(), now.features()
    moved = {name: _rms(after[name] - x) for name, x in before.items()}
    moved[now.readout()] = _rms(now.outputs("probe") - start.outputs("probe"))
    return Measurement(layers={"update_size": moved})


def _rms(change: Float[Tensor, "cell sample unit"]) -> Float[Tensor, "cell"]:
    return change.flatten(1).square().mean(1).sqrt()
