"""Optimizers whose learning rate is one number per cell and parameter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from runner.cell import Cell
from runner.layers import parameters_of
from runner.parameterization import OptimizerFamily, lr_factor


class SGD:
    """Gradient descent, ``p <- p - lr * gamma^2 * r^(-c) * grad``.

    Args:
        model: The initialized ensemble.
        cells: Its cells.
        lr: Base learning rate of every cell, absolute.

    References:
        Factor gamma^2: Chizat, Oyallon & Bach (2019), arXiv 1812.07956, eq. 3 with alpha = 1 / gamma.
    """

    family: ClassVar[OptimizerFamily] = "sgd"

    def __init__(self, model: nn.Module, cells: Sequence[Cell], lr: Float[Tensor, "cell"]) -> None:
        gamma = torch.tensor([cell.gamma for cell in cells], dtype=torch.float64)
        self.minus_lr: list[Tensor] = []
        for _, spec, parameter, _ in parameters_of(model):
            rate = lr.double().cpu() * gamma**2 * lr_factor(cells, spec.role, self.family)
            self.minus_lr.append((-rate).to(parameter).view(-1, *(1,) * len(spec.shape)))

    @torch.no_grad()
    def step(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        """Update the parameters in place.

        Args:
            parameters: In the order of :func:`runner.layers.parameters_of`.
            gradients: Of each cell's own loss, likewise.
        """
        for parameter, gradient, minus_lr in zip(parameters, gradients, self.minus_lr, strict=True):
            parameter.addcmul_(gradient, minus_lr)

    def select(self, index: Tensor) -> None:
        """Keep only the cells at ``index``."""
        self.minus_lr = [rate[index] for rate in self.minus_lr]
