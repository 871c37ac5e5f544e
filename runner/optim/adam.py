"""Adam, with decay in the gradient or apart from it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from runner.grid.cell import Cell
from runner.numerics.operations import Blend, Step
from runner.optim.base import Optimizer
from runner.optim.checks import positive, two_below_one
from runner.optim.slot import EPS, RATE, Factors, Slot
from runner.scaling.parameterization import OptimizerFamily


@dataclass(kw_only=True, eq=False)
class Adam(Optimizer):
    """Adam, ``p <- p - lr * gamma * r^(-c) * m / (sqrt(v) + eps)``, with bias corrections.

    m and v are the running means of the gradient and of its square, as in ``torch.optim.Adam``. The step is
    the same for a gradient of any scale, so gamma enters once, not squared, and c is Adam's; eps alone has
    the gradient's units, and scales with it.

    Args:
        betas: Weights of the past in m and in v, in [0, 1).
        eps: Added to sqrt(v), for gamma 1 at base width.
        weight_decay: See :class:`runner.optim.Optimizer`, coupled: part of the gradient; so are the others.

    References:
        Kingma & Ba (2015), arXiv 1412.6980, algorithm 1. Exponents, and the scale of the gradient before
        the nonlinearity: Yang & Littwin (2023), "Tensor Programs IVb", arXiv 2308.01814. Why eps must scale
        with the gradient: Everett et al. (2024), arXiv 2407.05872.
    """

    family: ClassVar[OptimizerFamily] = "adam"
    remembers = ("mean", "square")

    betas: Sequence[float] = (0.9, 0.999)
    eps: float = 1e-8

    def __post_init__(self, model: nn.Module, cells: Sequence[Cell], lr: Float[Tensor, "cell"]) -> None:
        self.betas = two_below_one("optimizer.betas", self.betas)
        self.eps = positive("optimizer.eps", self.eps, "a weight without gradient is 0/0 without it")
        super().__post_init__(model, cells, lr)

    def factors_of(self, step: int) -> Factors:
        """Return what a step multiplies by; the bias corrections of m and v are in its rate and its eps."""
        factor = super().factors_of(step).schedule
        first, second = (1 - beta ** (step + 1) for beta in self.betas)
        return Factors(factor, factor * math.sqrt(second) / first, math.sqrt(second))

    def update(self, slot: Slot, parameter: Tensor, gradient: Tensor) -> None:
        """Update one parameter in place; see :meth:`runner.optim.Optimizer.update`."""
        mean, square = moments(slot, gradient, self.betas)
        # The gradient is not needed any more, so the scratch is free.
        size = torch.sqrt(square, out=slot.scratch).add_(slot.eps_now)
        parameter.addcmul_(torch.div(mean, size, out=slot.scratch), slot.rate)

    def compiled(self, slot: Slot, parameter: Tensor, gradient: Tensor) -> list[Step]:
        """Return what a compiled step does; see :meth:`runner.optim.Optimizer.compiled`."""
        (first, second), mean, square = self.betas, slot.state["mean"], slot.state["square"]
        return [
            *super().compiled(slot, parameter, gradient),
            Blend("itself", mean, gradient, keep=first, factor=1 - first),
            Blend("square", square, gradient, keep=second, factor=1 - second),
            Blend(
                "ratio", parameter, mean, square,
                each=slot.minus_lr, now=RATE, also=slot.eps, then=EPS,
            ),
        ]  # fmt: skip


@dataclass(kw_only=True, eq=False)
class AdamW(Adam):
    """:class:`Adam` with decoupled decay, ``p <- p - lr * gamma * weight_decay * p`` before each step.

    Args:
        independent_decay: Whether the share lost in a step is weight_decay alone, without lr.

    References:
        Loshchilov & Hutter (2019), "Decoupled weight decay regularization", arXiv 1711.05101.
    """

    decoupled: ClassVar[bool] = True

    weight_decay: float = 0.01
    independent_decay: bool = False


@dataclass(kw_only=True, eq=False)
class AdamAtan2(Optimizer):
    """Adam without eps, ``p <- p - lr * gamma * r^(-c) * a * atan2(m, b * sqrt(v))``, with Adam's c.

    m and v are Adam's, with bias corrections. A gradient of any scale gives the same step, so that nothing
    has the gradient's units; a weight without gradient stays.

    Args:
        betas: Weights of the past in m and in v, in [0, 1).
        a: Factor of the step; with 4 / pi a gradient that never changes makes steps of lr, as under Adam.
        b: Factor of sqrt(v): a * pi / 2 is the largest step, a / b the slope at m = 0.
        weight_decay: See :class:`runner.optim.Optimizer`, decoupled; so are the others.
        independent_decay: As for :class:`AdamW`.

    References:
        Everett et al. (2024), "Scaling exponents across parameterizations and optimizers", arXiv 2407.05872.
    """

    family: ClassVar[OptimizerFamily] = "adam"
    decoupled: ClassVar[bool] = True
    remembers = ("mean", "square")

    betas: Sequence[float] = (0.9, 0.999)
    a: float = 1.0
    b: float = 1.0
    independent_decay: bool = False

    def __post_init__(self, model: nn.Module, cells: Sequence[Cell], lr: Float[Tensor, "cell"]) -> None:
        self.betas = two_below_one("optimizer.betas", self.betas)
        self.a = positive("optimizer.a", self.a, "1 is the plain atan2")
        self.b = positive("optimizer.b", self.b, "1 is the plain atan2")
        # A tensor, since a recorded step reads what begin writes.
        self.correction = torch.ones_like(lr[0])
        super().__post_init__(model, cells, lr)

    def begin(self) -> None:
        """Begin a step, with the bias corrections of m and v."""
        super().begin()
        first, second = (1 - beta**self.taken for beta in self.betas)
        self.correction.fill_(self.b * first / math.sqrt(second))

    def update(self, slot: Slot, parameter: Tensor, gradient: Tensor) -> None:
        """Update one parameter in place; see :meth:`runner.optim.Optimizer.update`."""
        mean, square = moments(slot, gradient, self.betas)
        # atan2 knows the ratio alone, so one of the two takes all corrections.
        size = torch.sqrt(square, out=slot.scratch).mul_(self.correction)
        parameter.addcmul_(torch.atan2(mean, size, out=slot.scratch), slot.rate, value=self.a)


def moments(slot: Slot, gradient: Tensor, betas: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Bring the running means of the gradient and of its square up to date, and return them."""
    first, second = betas
    mean = slot.state["mean"].lerp_(gradient, 1 - first)
    return mean, slot.state["square"].mul_(second).addcmul_(gradient, gradient, value=1 - second)
