"""The spectrum of the train kernel: how fast its fastest and its slowest direction are learned."""

import torch
from jaxtyping import Float
from torch import Tensor

from runner.errors import unknown
from runner.measures.kernel import empirical_ntk, empirical_ntk_full, ntk_bytes
from runner.measures.snapshot import Measurement, Snapshot
from runner.numerics.eigen import spectra

KERNELS = ("full", "trace")


def kernel_rows(kernel: str, samples: int, outputs: int) -> int:
    """Return the rows of a train kernel.

    Args:
        kernel: ``full`` or ``trace``.

    Raises:
        UserError: If there is no such kernel.
    """
    if kernel not in KERNELS:
        raise unknown("measure.functions.spectrum.kernel", kernel, KERNELS)
    return samples * outputs if kernel == "full" else samples


def spectrum(now: Snapshot, start: Snapshot, *, kernel: str = "full") -> Measurement:
    r"""Return the ends and the effective rank of the lr-weighted train kernel over N predictions.

    With eigenvalues l_i and shares p_i = l_i / sum_j l_j, the effective rank is exp(-sum_i p_i log p_i).

    Args:
        kernel: ``full``, of all samples and outputs; or ``trace``, over outputs and divided by their number,
            the one that is inverted in kernel regression. For one output they are the same, for more they
            are at infinite width, where the full one has each eigenvalue of the trace once per output; at
            finite width its smallest is no larger than that of the trace.

    Returns:
        ``lambda_min``, ``condition_number`` (infinite where lambda_min is lost in rounding) and
        ``effective_rank`` per cell.

    Raises:
        UserError: If there is no such kernel.

    References:
        Roy & Vetterli (2007), "The effective rank", EUSIPCO, eq. 2.
    """
    values = eigenvalues(now, kernel=kernel)
    low, high = values[:, 0], values[:, -1]
    rounding = torch.finfo(values.dtype).eps * values.shape[1] * high
    share = values / values.sum(1, keepdim=True)
    return Measurement(
        trace={
            "lambda_min": low,
            "condition_number": torch.where(low > rounding, high / low, torch.inf),
            "effective_rank": torch.special.entr(share).sum(1).exp(),
        }
    )


def eigenvalues(snapshot: Snapshot, *, kernel: str = "full") -> Float[Tensor, "cell mode"]:
    """Return all eigenvalues of the train kernel over N, ascending, kept on the snapshot.

    Args:
        kernel: ``full`` or ``trace``, as for :func:`spectrum`.
    """
    return snapshot.cached(f"spectrum/{kernel}", lambda: _eigenvalues(snapshot, kernel))


def _eigenvalues(snapshot: Snapshot, kernel: str) -> Float[Tensor, "cell mode"]:
    """Ascending, none below 0; in float64 throughout, since rounding would hide the smallest."""
    x = snapshot.ensemble.inputs["train"]
    samples = x.shape[1]
    size = kernel_rows(kernel, samples, snapshot.raw_outputs("train").shape[2])
    compute = empirical_ntk_full if kernel == "full" else empirical_ntk
    found = []
    # Products in TF32 lose more digits of the gradients than the smallest eigenvalue can spare.
    double = snapshot.ensemble.cells[0].precision == "tf32"
    x = x.double() if double and x.is_floating_point() else x
    for model, parameters in snapshot.parts(3 * max(8 * size**2, ntk_bytes(snapshot, samples))):
        if double:
            parameters = {path: value.double() for path, value in parameters.items()}
        matrix = compute(model, parameters, x, precise=True).reshape(-1, size, size)
        found.append(spectra(matrix / (samples * snapshot.ensemble.positions)))
    return torch.cat(found)
