"""Gradient flow, the limit of gradient descent for small steps."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor, nn

from runner.errors import UserError
from runner.grid.cell import Cell
from runner.numerics.runge_kutta import EVALUATIONS, DormandPrince, Pace
from runner.optim.base import Optimizer
from runner.optim.checks import positive
from runner.optim.slot import Slot

_TF32 = 2.0**-10
"""Unit of rounding of products in TF32."""


@dataclass(kw_only=True, eq=False)
class Flow(Optimizer):
    """Gradient flow, ``d p / dt = -gamma^2 * r^(-c) * grad``, of which a step is a time of lr.

    Step t stands at the time lr * t, as that of :class:`runner.optim.SGD`. Inside a step every cell takes the
    substeps that it needs, see :mod:`runner.numerics.runge_kutta`. Errors are measured in the norm of the
    tangent kernel, sqrt(sum_l |p_l|^2 / (gamma^2 k_l r^(-c_l))), in which gradient flow is steepest descent.

    ``update`` takes no step, it leaves the slope where the integrator finds it, so that whatever descends on
    an optimizer evaluates the flow, too.

    Args:
        tolerance: Error of a substep over the distance that a step covers at the present speed.
        max_substeps: Of a step. One as short as that is taken though its error is larger, as where a relu
            switches; a cell for whose sharpness even that is too long is diverged.
        weight_decay: See :class:`runner.optim.Optimizer`, coupled: part of the flow.

    Attributes:
        evaluations: Gradients in a step, for the planner: smooth networks take one to three substeps, relu
            ten to a hundred, the more the smaller the network and the training set.

    References:
        Cohen et al. (2021), "Gradient descent on neural networks typically occurs at the edge of stability",
        arXiv 2103.00065, whose networks follow the flow, integrated by Runge-Kutta, until the edge.
    """

    evaluations: ClassVar[float] = 10.0 * EVALUATIONS

    tolerance: float = 1e-5
    max_substeps: int = 100

    def __post_init__(self, model: nn.Module, cells: Sequence[Cell], lr: Float[Tensor, "cell"]) -> None:
        self.tolerance, self.max_substeps = integration("optimizer", self.tolerance, self.max_substeps)
        _check(self, cells[0])
        self.pace = Pace.begin(lr)
        self._tf32 = cells[0].precision == "tf32"
        super().__post_init__(model, cells, lr)

    def update(self, slot: Slot, parameter: Tensor, gradient: Tensor) -> None:
        """Leave the slope of one parameter where :meth:`solver` finds it; the parameter stays."""
        torch.mul(gradient, slot.rate, out=self._slopes[slot.path])

    def solver(self, parameters: Sequence[Tensor]) -> DormandPrince:
        """Return what takes steps with these parameters, which belong to the present cells."""
        state = [parameter.detach() for parameter in parameters]
        return DormandPrince(
            state,
            [self._slopes[slot.path] for slot in self.slots],
            self.pace,
            self._norm,
            tolerance=self.tolerance,
            least=1 / self.max_substeps,
            rounding=_TF32 if self._tf32 else torch.finfo(state[0].dtype).eps,
        )

    def reported(self) -> dict[str, Float64[Tensor, "cell"]]:
        """Return ``flow_error``, the error estimates of all substeps over the length of the path."""
        error, length = self.pace.error, self.pace.length
        return {"flow_error": torch.where(error == 0, 0.0, error / length)}

    def select(self, index: Int[Tensor, "kept"]) -> None:
        """Keep the cells at ``index``, in that order."""
        super().select(index)
        self.pace.select(index)

    def state_dict(self) -> dict[str, Tensor]:
        """Return what a later run needs to go on from here, the pace of every cell included."""
        return super().state_dict() | {f"pace/{name}": value for name, value in self.pace.named().items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what :meth:`state_dict` returned, for the same cells in the same order."""
        pace = {f"pace/{name}": value for name, value in self.pace.named().items()}
        if any(name not in state or state[name].shape != value.shape for name, value in pace.items()):
            raise ValueError("state of another optimizer or number of cells")
        super().load_state_dict({name: value for name, value in state.items() if name not in pace})
        for name, value in pace.items():
            value.copy_(state[name])

    def _norm(self, parts: Iterable[Tensor]) -> Float64[Tensor, "cell"]:
        """Norm of a change of all parameters, in the order of the slots."""
        norms = [
            torch.linalg.vector_norm(part.flatten(1), dim=1).double() / slot.root
            for slot, part in zip(self.slots, parts, strict=True)
        ]
        norm: Tensor = torch.linalg.vector_norm(torch.stack(norms), dim=0)
        return norm

    def _renew_scratch(self) -> None:
        """Give slopes memory of their own, too: an integrator reads all of them after an evaluation."""
        super()._renew_scratch()
        self._slopes = {
            slot.path: slot.minus_lr.new_empty(len(slot.root), *slot.shape) for slot in self.slots
        }


def integration(section: str, tolerance: object, max_substeps: object) -> tuple[float, int]:
    """Return the tolerance of the flow and its most substeps; raises UserError where they cannot be."""
    found = positive(f"{section}.tolerance", tolerance, "e.g. 1e-5")
    if found > 0.1:
        raise UserError(f"{section}.tolerance must be at most 0.1, got {found:g}; e.g. 1e-5")
    if isinstance(max_substeps, bool) or not isinstance(max_substeps, int) or max_substeps < 1:
        raise UserError(f"{section}.max_substeps must be an integer >= 1, got {max_substeps!r}; e.g. 100")
    return found, max_substeps


def _check(flow: Flow, cell: Cell) -> None:
    """Raise UserError for what has no meaning where there are no steps."""
    online = json.loads(cell.settings).get("data", {}).get("online")
    wrong = (
        ("data.online", "false", "true", online, "the gradient of fresh samples is no flow"),
        ("batch_size", "null", cell.batch_size, cell.batch_size, "use full batch"),
        ("optimizer.clip", "null", flow.clip, flow.clip is not None, "leave it out"),
        ("optimizer.schedule", "constant", flow.schedule, flow.schedule != "constant", "leave it out"),
        ("optimizer.warmup", "0", flow.warmup, flow.warmup != 0, "leave it out"),
    )
    for key, rule, value, broken, remedy in wrong:
        if broken:
            raise UserError(f"{key} must be {rule} for gradient flow, got {value}; {remedy}")
