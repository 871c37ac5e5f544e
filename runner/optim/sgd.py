"""Gradient descent, plain or with momentum."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from runner.errors import UserError
from runner.grid.cell import Cell
from runner.layers import Product
from runner.numerics.operations import Blend, Operation, Step
from runner.numerics.precision import add_product_
from runner.optim.base import Optimizer
from runner.optim.checks import below_one, flag
from runner.optim.slot import RATE, Slot


@dataclass(kw_only=True, eq=False)
class SGD(Optimizer):
    """Gradient descent, ``p <- p - lr * gamma^2 * r^(-c) * grad``, optionally with momentum.

    With momentum mu: ``v <- mu v + grad`` and v in place of the gradient, or ``grad + mu v`` after Nesterov,
    as in ``torch.optim.SGD``. For a quadratic loss the critical lr * lambda_max is then 2 (1 + mu), and
    (2 + 2 mu) / (1 + 2 mu) with Nesterov's.

    Args:
        momentum: Weight of the past, in [0, 1).
        nesterov: Whether to look ahead; needs momentum.
        weight_decay: See :class:`runner.optim.Optimizer`, coupled; so are the others.

    References:
        Factor gamma^2: Chizat, Oyallon & Bach (2019), arXiv 1812.07956, eq. 3 with alpha = 1 / gamma.
        Momentum: Sutskever, Martens, Dahl & Hinton (2013), "On the importance of initialization and momentum
        in deep learning". Its critical lr: Cohen et al. (2021), arXiv 2103.00065, appendix B.
    """

    momentum: float = 0.0
    nesterov: bool = False

    def __post_init__(self, model: nn.Module, cells: Sequence[Cell], lr: Float[Tensor, "cell"]) -> None:
        self.momentum = below_one("optimizer.momentum", self.momentum)
        self.nesterov = flag("optimizer.nesterov", self.nesterov)
        if self.nesterov and not self.momentum:
            raise UserError("optimizer.momentum must be > 0 with optimizer.nesterov=true, got 0; e.g. 0.9")
        self.remembers = ("momentum",) if self.momentum else ()
        super().__post_init__(model, cells, lr)

    def update(self, slot: Slot, parameter: Tensor, gradient: Tensor) -> None:
        """Update one parameter in place; see :meth:`runner.optim.Optimizer.update`."""
        if self.momentum:
            past = slot.state["momentum"].mul_(self.momentum).add_(gradient)
            ahead = self.nesterov
            gradient = torch.add(gradient, past, alpha=self.momentum, out=slot.scratch) if ahead else past
        parameter.addcmul_(gradient, slot.rate)

    def compiled(self, slot: Slot, parameter: Tensor, gradient: Tensor) -> list[Step]:
        """Return what a compiled step does; see :meth:`runner.optim.Optimizer.compiled`."""
        steps = super().compiled(slot, parameter, gradient)
        if self.momentum:
            past = slot.state["momentum"]
            steps.append(Blend("itself", past, gradient, keep=self.momentum))
            if self.nesterov:
                steps.append(Blend("itself", gradient, past, factor=self.momentum))
            else:
                gradient = past
        return [*steps, Blend("itself", parameter, gradient, each=slot.minus_lr, now=RATE)]

    def compiled_product(self, slot: Slot, parameter: Tensor, gradient: Operation) -> list[Step]:
        """Return what a compiled step does; plain descent adds the product without forming it."""
        if self.momentum or self.weight_decay or gradient.also is not None:
            return super().compiled_product(slot, parameter, gradient)
        weight = parameter.view(len(parameter), *gradient.out.shape[1:])
        return [gradient._replace(out=weight, also=slot.minus_lr, now=RATE, add=True)]

    @torch.no_grad()
    def apply_product(self, slot: Slot, parameter: Tensor, gradient: Product) -> None:
        """Update one parameter in place; plain descent adds the product to it without forming it."""
        if self.momentum or self.weight_decay:
            super().apply_product(slot, parameter, gradient)
        else:
            left, right, factor = gradient
            add_product_(parameter, left, right.mul_(slot.rate), alpha=factor)
