"""Alignment of kernels: of now with init, and of the kernel with the targets."""

from jaxtyping import Float
from torch import Tensor, nn

from runner.data.dataset import one_hot
from runner.measures.probe_kernel import probe_ntk, sketch_error
from runner.measures.snapshot import Measurement, Snapshot
from runner.models.ensemble import Ensemble


def cka(now: Snapshot, start: Snapshot, *, sketch: int | None = None) -> Measurement:
    """Return the centred alignment with init, of the kernel and of the last hidden representation.

    <H K H, H L H> / (norm_F(H K H) norm_F(H L H)) with H = 1 - 1/M, on probes: of K = Theta_t with
    L = Theta_0, and of the Gram matrices of the last hidden activations.

    Args:
        sketch: As for :func:`runner.measures.probe_kernel.probe_ntk`.

    Returns:
        ``cka`` and, where there is a hidden layer, ``feature_cka`` per cell; ``ntk_sketch_error`` where the
        kernel is estimated.

    References:
        Kornblith et al. (2019), arXiv 1905.00414, eq. 3 and 4; Cortes, Mohri & Rostamizadeh (2012),
        arXiv 1203.0550, definition 4.
    """
    trace = {"cka": _cosine(centred_ntk(now, sketch=sketch), centred_ntk(start, sketch=sketch))}
    trace |= sketch_error(now, sketch)
    if now.features():
        trace["feature_cka"] = _cosine(_centred_features(now), _centred_features(start))
    return Measurement(trace=trace)


def target_alignment(now: Snapshot, start: Snapshot, *, sketch: int | None = None) -> Measurement:
    """Return the centred alignment of Theta_t with y y^T on probes.

    Args:
        sketch: As for :func:`runner.measures.probe_kernel.probe_ntk`.

    Returns:
        ``target_alignment`` per cell; ``ntk_sketch_error`` where the kernel is estimated.

    References:
        Cortes, Mohri & Rostamizadeh (2012), arXiv 1203.0550, definition 4.
    """
    targets = _aims(now.ensemble)
    alignment = _cosine(centred_ntk(now, sketch=sketch), _unit(_centred(targets @ targets.mT)))
    return Measurement(trace={"target_alignment": alignment, **sketch_error(now, sketch)})


def _aims(ensemble: Ensemble) -> Float[Tensor, "1 probe output"]:
    """Targets y on probes: of symbols, one-hot with mean zero, the positions side by side."""
    scores: Tensor = ensemble.scores["probe"]
    if ensemble.vocabulary is None:
        return scores
    return one_hot(scores, ensemble.vocabulary).flatten(2).to(ensemble.dtype)


def prepare(start: Snapshot, *, sketch: int | None = None) -> None:
    """Compute what :func:`cka` compares with."""
    centred_ntk(start, sketch=sketch)
    if start.features():
        _centred_features(start)


def centred_ntk(snapshot: Snapshot, *, sketch: int | None = None) -> Float[Tensor, "cell probe probe"]:
    """Return the centred kernel on probes, divided by its Frobenius norm."""
    key = "ntk/centred" if sketch is None else f"ntk/centred/{sketch}"
    return snapshot.cached(key, lambda: _unit(_centred(probe_ntk(snapshot, sketch=sketch))))


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
