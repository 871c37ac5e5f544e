"""What the kernel alone could do: ridge regression with it on the network's own training set.

The regression predicts y itself, not y - f at init: f at init is noise that a kernel method need not carry,
so this is its best chance, whether or not the network's output is centred. All outputs share the trace
kernel, as they do in the infinite-width limit; for one output it is the full kernel. Losses are squared
errors in the normalization of the MSE, whatever the network was trained on.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from runner.measures.kernel import empirical_ntk, ntk_bytes
from runner.measures.ridge import NO_RIDGE, kernel_ridge
from runner.measures.snapshot import Measurement, Snapshot
from runner.numerics import losses


def kernel_regression(now: Snapshot, start: Snapshot) -> Measurement:
    """Return test loss and error of ridge regression with Theta_t, and the loss without a ridge.

    Without a ridge it is where gradient descent with that kernel ends, from f = 0 (Jacot et al., section 5).

    Returns:
        ``kernel_regression_loss``, ``kernel_interpolation_loss`` and, for classification,
        ``kernel_regression_error`` per cell.

    References:
        Fort et al. (2020), arXiv 2010.15110, section 4; Jacot et al. (2018), arXiv 1806.07572.
    """
    predicted, interpolated = ntk_regression(now).unbind(-1)
    targets = now.ensemble.scores["test"].double()
    trace = {
        "kernel_regression_loss": losses.mse(predicted, targets),
        "kernel_interpolation_loss": losses.mse(interpolated, targets),
    }
    if now.ensemble.classification:
        trace["kernel_regression_error"] = losses.error_rate(predicted, targets)
    return Measurement(trace=trace)


def ntk_gain(now: Snapshot, start: Snapshot) -> Measurement:
    """Return the test loss of ridge regression with Theta_0 minus the network's: what learning features won.

    Returns:
        ``ntk_gain`` per cell.
    """
    targets = now.ensemble.scores["test"].double()
    kernel_loss = losses.mse(ntk_regression(start)[..., 0], targets)
    return Measurement(trace={"ntk_gain": kernel_loss - losses.mse(now.outputs("test").double(), targets)})


def ntk_regression(snapshot: Snapshot) -> Float[Tensor, "cell test output 2"]:
    """Return what regression with the kernel of a moment predicts on the test set, with and without ridge."""
    return snapshot.cached("ntk_regression", lambda: _regression(snapshot))


def _regression(snapshot: Snapshot) -> Float[Tensor, "cell test output 2"]:
    inputs, targets = snapshot.ensemble.inputs, snapshot.ensemble.scores["train"]
    count = targets.shape[1]
    x = torch.cat([inputs["train"], inputs["test"]], 1)
    found = []
    # A kernel that is computed block by block repeats passes: rather fewer cells at a time.
    size = max(ntk_bytes(snapshot, x.shape[1]), 4 * 8 * x.shape[1] * count)
    for model, parameters in snapshot.parts(size):
        kernel = empirical_ntk(model, parameters, x, count)
        found.append(torch.stack([kernel_ridge(kernel, targets, ridge) for ridge in (0.0, NO_RIDGE)], -1))
    return torch.cat(found)
