"""How far training is from that of the model linearized at init."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import functional_call, jvp

from runner.eigen import decomposition
from runner.measures.kernel import empirical_ntk_full
from runner.measures.snapshot import Measurement, Snapshot

EIGENBASIS = "eigenbasis"
"""Under which a snapshot keeps eigenvalues and eigenvectors of its train kernel over N."""


def linearization_error(now: Snapshot, start: Snapshot) -> Measurement:
    """Return norm(f_t - [f_0 + J_0 (theta_t - theta_0)]) / norm(f_t - f_0) on probes.

    J_0 (theta_t - theta_0) is one pass of forward-mode differentiation. Probes are held out: on training
    points both models fit the targets in the end, and the error would vanish for any network.

    Args:
        now: The moment.
        start: Init.

    Returns:
        ``linearization_error`` per cell; 0 where nothing has moved.

    References:
        Lee et al. (2019), arXiv 1902.06720, eq. 5; Chizat, Oyallon & Bach (2019), arXiv 1812.07956.
    """
    ensemble = now.ensemble
    x = ensemble.inputs["probe"]
    moved = {path: value - start.parameters[path] for path, value in now.parameters.items()}

    def outputs(parameters: dict[str, Tensor]) -> Tensor:
        raw: Tensor = functional_call(ensemble.model, parameters, (x,))
        return raw

    linear: Tensor = jvp(outputs, (start.parameters,), (moved,))[1]
    change = now.raw_outputs("probe") - start.raw_outputs("probe")
    return Measurement(trace={"linearization_error": _relative(change - linear, change)})


def kernel_gd_error(now: Snapshot, start: Snapshot) -> Measurement:
    r"""Return norm(f_t - g_t) / norm(g_t - f_0) on probes, g_t after t steps of GD under the fixed Theta_0.

    With Theta_0(X, X) / N = Q diag(l) Q^T over training samples and outputs, full-batch gradient descent on
    the MSE gives

        g_t(x) = f_0(x) + Theta_0(x, X) / N  Q diag((1 - (1 - eta l)^t) / l) Q^T (y - f_0(X)).

    Neither gamma nor the parameterization occurs in it: both are in the lr-weighted kernel.

    Args:
        now: The moment.
        start: Init.

    Returns:
        ``kernel_gd_error`` per cell; 0 at init.

    References:
        Lee et al. (2019), arXiv 1902.06720, eq. 8-11 (there for gradient flow).
    """
    ensemble = now.ensemble
    (spectrum, basis, cross), origin = start.shared(EIGENBASIS, lambda: _eigenbasis(start))
    # Outputs before samples, as in the kernel.
    residual = (ensemble.targets["train"] - start.outputs("train")).double().mT.flatten(1)
    cells, samples, outputs = start.outputs("probe").shape
    change = torch.empty(cells, outputs * samples, dtype=torch.float64, device=residual.device)
    for one in range(spectrum.shape[0]):
        mine = origin == one
        factor = _geometric(spectrum[one], ensemble.lr[mine], now.step)
        change[mine] = (residual[mine] @ basis[one] * factor) @ cross[one].mT
    expected = change.view(cells, outputs, samples).mT
    actual = (now.raw_outputs("probe") - start.raw_outputs("probe")).double() / ensemble.gamma
    return Measurement(trace={"kernel_gd_error": _relative(actual - expected, expected)})


def _eigenbasis(start: Snapshot) -> tuple[Tensor, Tensor, Tensor]:
    """Eigenvalues and eigenvectors of Theta_0(X, X) / N, and Theta_0(probe, X) / N times the vectors."""
    train, probe = start.ensemble.inputs["train"], start.ensemble.inputs["probe"]
    count = train.shape[1]
    x = torch.cat([train, probe], 1).double()
    outputs = start.raw_outputs("train").shape[2]
    size = 2 * 8 * outputs**2 * x.shape[1] * count
    found = []
    for model, parameters in start.parts(size):
        precise = {path: value.double() for path, value in parameters.items()}
        kernel = empirical_ntk_full(model, precise, x, count) / count
        square = kernel[:, :, :count].reshape(-1, outputs * count, outputs * count)
        values, vectors = decomposition(square)
        rest = kernel[:, :, count:].reshape(kernel.shape[0], -1, outputs * count)
        found.append((values, vectors, rest @ vectors))
    spectrum, basis, cross = (torch.cat(part) for part in zip(*found, strict=True))
    return spectrum, basis, cross


def _geometric(
    spectrum: Float[Tensor, "mode"], lr: Float[Tensor, "cell"], step: int
) -> Float[Tensor, "cell mode"]:
    """Return sum_{s<t} eta (1 - eta l)^s = (1 - (1 - eta l)^t) / l, also where l is 0 or rounding."""
    rate = lr[:, None] * spectrum
    small = -torch.expm1(step * torch.log1p(-rate.clamp_max(0.5)))
    # Beyond 2 / l the linear model diverges; bounded, so that the ratio still has its limit, 1.
    large = (1 - (1 - rate) ** step).nan_to_num(posinf=1e100, neginf=-1e100).clamp(-1e100, 1e100)
    total = torch.where(rate < 0.5, small, large)
    tiny = rate < 1e-14
    return lr[:, None] * torch.where(tiny, float(step), total / torch.where(tiny, 1.0, rate))


def _relative(
    error: Float[Tensor, "cell sample output"], change: Float[Tensor, "cell sample output"]
) -> Float[Tensor, "cell"]:
    """Ratio of norms; 0 where there is no error, as at init."""
    above, below = error.flatten(1).norm(dim=1), change.flatten(1).norm(dim=1)
    return torch.where(above == 0, 0.0, above / below)
