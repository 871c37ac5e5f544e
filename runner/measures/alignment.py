"""Alignment of kernels: of now with init, and of the kernel with the targets."""

from jaxtyping import Float
from torch import Tensor, nn

from runner.measures.kernel import probe_ntk
from runner.measures.snapshot import Measurement, Snapshot


def cka(now: Snapshot, start: Snapshot) -> Measurement:
    """Return the centred alignment with init, of the kernel and of the last hidden representation.

    <H K H, H L H> / (norm_F(H K H) norm_F(H L H)) with H = 1 - 1/M, on probes: of K = Theta_t with
    L = Theta_0, and of the Gram matrices of the last hidden activations.

    Returns:
        ``cka`` and, where there is a hidden layer, ``feature_cka`` per cell.

    References:
        Kornblith et al. (2019), arXiv 1905.00414, eq. 3 and 4; Cortes, Mohri & Rostamizadeh (2012),
        arXiv 1203.0550, definition 4.
    """
    trace = {"cka": _cosine(centred_ntk(now), centred_ntk(start))}
    if now.features():
        trace["feature_cka"] = _cosine(_centred_features(now), _centred_features(start))
    return Measurement(trace=trace)


def target_alignment(now: Snapshot, start: Snapshot) -> Measurement:
    """Return the centred alignment of Theta_t with y y^T on probes.

    Returns:
        ``target_alignment`` per cell.

    References:
        Cortes, Mohri & Rostamizadeh (2012), arXiv 1203.0550, definition 4.
    """
    targets = now.ensemble.scores["probe"]
    return Measurement(
        trace={"target_alignment": _cosine(centred_ntk(now), _unit(_centred(targets @ targets.mT)))}
    )


def prepare(start: Snapshot) -> None:
    """Compute what :func:`cka` compares with."""
    centred_ntk(start)
    if start.features():
        _centred_features(start)


def centred_ntk(snapshot: Snapshot) -> Float[Tensor, "cell probe probe"]:
    """Return the centred kernel on probes, divided by its Frobenius norm."""
    return snapshot.cached("ntk/centred", lambda: _unit(_centred(probe_ntk(snapshot))))


def _centred_features(snapshot: Snapshot) -> Float[Tensor, "cell probe probe"]:
    def compute() -> Tensor:
        last = list(snapshot.features().values())[-1]
        # Centred before the product, which would lose digits to a large mean.
        last = last - last.mean(1, keepdim=True)
        return _unit(last @ last.mT)

    return snapshot.cached("feature_gram/centred", compute)


def _centred(kernel: Float[Tensor, "#cell row column"]) -> Float[Tensor, "#cell row column"]:
    """H K H with H = 1 - 1/M."""
    kernel = kernel - kernel.mean(1, keepdim=True)
    return kernel - kernel.mean(2, keepdim=True)


def _unit(kernel: Float[Tensor, "#cell row column"]) -> Float[Tensor, "#cell row column"]:
    """Divide by the Frobenius norm."""
    return nn.functional.normalize(kernel.flatten(1), dim=1).view_as(kernel)


def _cosine(
    one: Float[Tensor, "cell row column"], other: Float[Tensor, "#cell row column"]
) -> Float[Tensor, "cell"]:
    return (one * other).sum((1, 2))
