"""How far training is from that of the model linearized at init."""

import torch
from jaxtyping import Float
from torch import Tensor

from runner.measures.passes import jacobian_product
from runner.measures.snapshot import Measurement, Snapshot


def linearization_error(now: Snapshot, start: Snapshot) -> Measurement:
    """Return norm(f_t - [f_0 + J_0 (theta_t - theta_0)]) / norm(f_t - f_0) on probes.

    J_0 (theta_t - theta_0) is one pass of forward-mode differentiation. Probes are held out: on training
    points both models fit the targets in the end, and the error would vanish for any network.

    Returns:
        ``linearization_error`` per cell; 0 where nothing has moved.

    References:
        Lee et al. (2019), arXiv 1902.06720, eq. 5; Chizat, Oyallon & Bach (2019), arXiv 1812.07956.
    """
    push = jacobian_product(start.probed())
    linear = push({path: value - start.parameters[path] for path, value in now.parameters.items()})
    change = now.raw_outputs("probe") - start.raw_outputs("probe")
    return Measurement(trace={"linearization_error": relative_error(change - linear, change)})


def relative_error(
    error: Float[Tensor, "cell sample output"], change: Float[Tensor, "cell sample output"]
) -> Float[Tensor, "cell"]:
    """Return the ratio of norms of an error and what it is an error of; 0 where there is none, as at init."""
    above, below = error.flatten(1).norm(dim=1), change.flatten(1).norm(dim=1)
    return torch.where(above == 0, 0.0, above / below)
