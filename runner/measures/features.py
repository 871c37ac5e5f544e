"""How far the hidden representations moved."""

import torch
from jaxtyping import Float
from torch import Tensor

from runner.layers import Activation, record
from runner.measures.snapshot import Measurement, Snapshot

THRESHOLDED = ("relu",)
"""Activations that are linear but for a threshold at 0."""


def feature_movement(now: Snapshot, start: Snapshot) -> Measurement:
    """Return the relative RMS change of hidden activations on probes, norm(x_t - x_0) / norm(x_0).

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


def pattern_change(now: Snapshot, start: Snapshot) -> Measurement:
    """Return the share of (hidden unit, probe) pairs whose pre-activation changed its sign since init.

    This is the normalized Hamming distance of activation patterns. Where it is 0, a network of relus is the
    same linear function of its weights, layer by layer, as at init. A unit of an image is a channel at a
    position, one of a sequence a feature of a token.

    Returns:
        ``pattern_change`` per layer and cell, of the pre-activations that follow from the layer, and of the
        last hidden layer per cell. Nothing for a network without an activation of :data:`THRESHOLDED`, and
        for a plain torch module, whose activations are not seen.

    References:
        Kunin et al. (2024), "Get rich quick: exact solutions reveal how unbalanced initializations promote
        rapid feature learning", arXiv 2406.06158.
    """
    after = _patterns(now)
    if not after:
        return Measurement()
    before = torch.split(pattern(start), [active.shape[1] for active in after.values()], 1)
    shares = [(active - then).abs().mean(1) for active, then in zip(after.values(), before, strict=True)]
    changed = dict(zip(after, shares, strict=True))
    return Measurement(trace={"pattern_change": shares[-1]}, layers={"pattern_change": changed})


def pattern(snapshot: Snapshot) -> Float[Tensor, "cell pair"]:
    """Return 1 for every active pair of a unit and a probe and 0 for the others, layers side by side."""
    nothing = snapshot.raw_outputs("probe")[:, :0, 0]
    return snapshot.cached("pattern", lambda: torch.cat([nothing, *_patterns(snapshot).values()], 1))


def _patterns(snapshot: Snapshot) -> dict[str, Float[Tensor, "cell pair"]]:
    """The same, each layer's under its name."""
    found: dict[str, Tensor] = {}

    def listen(module: Activation, given: tuple[Tensor, ...]) -> None:
        if tape:
            name = tape[-1].layer.name
            found.pop(name, None)  # a layer called again: in the place of its last call
            found[name] = (given[0] > 0).to(given[0]).flatten(1)

    activations = [
        module
        for module in snapshot.ensemble.model.modules()
        if isinstance(module, Activation) and module.name in THRESHOLDED
    ]
    handles = [module.register_forward_pre_hook(listen) for module in activations]
    try:
        with torch.no_grad(), record() as tape:
            if activations:
                snapshot.call(snapshot.ensemble.inputs["probe"])
    finally:
        for handle in handles:
            handle.remove()
    return found


def _rms(change: Float[Tensor, "cell sample unit"]) -> Float[Tensor, "cell"]:
    return change.flatten(1).square().mean(1).sqrt()
