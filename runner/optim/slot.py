"""What an optimizer holds of a parameter, and what its steps multiply that by."""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from runner.scaling.parameterization import Role


@dataclass
class Slot:
    """What an optimizer holds of one parameter; all tensors start with a ``cell`` axis.

    Attributes:
        path: Of the parameter.
        role: Of the parameter.
        shape: Of the parameter within one cell.
        minus_lr: Learning rate, negative, shaped to multiply a gradient; so are the next six.
        rate: What the step at hand multiplies a direction by: ``minus_lr`` and the schedule's factor.
        ridge: Coefficient of coupled decay.
        minus_decay: Share of the weight lost in a step to decoupled decay, negative.
        shrink: The same, for the step at hand.
        eps: Adam's, in units of this parameter's gradient.
        eps_now: The same, for the step at hand.
        root: Weight of the gradient in its norm, ``[cell]``.
        state: What the update remembers, by name.
        scratch: Room for one gradient, shared by all slots.
        product: Room for one gradient that is given as a product, shared by all slots.
    """

    path: str
    role: Role
    shape: tuple[int, ...]
    minus_lr: Tensor
    rate: Tensor
    ridge: Tensor
    minus_decay: Tensor
    shrink: Tensor
    eps: Tensor
    eps_now: Tensor
    root: Float[Tensor, "cell"]
    state: dict[str, Tensor] = field(default_factory=dict)
    scratch: Tensor = field(default_factory=lambda: torch.empty(0))
    product: Tensor = field(default_factory=lambda: torch.empty(0))

    def spare(self, gradient: Tensor) -> Tensor:
        """Return the one of scratch and product that a gradient does not lie in."""
        return self.product if gradient is self.scratch else self.scratch

    def select(self, index: Int[Tensor, "kept"]) -> None:
        """Keep the cells at ``index``; scratch and product are the optimizer's to renew."""
        for name in ("minus_lr", "rate", "ridge", "minus_decay", "shrink", "eps", "eps_now", "root"):
            setattr(self, name, getattr(self, name)[index])
        self.state = {name: value[index] for name, value in self.state.items()}


class Factors(NamedTuple):
    """What a step multiplies by, the same for all cells and parameters.

    Attributes:
        schedule: Shares of weights that are lost to decay.
        rate: Learning rates: the schedule, and corrections of an optimizer.
        eps: Adam's eps.
    """

    schedule: float = 1.0
    rate: float = 1.0
    eps: float = 1.0


SCHEDULE, RATE, EPS = range(3)
"""Columns of a table of :class:`Factors`."""
