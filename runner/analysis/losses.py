"""Losses of kept outputs, in the normalization of :mod:`runner.numerics.losses`, whose tensors tables lack.

Outputs are ``[..., sample, output]``, targets ``[sample, output]`` as the table ``outputs`` has them. What
comes before the samples stays.
"""

import numpy as np


def mse(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return 1/(2N) * sum_i sum_k (f_ik - y_ik)^2."""
    return np.asarray(((outputs - targets) ** 2).sum((-2, -1)) / (2 * len(targets)))


def cross_entropy(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the mean cross-entropy of samples or positions: softmax, or logistic for one output."""
    if targets.shape[1] == 1:
        return np.asarray(np.logaddexp(0.0, -np.sign(targets) * outputs).mean((-2, -1)))
    rows, scores = _by_prediction(outputs, targets, "cross_entropy")
    most = rows.max(-1, keepdims=True)
    total = np.log(np.exp(rows - most).sum(-1)) + most[..., 0]
    picked = np.take_along_axis(rows, np.broadcast_to(scores.argmax(-1)[:, None], (*rows.shape[:-1], 1)), -1)
    return np.asarray((total - picked[..., 0]).mean(-1))


LOSSES = {"mse": mse, "cross_entropy": cross_entropy}
"""By the name that a cell has for them."""


def error_rate(outputs: np.ndarray, targets: np.ndarray, loss: str) -> np.ndarray:
    """Return the fraction of misclassified samples or positions: by argmax, or by sign for one output."""
    if targets.shape[1] == 1:
        return np.asarray((np.sign(outputs) != np.sign(targets)).mean((-2, -1)))
    rows, scores = _by_prediction(outputs, targets, loss)
    return np.asarray((rows.argmax(-1) != scores.argmax(-1)).mean(-1))


def _by_prediction(outputs: np.ndarray, targets: np.ndarray, loss: str) -> tuple[np.ndarray, np.ndarray]:
    """Return a row for every prediction: of a sample, or of each position of one, whose targets hold a 1."""
    positions = round(float(targets[0].sum())) if loss == "cross_entropy" else 1
    symbols = targets.shape[1] // positions
    return outputs.reshape(*outputs.shape[:-2], -1, symbols), targets.reshape(-1, symbols)
