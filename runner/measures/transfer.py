"""Whether features learned on one labelling help with another."""

import torch
from jaxtyping import Float
from torch import Tensor

from runner.measures.ridge import kernel_ridge
from runner.measures.snapshot import Measurement, Snapshot
from runner.numerics import losses


def transfer_gain(now: Snapshot, start: Snapshot) -> Measurement:
    """Return how much better a linear probe on the last hidden features does a second labelling than at init.

    The probe is ridge regression with an intercept, fitted to the second labels of the training inputs; its
    error is the share of test inputs on the wrong side. Each data set says what its second labelling is.

    Returns:
        ``transfer_gain`` per cell: error on the features at init minus error now; nothing for a data set
        without a second labelling or a network without hidden layers.

    References:
        Alain & Bengio (2016), "Understanding intermediate layers using linear classifier probes",
        arXiv 1610.01644.
    """
    if not _has_transfer(start):
        return Measurement()
    return Measurement(trace={"transfer_gain": _probe_error(start) - _probe_error(now)})


def prepare(start: Snapshot) -> None:
    """Compute the error at init, which later errors are subtracted from."""
    if _has_transfer(start):
        _probe_error(start)


def _has_transfer(snapshot: Snapshot) -> bool:
    """Whether there are second labels to learn and hidden features to learn them from."""
    return {"train", "test"} <= snapshot.ensemble.second.keys() and bool(snapshot.features())


def _probe_error(snapshot: Snapshot) -> Float[Tensor, "cell"]:
    """Error of the linear probe on a moment's features, kept on the snapshot."""
    return snapshot.cached("transfer_error", lambda: _fitted_error(snapshot))


def _fitted_error(snapshot: Snapshot) -> Float[Tensor, "cell"]:
    inputs, second = snapshot.ensemble.inputs, snapshot.ensemble.second
    count = second["train"].shape[1]
    features = snapshot.features_of(torch.cat([inputs["train"], inputs["test"]], 1))
    last = list(features.values())[-1].double()
    # Centring on the training set is what an intercept without a ridge amounts to.
    last = last - last[:, :count].mean(1, keepdim=True)
    mean = second["train"].double().mean(1, keepdim=True)
    predicted = kernel_ridge(last @ last[:, :count].mT, second["train"].double() - mean) + mean
    return losses.error_rate(predicted, second["test"].double())
