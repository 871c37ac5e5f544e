"""The spectrum of the train kernel: how fast its fastest and its slowest direction are learned."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from runner.eigen import spectra
from runner.measures.kernel import empirical_ntk_full
from runner.measures.snapshot import Measurement, Snapshot


def spectrum(now: Snapshot, start: Snapshot) -> Measurement:
    r"""Return the ends and the effective rank of the full lr-weighted train kernel over N.

    With eigenvalues l_i and shares p_i = l_i / sum_j l_j, the effective rank is exp(-sum_i p_i log p_i).

    Args:
        now: The moment.
        start: Init; not used.

    Returns:
        ``lambda_min``, ``condition_number`` (infinite where lambda_min is lost in rounding) and
        ``effective_rank`` per cell.

    References:
        Roy & Vetterli (2007), "The effective rank", EUSIPCO, eq. 2.
    """
    values = now.cached("spectrum", lambda: _eigenvalues(now))
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


def _eigenvalues(snapshot: Snapshot) -> Float[Tensor, "cell mode"]:
    """Ascending, none below 0; in float64 throughout, since rounding would hide the smallest."""
    x = snapshot.ensemble.inputs["train"].double()
    size = x.shape[1] * snapshot.raw_outputs("train").shape[2]
    found = []
    for model, parameters in snapshot.parts(3 * 8 * size**2):
        precise = {path: value.double() for path, value in parameters.items()}
        kernel = empirical_ntk_full(model, precise, x).reshape(-1, size, size)
        found.append(spectra(kernel / x.shape[1]))
    return torch.cat(found)
