"""The abc table: how multiplier, init and learning rate of a weight scale with width and depth.

With a ratio r of each dimension to its base, ``width / base_width`` and ``depth / base_depth``, and the
exponents of a weight's role in that dimension::

    W = r^(-a) * w                                        the multiplier, in the forward pass
    w ~ N(0, sigma^2 / fan_in_base * r^(-2 b))            the init
    lr = eta * k * r^(-c)                                 the learning rate; c depends on the optimizer

k is a role's own factor, ``optimizer.lr_input``, ``lr_hidden`` or ``lr_output``, 1 by default. It stands
beside r^(-c) wherever that stands: in the lr-weighted kernel, and so in ``lambda_max``, in the norm that
clipping looks at and in coupled decay.

A table without exponents of depth, as all are today, leaves that dimension alone.

References:
    Yang & Hu (2021), "Tensor Programs IV: Feature Learning in Infinite-Width Neural Networks",
    arXiv 2011.14522, section 3 (abc-parametrizations).
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
Factor = Float64[Tensor, "cell"]
"""One number per cell."""


@dataclass(frozen=True, eq=False)
class Table:
    """The exponents of one parameterization.

    Attributes:
        name: Name of the parameterization, for messages.
        width: Exponents of the width by quantity: ``a``, ``b``, ``attention`` and, by family, ``c``.
        depth: Those of the depth, likewise; empty for all parameterizations of today.
    """

    name: str
    width: dict[str, Any]
    depth: dict[str, Any]

    def exponent(self, dimension: str, quantity: str, role: Role, family: OptimizerFamily = "sgd") -> float:
        """Return an exponent, 0 where the table has none of this dimension.

        Args:
            dimension: ``width`` or ``depth``.
            quantity: ``a``, ``b`` or ``c``.
            family: Row of ``c``.

        Raises:
            UserError: If ``c`` has no row for the family.
        """
        table = getattr(self, dimension)
        if role == "scalar" or not table:
            return 0.0
        row = self._rates(table[quantity], family) if quantity == "c" else table[quantity]
        return float(row["input" if role == "vector" else role])

    def _rates(self, rates: dict[str, Any], family: OptimizerFamily) -> dict[str, Any]:
        if family not in rates:
            raise UserError(
                f"parameterization.c must have a row {family} for this optimizer, got "
                f"{', '.join(sorted(rates))} in {self.name}; "
                f"add {family}: {{input: 0, hidden: 0, output: 0}} to its file"
            )
        row: dict[str, Any] = rates[family]
        return row


@lru_cache(maxsize=256)
def table_of(name: str, exponents: str) -> Table:
    """Return the table that a cell keeps as JSON, parsed once."""
    content = json.loads(exponents)
    return Table(name, content, content.pop("depth", {}))


@lru_cache(maxsize=256)
def _lr_factors(settings: str) -> dict[str, float]:
    """Each role's own factor of the learning rate, of the settings that a cell keeps, parsed once."""
    section = json.loads(settings).get("optimizer", {})
    return {role: float(section.get(f"lr_{role}", 1.0)) for role in ("input", "hidden", "output")}


class Scaling:
    """How the parameters of some cells scale; one float64 number per cell for each question.

    Args:
        cells: Cells of any parameterizations, widths and depths.

    Attributes:
        ratios: Each dimension over its base; 1 for the depth where ``base_depth`` is null.
        gamma: Richness of every cell.
    """

    def __init__(self, cells: Sequence[Cell]) -> None:
        self._tables = [table_of(cell.parameterization, cell.exponents) for cell in cells]
        self._factors = [_lr_factors(cell.settings) for cell in cells]
        self.ratios: dict[str, Factor] = {
            "width": _numbers(cell.width / cell.base_width for cell in cells),
            "depth": _numbers(cell.depth / (cell.base_depth or cell.depth) for cell in cells),
        }
        self.gamma: Factor = _numbers(cell.gamma for cell in cells)

    def multiplier(self, role: Role) -> Factor:
        """Return r^(-a), the factor between a raw weight and the weight in force."""
        return self._power(lambda table, dimension: table.exponent(dimension, "a", role))

    def init_std(self, role: Role, fan_in: int, sigma: float) -> Factor:
        """Return the standard deviation of a raw weight at init, sigma / sqrt(fan_in_base) * r^(-b).

        Args:
            fan_in: Inputs summed over at the cell's width; 1 for vectors and scalars.
            sigma: Standard deviation times sqrt(fan_in) at base width.
        """
        ratio = self.ratios["width"]
        # Only hidden and output weights have a fan-in that grows with width.
        fan_in_base = fan_in / ratio if role in ("hidden", "output") else torch.full_like(ratio, fan_in)
        return sigma / fan_in_base.sqrt() * self.init(role)

    def init(self, role: Role) -> Factor:
        """Return r^(-b), how a raw weight at init scales beside its size at base width."""
        return self._power(lambda table, dimension: table.exponent(dimension, "b", role))

    def lr(self, role: Role, family: OptimizerFamily) -> Factor:
        """Return k r^(-c), the factor of a weight's learning rate.

        Args:
            family: ``sgd`` for (momentum) gradient descent, ``adam`` for sign-like updates.

        Raises:
            UserError: If a parameterization has no exponents for the family.
        """
        power = self._power(lambda table, dimension: table.exponent(dimension, "c", role, family))
        return power * self.lr_factor(role)

    def lr_factor(self, role: Role) -> Factor:
        """Return k, the role's own factor of the learning rate.

        A vector has that of input weights, as in the table, and a scalar, the output's bias, that of output
        weights.
        """
        name = {"vector": "input", "scalar": "output"}.get(role, role)
        return _numbers(factors[name] for factors in self._factors)

    def kernel_weight(self, role: Role) -> Factor:
        """Return k r^(-c) with the c of SGD: a weight's part in the lr-weighted tangent kernel."""
        return self.lr(role, "sgd")

    def gradient(self, role: Role) -> Factor:
        """Return r^(c_sgd - c_adam) / gamma, how the raw gradient of a weight scales with width and gamma.

        Steps of SGD and of Adam are of one size if gradients are: r^(-c_sgd) times the gradient is
        r^(-c_adam) times a number of order one. Under a + t, b - t it changes by r^(-t), as the gradient
        does.

        References:
            Yang & Littwin (2023), "Tensor Programs IVb: Adaptive Optimization in the Infinite-Width Limit",
            arXiv 2308.01814: the exponent d by which gradients are scaled before the nonlinearity.
        """
        return self.lr(role, "adam") / self.lr(role, "sgd") / self.gamma

    def attention(self) -> Factor:
        """Return r^(-e), what attention logits are multiplied by beside 1 / sqrt(d_head).

        The exponent e is ``attention`` in the table, 0 if absent. Queries and keys are independent at init,
        so that their product grows as sqrt(d_head); once both learn features it grows as d_head, and e = 1/2
        keeps it bounded.

        References:
            Yang et al. (2022), "Tensor Programs V", arXiv 2203.03466, definition 4.1.
        """
        return self._power(lambda table, dimension: float(getattr(table, dimension).get("attention", 0.0)))

    def _power(self, exponent: Callable[[Table, str], float]) -> Factor:
        """Return the product over dimensions of ratio^(-exponent)."""
        power = torch.ones_like(self.gamma)
        for dimension, ratio in self.ratios.items():
            exponents = _numbers(exponent(table, dimension) for table in self._tables)
            power = power * ratio**-exponents
        return power


def _numbers(values: Any) -> Factor:
    return torch.tensor(list(values), dtype=torch.float64)
