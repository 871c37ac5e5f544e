"""How far the hidden representations moved."""

from __future__ import annotations

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
