"""How far training is from gradient flow, the limit of small steps."""

import torch
from jaxtyping import Float
from torch import Tensor

from runner.data.order import Batch
from runner.measures.linearization import relative_error
from runner.measures.snapshot import Measurement, Snapshot
from runner.models.descent import descent_on
from runner.optim import Flow

_KEPT = "flow/"
"""Of the start: where the flow has come to, as checkpoints carry it along."""


def flow_distance(
    now: Snapshot, start: Snapshot, *, tolerance: float = 1e-5, max_substeps: int = 100
) -> Measurement:
    r"""Return norm(f_t - f(lr t)) / norm(f(lr t) - f_0) on probes, f(s) gradient flow from the same init.

    The same of the raw parameters, norm(theta_t - theta(lr t)) / norm(theta(lr t) - theta_0). Under
    full-batch gradient descent both are of order lr for small steps. Flow may sharpen without a bound, while
    descent leaves it about when lr * sharpness comes to 2.

    The flow is followed step by step, whatever the measured steps, and goes on from where it was left: its
    weights are kept with the start, and in checkpoints.

    Args:
        tolerance: As of :class:`runner.optim.Flow`; so is the other.

    Returns:
        ``flow_distance``, ``flow_weight_distance`` and ``flow_error``, the flow's own error estimate, per
        cell; 0 at init, NaN where the flow cannot be integrated.

    References:
        Cohen et al. (2021), arXiv 2103.00065: gradient descent tracks gradient flow until the sharpness
        reaches 2 / lr. Order lr: Elkabetz & Cohen (2021), arXiv 2107.06608.
    """
    flow, error = _followed(now, start, tolerance, max_substeps)
    raw = flow.raw_outputs("probe")
    parts = [
        torch.stack(
            [(a.parameters[path] - b.parameters[path]).flatten(1).norm(dim=1) for path in a.parameters], 1
        )
        for a, b in ((now, flow), (flow, start))
    ]
    return Measurement(
        trace={
            "flow_distance": relative_error(now.raw_outputs("probe") - raw, raw - start.raw_outputs("probe")),
            "flow_weight_distance": relative_error(parts[0][:, :, None], parts[1][:, :, None]),
            "flow_error": error,
        }
    )


def _followed(
    now: Snapshot, start: Snapshot, tolerance: float, max_substeps: int
) -> tuple[Snapshot, Float[Tensor, "cell"]]:
    """Bring the flow to the present step; returns its snapshot and its error estimate."""
    cells = now.ensemble.cells
    ensemble = now.ensemble.some(torch.arange(len(cells), device=now.ensemble.device))
    flow = Flow(ensemble.model, cells, ensemble.lr, tolerance=tolerance, max_substeps=max_substeps)
    kept = {
        name.removeprefix(_KEPT): value for name, value in start.guesses.items() if name.startswith(_KEPT)
    }
    for path, parameter in ensemble.parameters.items():
        parameter.detach().copy_(kept.pop(path) if kept else start.parameters[path])
    if kept:
        flow.load_state_dict(kept | {"step": kept["step"][0]})
    descent = descent_on(ensemble, flow)
    while flow.taken < now.step:
        flow.begin()
        descent(Batch())
    state = {path: parameter.detach() for path, parameter in ensemble.parameters.items()} | flow.state_dict()
    state["step"] = torch.full((len(cells),), flow.taken, device=ensemble.device)
    start.guesses |= {f"{_KEPT}{name}": value for name, value in state.items()}
    return Snapshot(ensemble, now.step), flow.reported()["flow_error"]
