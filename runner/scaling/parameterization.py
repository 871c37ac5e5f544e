"""The abc table: how multiplier, init and learning rate of a weight scale with width.

With ``r = width / base_width`` and the exponents of a weight's role::

    W = r^(-a) * w                                        the multiplier, in the forward pass
    w ~ N(0, sigma^2 / fan_in_base * r^(-2 b))            the init
    lr = eta * r^(-c)                                     the learning rate; c depends on the optimizer

References:
    Yang & Hu (2021), "Tensor Programs IV: Feature Learning in Infinite-Width Neural Networks",
    arXiv 2011.14522, section 3 (abc-parametrizations).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float64
from torch import Tensor

from runner.errors import UserError
from runner.grid.cell import Cell

Role = Literal["input", "hidden", "output", "vector", "scalar"]
"""Which dimensions of a parameter grow with width.

``input``: fan_out only; ``hidden``: both; ``output``: fan_in only; ``vector``: a bias or gain of a hidden
layer, scaled as ``input``; ``scalar``: none (the bias of the output), not scaled at all.
"""

ROLES: tuple[Role, ...] = get_args(Role)
OptimizerFamily = Literal["sgd", "adam"]


@lru_cache(maxsize=256)
def _table(exponents: str) -> dict[str, Any]:
    table: dict[str, Any] = json.loads(exponents)
    return table


def _exponent(table: dict[str, Any], role: Role) -> float:
    if role == "scalar":
        return 0.0
    return float(table["input" if role == "vector" else role])


def _rates(cell: Cell, family: OptimizerFamily) -> dict[str, Any]:
    rates: dict[str, dict[str, Any]] = _table(cell.exponents)["c"]
    if family not in rates:
        raise UserError(
            f"parameterization.c must have a row {family} for this optimizer, got {', '.join(sorted(rates))} "
            f"in {cell.parameterization}; add {family}: {{input: 0, hidden: 0, output: 0}} to its file"
        )
    return rates[family]


def width_ratio(cells: Sequence[Cell]) -> Float64[Tensor, "cell"]:
    """Return r = width / base_width of every cell."""
    return torch.tensor([cell.width / cell.base_width for cell in cells], dtype=torch.float64)


def multiplier(cells: Sequence[Cell], role: Role) -> Float64[Tensor, "cell"]:
    """Return r^(-a), the factor between a raw weight and the weight in force.

    Args:
        cells: The cells of a pack.
        role: Role of the weight.

    Returns:
        One factor per cell.
    """
    a = [_exponent(_table(cell.exponents)["a"], role) for cell in cells]
    return width_ratio(cells) ** -torch.tensor(a, dtype=torch.float64)


def attention_factor(cells: Sequence[Cell]) -> Float64[Tensor, "cell"]:
    """Return r^(-e), what attention logits are multiplied by beside 1 / sqrt(d_head).

    The exponent e is ``attention`` in the table, 0 if absent. Queries and keys are independent at init, so
    that their product grows as sqrt(d_head); once both learn features it grows as d_head, and e = 1/2 keeps
    it bounded.

    Args:
        cells: The cells of a pack.

    Returns:
        One factor per cell.

    References:
        Yang et al. (2022), "Tensor Programs V", arXiv 2203.03466, definition 4.1.
    """
    e = [float(_table(cell.exponents).get("attention", 0.0)) for cell in cells]
    return width_ratio(cells) ** -torch.tensor(e, dtype=torch.float64)


def init_std(cells: Sequence[Cell], role: Role, fan_in: int, sigma: float) -> Float64[Tensor, "cell"]:
    """Return the standard deviation of a raw weight at init, sigma / sqrt(fan_in_base) * r^(-b).

    Args:
        cells: The cells of a pack.
        role: Role of the weight.
        fan_in: Inputs summed over at the cell's width; 1 for vectors and scalars.
        sigma: Standard deviation times sqrt(fan_in) at base width.

    Returns:
        One standard deviation per cell.
    """
    ratio = width_ratio(cells)
    # Only hidden and output weights have a fan-in that grows with width.
    fan_in_base = fan_in / ratio if role in ("hidden", "output") else torch.full_like(ratio, fan_in)
    b = [_exponent(_table(cell.exponents)["b"], role) for cell in cells]
    return sigma / fan_in_base.sqrt() * ratio ** -torch.tensor(b, dtype=torch.float64)


def lr_factor(cells: Sequence[Cell], role: Role, family: OptimizerFamily = "sgd") -> Float64[Tensor, "cell"]:
    """Return r^(-c), the factor of a weight's learning rate.

    Args:
        cells: The cells of a pack.
        role: Role of the weight.
        family: ``sgd`` for (momentum) gradient descent, ``adam`` for sign-like updates.

    Returns:
        One factor per cell.

    Raises:
        UserError: If a parameterization has no exponents for the family.
    """
    c = [_exponent(_rates(cell, family), role) for cell in cells]
    return width_ratio(cells) ** -torch.tensor(c, dtype=torch.float64)


def gamma_of(cells: Sequence[Cell]) -> Float64[Tensor, "cell"]:
    """Return the richness of every cell."""
    return torch.tensor([cell.gamma for cell in cells], dtype=torch.float64)


def gradient_scale(cells: Sequence[Cell], role: Role) -> Float64[Tensor, "cell"]:
    """Return r^(c_sgd - c_adam) / gamma, how the raw gradient of a weight scales with width and gamma.

    Steps of SGD and of Adam are of one size if gradients are: r^(-c_sgd) times the gradient is r^(-c_adam)
    times a number of order one. Under a + t, b - t it changes by r^(-t), as the gradient does.

    Args:
        cells: The cells of a pack.
        role: Role of the weight.

    Returns:
        One factor per cell.

    References:
        Yang & Littwin (2023), "Tensor Programs IVb: Adaptive Optimization in the Infinite-Width Limit",
        arXiv 2308.01814: the exponent d by which gradients are scaled before the nonlinearity.
    """
    return lr_factor(cells, role, "adam") / lr_factor(cells, role, "sgd") / gamma_of(cells)
