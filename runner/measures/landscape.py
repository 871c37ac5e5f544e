"""The loss between where training began and where it is."""

import torch
from torch.func import functional_call

from runner.measures.snapshot import Measurement, Snapshot
from runner.numerics import losses

POINTS = 16
"""Places on the line at which the loss is taken, its end among them."""


def loss_barrier(now: Snapshot, start: Snapshot) -> Measurement:
    """Return max over s in [0, 1] of L(theta_0 + s (theta_t - theta_0)) / L(theta_0), on the training set.

    At the end of training 1 means that the straight line from init never rises above the loss at init, more
    that there is a barrier on it.

    Returns:
        ``loss_barrier`` per cell.

    References:
        Kalra & Barkeshli (2023), arXiv 2302.12250, section 2: the barrier whose onset is c_barrier.
    """
    ensemble = now.ensemble
    loss, targets = losses.LOSSES[ensemble.cells[0].loss], ensemble.targets["train"]

    def at(share: float) -> torch.Tensor:
        parameters = {
            path: torch.lerp(start.parameters[path], value, share) for path, value in now.parameters.items()
        }
        raw = functional_call(ensemble.model, parameters, (ensemble.inputs["train"],))
        return loss(ensemble.function(raw, "train"), targets)

    with torch.no_grad():
        first = at(0.0)
        along = torch.stack([first, *(at((place + 1) / POINTS) for place in range(POINTS))])
    return Measurement(trace={"loss_barrier": along.amax(0) / first})
