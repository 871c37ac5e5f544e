"""Kernel ridge regression, one kernel per cell, its ridge chosen on a split of the training set."""

import torch
from jaxtyping import Float
from torch import Tensor

from runner.numerics.eigen import decomposition

RIDGES = 10.0 ** torch.arange(-10.0, 1.5, 0.5, dtype=torch.float64)
"""Ridges tried, in units of the kernel's mean diagonal."""
NO_RIDGE = float(RIDGES[0])
"""As good as none: beyond it rounding decides."""
HELD_OUT = 0.2
"""Share of the training set on which the ridge is chosen: its last samples."""
LEAST_SAMPLES = 5


def kernel_ridge(
    kernel: Float[Tensor, "cell all train"], targets: Float[Tensor, "#cell train output"], ridge: float = 0.0
) -> Float[Tensor, "cell rest output"]:
    r"""Return predictions k(x, X) (K + N r m 1)^{-1} y for the samples beyond the training set.

    m is the mean diagonal of K. Without a ridge r that is given, it is the one, out of ``RIDGES``, with the
    least squared error on the last fifth of the training set when fitted to the rest of it; then all of it is
    fitted.

    Args:
        kernel: Between all samples, the training set first, and the training set.

    Returns:
        Predictions in float64.
    """
    rounding = 10 * torch.finfo(kernel.dtype).eps
    kernel, targets = kernel.double(), targets.double().expand(kernel.shape[0], -1, -1)
    best = kernel.new_full(kernel.shape[:1], ridge) if ridge else _chosen(kernel, targets)
    count = kernel.shape[2]
    # For one ridge a factorization will do, a sixth of the time, where rounding left no negative eigenvalue.
    square = kernel[:, :count]
    unsure = best < rounding
    if bool(unsure.any()):
        unsure &= torch.linalg.cholesky_ex(square).info != 0
    damped = square.clone()
    diagonal = damped.diagonal(dim1=1, dim2=2)
    diagonal += (best * diagonal.sum(1))[:, None]
    factor, failed = torch.linalg.cholesky_ex(damped)
    predictions: Tensor = kernel[:, count:] @ torch.cholesky_solve(targets, factor)
    others = (unsure | (failed != 0)).nonzero()[:, 0]
    if len(others):
        predictions[others] = _predictions(kernel[others], targets[others], best[others, None])[:, 0]
    return predictions


def _chosen(
    kernel: Float[Tensor, "cell all train"], targets: Float[Tensor, "cell train output"]
) -> Float[Tensor, "cell"]:
    """The ridge that does best on the held out part of the training set."""
    count = kernel.shape[2]
    fitted = count - max(1, int(HELD_OUT * count))
    ridges = RIDGES.to(kernel)
    tried = _predictions(kernel[:, :count, :fitted], targets[:, :fitted], ridges)
    errors = (tried - targets[:, None, fitted:]).square().sum((2, 3))
    # Of equal errors the largest ridge, so that rounding does not choose.
    best: Tensor = ridges[len(RIDGES) - 1 - errors.flip(1).nan_to_num(nan=torch.inf).argmin(1)]
    return best


def _predictions(
    kernel: Float[Tensor, "cell all train"], targets: Float[Tensor, "cell train output"], ridges: Tensor
) -> Float[Tensor, "cell ridge rest output"]:
    """Predictions for every ridge, ``[ridge]`` or one ``[cell, 1]``; negative eigenvalues count as 0."""
    count = kernel.shape[2]
    values, vectors = decomposition(kernel[:, :count])
    mean = kernel[:, :count].diagonal(dim1=1, dim2=2).mean(1)
    damped = (values[:, None] + count * (ridges * mean[:, None])[:, :, None])[:, :, :, None]
    # A kernel of zeros (dead units) predicts zero.
    weights = torch.where(damped == 0, 0.0, (vectors.mT @ targets)[:, None] / damped)
    predictions: Tensor = (kernel[:, count:] @ vectors)[:, None] @ weights
    return predictions
