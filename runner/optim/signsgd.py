"""Gradient descent on signs, and Lion."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from runner.grid.cell import Cell
from runner.numerics.operations import Blend, Step
from runner.optim.base import Optimizer
from runner.optim.checks import below_one, two_below_one
from runner.optim.slot import RATE, Slot
from runner.scaling.parameterization import OptimizerFamily


@dataclass(kw_only=True, eq=False)
class SignSGD(Optimizer):
    """Sign descent, ``p <- p - lr * gamma * r^(-c) * sign(grad)``, with Adam's c.

    It is Adam without memory and without eps; with momentum, the sign of a running mean (Signum).

    Args:
        momentum: Weight of the past in the running mean, in [0, 1).
        weight_decay: See :class:`runner.optim.Optimizer`, decoupled; so are the others.
        independent_decay: As for :class:`runner.optim.AdamW`.
        clip: Largest norm of a cell's gradient; only Signum feels it.

    References:
        Bernstein et al. (2018), "signSGD: Compressed optimisation for non-convex problems", arXiv 1802.04434.
    """

    family: ClassVar[OptimizerFamily] = "adam"
    decoupled: ClassVar[bool] = True

    momentum: float = 0.0
    independent_decay: bool = False

    def __post_init__(self, model: nn.Module, cells: Sequence[Cell], lr: Float[Tensor, "cell"]) -> None:
        self.momentum = below_one("optimizer.momentum", self.momentum)
        self.remembers = ("mean",) if self.momentum else ()
        super().__post_init__(model, cells, lr)

    def update(self, slot: Slot, parameter: Tensor, gradient: Tensor) -> None:
        """Update one parameter in place; see :meth:`runner.optim.Optimizer.update`."""
        if self.momentum:
            gradient = slot.state["mean"].lerp_(gradient, 1 - self.momentum)
        parameter.addcmul_(torch.sign(gradient, out=slot.scratch), slot.rate)

    def compiled(self, slot: Slot, parameter: Tensor, gradient: Tensor) -> list[Step]:
        """Return what a compiled step does; see :meth:`runner.optim.Optimizer.compiled`."""
        steps = super().compiled(slot, parameter, gradient)
        if self.momentum:
            mean = slot.state["mean"]
            steps.append(Blend("itself", mean, gradient, keep=self.momentum, factor=1 - self.momentum))
            gradient = mean
        return [*steps, Blend("sign", parameter, gradient, each=slot.minus_lr, now=RATE)]


@dataclass(kw_only=True, eq=False)
class Lion(Optimizer):
    """Lion, ``p <- p - lr * gamma * r^(-c) * sign(beta_1 m + (1 - beta_1) grad)``, with Adam's c.

    Then ``m <- beta_2 m + (1 - beta_2) grad``: the present gradient weighs more in the step than in memory.

    Args:
        betas: beta_1 and beta_2, in [0, 1).
        weight_decay: See :class:`runner.optim.Optimizer`, decoupled; so are the others.
        independent_decay: As for :class:`runner.optim.AdamW`.

    References:
        Chen et al. (2023), "Symbolic discovery of optimization algorithms", arXiv 2302.06675, algorithm 2.
    """

    family: ClassVar[OptimizerFamily] = "adam"
    decoupled: ClassVar[bool] = True
    remembers = ("mean",)

    betas: Sequence[float] = (0.9, 0.99)
    independent_decay: bool = False

    def __post_init__(self, model: nn.Module, cells: Sequence[Cell], lr: Float[Tensor, "cell"]) -> None:
        self.betas = two_below_one("optimizer.betas", self.betas)
        super().__post_init__(model, cells, lr)

    def update(self, slot: Slot, parameter: Tensor, gradient: Tensor) -> None:
        """Update one parameter in place; see :meth:`runner.optim.Optimizer.update`."""
        first, second = self.betas
        mean = slot.state["mean"]
        ahead = torch.lerp(gradient, mean, first, out=slot.spare(gradient))
        parameter.addcmul_(ahead.sign_(), slot.rate)
        mean.lerp_(gradient, 1 - second)

    def compiled(self, slot: Slot, parameter: Tensor, gradient: Tensor) -> list[Step]:
        """Return what a compiled step does; see :meth:`runner.optim.Optimizer.compiled`."""
        (first, second), mean = self.betas, slot.state["mean"]
        ahead = torch.empty_like(gradient[:1]).expand_as(gradient)
        return [
            *super().compiled(slot, parameter, gradient),
            Blend("itself", ahead, gradient, keep=0.0, factor=1 - first),
            Blend("itself", ahead, mean, factor=first),
            Blend("sign", parameter, ahead, each=slot.minus_lr, now=RATE),
            Blend("itself", mean, gradient, keep=second, factor=1 - second),
        ]
