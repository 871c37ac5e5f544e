"""How far training is from gradient descent under the kernel at init, in closed form."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from runner.measures.kernel import kernel_product
from runner.measures.linearization import relative_error
from runner.measures.snapshot import Measurement, Snapshot
from runner.numerics.lanczos import Product, Ritz, lanczos, ritz

_CHECK_EVERY = 8
"""Lanczos steps between two looks at whether they are enough."""
_RATES = 4.0 * 0.5 ** torch.arange(16, dtype=torch.float64)
"""eta * lambda_max for which they must be: learning rates are not known at init."""


def kernel_gd_error(now: Snapshot, start: Snapshot) -> Measurement:
    r"""Return norm(f_t - g_t) / norm(g_t - f_0) on probes, g_t after t steps of GD under the fixed Theta_0.

    With Theta_0(X, X) / N = Q diag(l) Q^T over training samples and outputs, full-batch gradient descent on
    the MSE gives

        g_t(x) = f_0(x) + Theta_0(x, X) / N  Q diag((1 - (1 - eta l)^t) / l) Q^T (y - f_0(X)).

    That is a polynomial of degree t in the kernel, applied to y - f_0(X), and so lies in a Krylov space of at
    most t dimensions: its Ritz values and vectors stand for l and Q, and the matrix is never formed. Neither
    gamma nor the parameterization occurs in it: both are in the lr-weighted kernel.

    Returns:
        ``kernel_gd_error`` per cell; 0 at init.

    References:
        Lee et al. (2019), arXiv 1902.06720, eq. 8-11 (there for gradient flow); Saad (1992), "Analysis of
        some Krylov subspace approximations to the matrix exponential operator", theorem 5.1, for the error.
    """
    ensemble = now.ensemble
    expected = _descended(now, start, "targets")
    if not ensemble.cells[0].center_output:
        expected = expected - _descended(now, start, "outputs") / ensemble.gamma
    actual = (now.raw_outputs("probe") - start.raw_outputs("probe")).double() / ensemble.gamma
    return Measurement(trace={"kernel_gd_error": relative_error(actual - expected, expected)})


def prepare(start: Snapshot) -> None:
    """Compute the modes of the kernel at init, which every later step takes."""
    for what in ("targets",) if start.ensemble.cells[0].center_output else ("targets", "outputs"):
        start.shared(f"kernel_gd/{what}", lambda what=what: kernel_modes(start, what))  # type: ignore[misc]


def _descended(now: Snapshot, start: Snapshot, what: str) -> Float[Tensor, "cell probe output"]:
    """How much y, or the raw outputs at init, move the probes in the steps until now."""
    (values, components, pushed), origin = start.shared(
        f"kernel_gd/{what}", lambda: kernel_modes(start, what)
    )
    change = pushed.new_empty(len(origin), pushed.shape[1])
    for one in range(values.shape[0]):
        mine = origin == one
        factor = geometric_sum(values[one], now.ensemble.lr[mine], now.step)
        change[mine] = (components[one] * factor) @ pushed[one].mT
    return change.view(len(origin), -1, now.ensemble.targets["probe"].shape[2])


def kernel_modes(
    start: Snapshot, what: str
) -> tuple[
    Float[Tensor, "start mode"], Float[Tensor, "start mode"], Float[Tensor, "start probe_output mode"]
]:
    """Ritz values of Theta_0(X, X) / N, components of the vector, Theta_0(probe, X) / N of Ritz vectors.

    The space is in float64: the smallest modes are lost in rounding otherwise. Products are in the precision
    of training.
    """
    ensemble = start.ensemble
    train, probe = ensemble.inputs["train"], ensemble.inputs["probe"]
    x = torch.cat([train, probe], 1)
    count, targets = train.shape[1], ensemble.targets["train"]
    steps = ensemble.cells[0].steps
    limit = min(steps, targets[0].numel())
    tolerance = 1e-12 if ensemble.dtype == torch.float64 else 1e-8
    found = []
    for model, parameters in start.parts(8 * limit * x.shape[1] * targets.shape[2]):
        product, outputs = kernel_product(model, parameters, x, count)
        vector = targets.expand(len(outputs), -1, -1) if what == "targets" else outputs[:, :count]
        found.append(_krylov_modes(product, vector, steps, tolerance))
    most = max(values.shape[1] for values, *_ in found)
    values, components, pushed = (
        torch.cat([nn.functional.pad(part, (0, most - part.shape[-1])) for part in parts])
        for parts in zip(*found, strict=True)
    )
    return values, components, pushed


def _krylov_modes(
    product: Product, vector: Float[Tensor, "cell sample output"], steps: int, tolerance: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Modes of a product over training samples and probes, as far as ``steps`` can tell them apart."""
    pushed: list[Tensor] = []
    samples, size = vector.shape[1], vector[0].numel()

    def on_train(some: Tensor) -> Tensor:
        both = product(some.to(vector)).double() / samples
        pushed.append(both[:, size:])
        return both[:, :size]

    start = vector.flatten(1).double()
    norm = start.norm(dim=1, keepdim=True)
    unit = start / torch.where(norm > 0, norm, 1.0)
    limit = min(steps, size)
    for step, space in enumerate(lanczos(on_train, unit, limit, keep=True), 1):
        if step == limit or step % _CHECK_EVERY == 0:
            found = ritz(space)
            if bool((_error(found, steps) <= tolerance).all()):
                break
    values = torch.where(found.finite[:, None], found.values.clamp_min(0), torch.nan).to(unit)
    vectors = found.vectors.to(unit)
    return values, norm * vectors[:, 0], torch.stack(pushed, 2) @ vectors


def _error(found: Ritz, steps: int) -> Float[Tensor, "cell"]:
    """Estimated relative error of what ``steps`` of descent do to the training set, at the worst rate."""
    top = found.values[:, -1:]
    share = torch.where(top > 0, found.values / top, 0.0).clamp_min(0)
    first, last = found.vectors[:, None, 0], found.vectors[:, None, -1]
    factor = geometric_sum(share, _RATES, steps)
    missing = found.beta[:, None] / top * (last * factor * first).sum(2).abs()
    moved = (share[:, None] * factor * first).norm(dim=2)
    return torch.where(missing > 0, missing / moved, 0.0).amax(1)


def geometric_sum(
    spectrum: Float[Tensor, "*cell mode"], lr: Float[Tensor, "rate"], step: int
) -> Float[Tensor, "*cell rate mode"]:
    """Return sum_{s<t} eta (1 - eta l)^s = (1 - (1 - eta l)^t) / l, also where l is 0 or rounding."""
    rate = lr[:, None] * spectrum.unsqueeze(-2)
    small = -torch.expm1(step * torch.log1p(-rate.clamp_max(0.5)))
    # Beyond 2 / l the linear model diverges; bounded, so that the ratio still has its limit, 1.
    large = (1 - (1 - rate) ** step).nan_to_num(posinf=1e100, neginf=-1e100).clamp(-1e100, 1e100)
    total = torch.where(rate < 0.5, small, large)
    tiny = rate < 1e-14
    return lr[:, None] * torch.where(tiny, float(step), total / torch.where(tiny, 1.0, rate))
