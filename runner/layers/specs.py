"""What a parameter of a layer is, and where it starts."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from runner.scaling.parameterization import Role


@dataclass(frozen=True)
class ParameterSpec:
    """What a parameter is, whatever the cells: enough to size, draw, scale and train it.

    Attributes:
        shape: Shape within one cell.
        role: Which of its dimensions grow with width.
        fan_in: Inputs summed over; 1 for biases, gains and rows of a table.
        sigma: Init standard deviation times sqrt(fan_in), at base width.
        mean: Init mean, at base width: 1 for gains.
        in_block: Whether it belongs to the block of a residual branch, and scales with depth.
        axes: Of the shape, those of what is summed over and of what is returned, for ``symmetric_init``.
    """

    shape: tuple[int, ...]
    role: Role
    fan_in: int
    sigma: float
    mean: float = 0.0
    in_block: bool = False
    axes: tuple[int, int] = (0, -1)


@dataclass(frozen=True)
class Origin:
    """Where a raw parameter starts, if not from normal draws.

    Attributes:
        draw: From a seed to the parameter at the cell's width.
        exponent: It shrinks with width as r^(-exponent).
    """

    draw: Callable[[int], Tensor]
    exponent: float
