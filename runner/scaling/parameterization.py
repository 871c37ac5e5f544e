"""The abc table: how multiplier, init and learning rate of a weight scale with width and depth.

With r = ``width / base_width`` and the exponents of a weight's role::

    W = r^(-a) * w                                        the multiplier, in the forward pass
    w ~ N(0, sigma^2 / fan_in_base * r^(-2 b))            the init
    lr = eta * k * r^(-c)                                 the learning rate; c depends on the optimizer

k is a role's own factor, ``optimizer.lr_input``, ``lr_hidden`` or ``lr_output``, 1 by default. It stands
beside r^(-c) wherever that stands: in the lr-weighted kernel, and so in ``lambda_max``, in the norm that
clipping looks at and in coupled decay.

With s = ``depth / base_depth`` and the exponents under ``depth``, where a table has them, residual branches
and the parameters in their blocks scale::

    h <- h + s^(-branch) * f(h)
    lr = eta * r^(-c) * s^(-c_depth)                      of hidden weights, and of vectors: biases and gains
    decay = decay * s^(-decay)

What is outside of blocks does not scale with depth. Adam's eps follows from the rates of SGD and Adam, as it
does in width: see :meth:`Scaling.gradient`.

References:
    Yang & Hu (2021), "Tensor Programs IV: Feature Learning in Infinite-Width Neural Networks",
    arXiv 2011.14522, section 3 (abc-parametrizations). Depth: Yang et al. (2024), "Tensor Programs VI",
    arXiv 2310.02244; Bordelon et al. (2024), arXiv 2309.16620; Dey et al. (2025), "Don't be lazy: CompleteP
    enables compute-efficient deep transformers", arXiv 2505.01618, table 1.
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
        depth: Those of the depth: ``branch``, ``decay`` and, by family, ``c``; empty where nothing depends on
            depth.
    """

    name: str
    width: dict[str, Any]
    depth: dict[str, Any]

    def exponent(self, quantity: str, role: Role) -> float:
        """Return an exponent of the width, ``a`` or ``b``."""
        return 0.0 if role == "scalar" else float(self.width[quantity][_row(role)])

    def rate(self, role: Role, family: OptimizerFamily) -> float:
        """Return c, the exponent of the width in a learning rate.

        Raises:
            UserError: If ``c`` has no row for the family.
        """
        return 0.0 if role == "scalar" else float(self._rates(self.width, family)[_row(role)])

    def rate_in_depth(self, role: Role, family: OptimizerFamily) -> float:
        """Return the same of the depth, for a parameter of a block; errors as above."""
        if not self.depth or role == "scalar":
            return 0.0
        return float(self._rates(self.depth, family)["hidden" if role == "hidden" else "vector"])

    def _rates(self, exponents: dict[str, Any], family: OptimizerFamily) -> dict[str, Any]:
        rates = exponents["c"]
        if family not in rates:
            key, example = (
                ("depth.c", "{hidden: 0, vector: 0}")
                if exponents is self.depth
                else ("c", "{input: 0, hidden: 0, output: 0}")
            )
            raise UserError(
                f"parameterization.{key} must have a row {family} for this optimizer, got "
                f"{', '.join(sorted(rates))} in {self.name}; add {family}: {example} to its file"
            )
        row: dict[str, Any] = rates[family]
        return row


def _row(role: Role) -> str:
    """A vector scales with width as an input weight."""
    return "input" if role == "vector" else role


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

    A parameter ``in_block`` belongs to the block of a residual branch: a weight in the branch, or a norm
    before it.

    Args:
        cells: Cells of any parameterizations, widths and depths.

    Attributes:
        width: Width over its base.
        depth: Depth over its base, which is 1 where it is null; 1 where a table does not depend on depth.
        gamma: Richness of every cell.
    """

    def __init__(self, cells: Sequence[Cell]) -> None:
        self._tables = [table_of(cell.parameterization, cell.exponents) for cell in cells]
        self._factors = [_lr_factors(cell.settings) for cell in cells]
        self.width: Factor = _numbers(cell.width / cell.base_width for cell in cells)
        # Depth at which branches are what a model makes of them.
        self._base_depth: Factor = _numbers(
            (cell.base_depth or 1) if table.depth else cell.depth
            for cell, table in zip(cells, self._tables, strict=True)
        )
        self.depth: Factor = _numbers(cell.depth for cell in cells) / self._base_depth
        self.gamma: Factor = _numbers(cell.gamma for cell in cells)
        self._sigmas = [json.loads(cell.sigma or "{}") for cell in cells]

    def multiplier(self, role: Role) -> Factor:
        """Return r^(-a), the factor between a raw weight and the weight in force."""
        return self._power(lambda table: table.exponent("a", role))

    def branch(self, *, root: bool) -> Factor:
        """Return what a residual branch is multiplied by, s^(-branch).

        Args:
            root: Whether branches are multiplied by 1 / sqrt(base depth) besides: at any depth by
                1 / sqrt(depth) where the table does not depend on depth.
        """
        factor = self._power(lambda table: float(table.depth.get("branch", 0.0)), self.depth)
        return factor / self._base_depth.sqrt() if root else factor

    def init_std(self, role: Role, fan_in: int, sigma: float) -> Factor:
        """Return the standard deviation of a raw weight at init, s sigma / sqrt(fan_in_base) * r^(-b).

        Args:
            fan_in: Inputs summed over at the cell's width; 1 for vectors and scalars.
            sigma: Standard deviation times sqrt(fan_in) at base width, but for the cell's factor s.
        """
        return self.init_size(role, fan_in, sigma) * self.sigma(role)

    def sigma(self, role: Role) -> Factor:
        """Return s, the factor ``model.sigma`` on the init standard deviation of the weights of a role."""
        return _numbers(factors.get(role, 1.0) for factors in self._sigmas)

    def init_size(self, role: Role, fan_in: int, sigma: float) -> Factor:
        """Return what a mean at init is, and a standard deviation but for the factor s."""
        ratio = self.width
        # Only hidden and output weights have a fan-in that grows with width.
        fan_in_base = fan_in / ratio if role in ("hidden", "output") else torch.full_like(ratio, fan_in)
        return sigma / fan_in_base.sqrt() * self.init(role)

    def init(self, role: Role) -> Factor:
        """Return r^(-b), how a raw weight at init scales beside its size at base width."""
        return self._power(lambda table: table.exponent("b", role))

    def lr(self, role: Role, family: OptimizerFamily, *, in_block: bool = False) -> Factor:
        """Return k r^(-c), times s^(-c_depth) in a block: the factor of a parameter's learning rate.

        Args:
            family: ``sgd`` for (momentum) gradient descent, ``adam`` for sign-like updates.

        Raises:
            UserError: If a parameterization has no exponents for the family.
        """
        factor = self._power(lambda table: table.rate(role, family)) * self.lr_factor(role)
        return factor * self.lr_in_depth(role, family) if in_block else factor

    def lr_factor(self, role: Role) -> Factor:
        """Return k, the role's own factor of the learning rate.

        A vector has that of input weights, as in the table, and a scalar, the output's bias, that of output
        weights.
        """
        name = {"vector": "input", "scalar": "output"}.get(role, role)
        return _numbers(factors[name] for factors in self._factors)

    def lr_in_depth(self, role: Role, family: OptimizerFamily) -> Factor:
        """Return s^(-c_depth), the factor of the learning rate in a block."""
        return self._power(lambda table: table.rate_in_depth(role, family), self.depth)

    def kernel_weight(self, role: Role, *, in_block: bool = False) -> Factor:
        """Return the factor of the learning rate of SGD: a parameter's part in the lr-weighted kernel."""
        return self.lr(role, "sgd", in_block=in_block)

    def decay(self, *, in_block: bool) -> Factor:
        """Return s^(-decay) in a block, the factor of decoupled weight decay; 1 elsewhere."""
        if not in_block:
            return torch.ones_like(self.gamma)
        return self._power(lambda table: float(table.depth.get("decay", 0.0)), self.depth)

    def gradient(self, role: Role, *, in_block: bool = False) -> Factor:
        """Return lr of Adam / lr of SGD / gamma, how a raw gradient scales with width, depth and gamma.

        Steps of SGD and of Adam are of one size if gradients are: r^(-c_sgd) times the gradient is
        r^(-c_adam) times a number of order one. Under a + t, b - t it changes by r^(-t), as the gradient
        does. In a block it is s^(-branch) where both rates make the block's change the same.

        References:
            Yang & Littwin (2023), "Tensor Programs IVb: Adaptive Optimization in the Infinite-Width Limit",
            arXiv 2308.01814: the exponent d by which gradients are scaled before the nonlinearity. In depth:
            arXiv 2505.01618, table 1, AdamW's eps.
        """
        return self.lr(role, "adam", in_block=in_block) / self.lr(role, "sgd", in_block=in_block) / self.gamma

    def attention(self) -> Factor:
        """Return r^(-e), what attention logits are multiplied by beside 1 / sqrt(d_head).

        The exponent e is ``attention`` in the table, 0 if absent. Queries and keys are independent at init,
        so that their product grows as sqrt(d_head); once both learn features it grows as d_head, and e = 1/2
        keeps it bounded.

        References:
            Yang et al. (2022), "Tensor Programs V", arXiv 2203.03466, definition 4.1.
        """
        return self._power(lambda table: float(table.width.get("attention", 0.0)))

    def _power(self, exponent: Callable[[Table], float], ratio: Factor | None = None) -> Factor:
        """Return ratio^(-exponent), of the width unless another one is given."""
        power: Factor = (self.width if ratio is None else ratio) ** -_numbers(map(exponent, self._tables))
        return power


def _numbers(values: Any) -> Factor:
    return torch.tensor(list(values), dtype=torch.float64)
