"""Losses and errors, per cell, in one normalization: that in which 2 / lambda_max is the critical lr.

Where a network predicts a symbol at every position of a sample, its outputs are those of all positions side
by side and targets are whole numbers, ``[cell, sample, position]``. Each position then counts as a sample.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor
from torch.nn import functional

Outputs = Float[Tensor, "cell sample output"]
Targets = Shaped[Tensor, "#cell sample _"]


def mse(outputs: Outputs, targets: Targets) -> Float[Tensor, "cell"]:
    """Return 1/(2N) * sum_i sum_k (f_ik - y_ik)^2.

    Args:
        targets: y; a ``cell`` axis of length 1 if all cells share it.

    Returns:
        One loss per cell.
    """
    return (outputs - targets).square().sum((1, 2)) / (2 * outputs.shape[1])


def cross_entropy(outputs: Outputs, targets: Targets) -> Float[Tensor, "cell"]:
    """Return the mean cross-entropy over samples and positions: softmax, or logistic for one output.

    Args:
        targets: Class scores whose largest marks the class, or one column of -1 and +1; or symbols.

    Returns:
        One loss per cell, in nats.
    """
    if outputs.shape[2] == 1:
        return functional.softplus(-targets.sign() * outputs).mean((1, 2))
    rows, label = by_prediction(outputs, targets)
    picked = rows.gather(2, label[:, :, None])[:, :, 0]
    return (rows.logsumexp(2) - picked).mean(1)


def mse_gradient(outputs: Outputs, targets: Targets) -> Outputs:
    """Return the gradient of :func:`mse` with respect to the outputs, a new tensor."""
    return (outputs - targets).div_(outputs.shape[1])


def cross_entropy_gradient(outputs: Outputs, targets: Targets) -> Outputs:
    """Return the gradient of :func:`cross_entropy` with respect to the outputs, a new tensor."""
    if outputs.shape[2] == 1:
        side = -targets.sign()
        return torch.sigmoid(side * outputs).mul_(side / outputs.shape[1])
    rows, label = by_prediction(outputs, targets)
    gradient = rows.softmax(2)
    gradient.scatter_add_(2, label[:, :, None], -torch.ones_like(gradient[:, :, :1]))
    return gradient.div_(rows.shape[1]).view(outputs.shape)


def error_rate(outputs: Outputs, targets: Targets) -> Float[Tensor, "cell"]:
    """Return the fraction of misclassified samples and positions: by argmax, or by sign for one output.

    Args:
        targets: As in :func:`cross_entropy`.

    Returns:
        One fraction per cell.
    """
    if outputs.shape[2] == 1:
        wrong = outputs.sign() != targets.sign()
        return wrong.to(outputs.dtype).mean((1, 2))
    rows, label = by_prediction(outputs, targets)
    return (rows.argmax(2) != label).to(outputs.dtype).mean(1)


def margins(outputs: Outputs, targets: Targets) -> Float[Tensor, "cell prediction"]:
    """Return the margin of every sample and position: output of the class minus the largest of the others.

    For one output it is that output times the sign of the target. Negative where a sample is misclassified,
    whose cross-entropy is then at least minus the margin.

    Args:
        targets: As in :func:`cross_entropy`.

    Returns:
        One number per cell and prediction, in units of the outputs f.
    """
    if outputs.shape[2] == 1:
        return (targets.sign() * outputs).flatten(1)
    rows, label = by_prediction(outputs, targets)
    others = rows.scatter(2, label[:, :, None], -torch.inf).amax(2)
    return rows.gather(2, label[:, :, None])[:, :, 0] - others


def margin(outputs: Outputs, targets: Targets) -> Float[Tensor, "cell"]:
    """Return the smallest of the :func:`margins` of each cell."""
    return margins(outputs, targets).amin(1)


def wrong_margin(margins: Float[Tensor, "cell prediction"]) -> Float[Tensor, "cell"]:
    """Return the mean of the margins that are negative, those of misclassified samples; 0 where none is.

    Args:
        margins: As :func:`margins` returns them.

    Returns:
        One number per cell, in units of the outputs f; minus it is about the cross-entropy of these samples.
    """
    wrong = (margins < 0).sum(1).clamp(min=1)
    return margins.clamp(max=0).sum(1) / wrong


def by_prediction(
    outputs: Outputs, targets: Targets
) -> tuple[Float[Tensor, "cell prediction class"], Int64[Tensor, "cell prediction"]]:
    """Return a row for every prediction, of a sample or of a position of one, and its class.

    Args:
        targets: As in :func:`cross_entropy`, for several outputs.
    """
    if targets.is_floating_point():
        return outputs, targets.argmax(2).expand(outputs.shape[:2])
    _, samples, positions = targets.shape
    label = targets.expand(outputs.shape[0], -1, -1).flatten(1)
    return outputs.reshape(len(outputs), samples * positions, -1), label


LOSSES: dict[str, Callable[[Outputs, Targets], Float[Tensor, "cell"]]] = {
    "mse": mse,
    "cross_entropy": cross_entropy,
}
GRADIENTS: dict[str, Callable[[Outputs, Targets], Outputs]] = {
    "mse": mse_gradient,
    "cross_entropy": cross_entropy_gradient,
}
