r"""Init in pairs: hidden units i and i + n/2 start alike and are read out with opposite signs, so that f = 0.

Swapping the halves of every hidden layer is a symmetry of the network at init, under which f changes its
sign. By role, with A, B, ... blocks of independent draws, rows the inputs of a weight::

    input, vector   [A, A]              both halves get the same
    hidden          [[A, B], [B, A]]    a swap of the inputs is one of the outputs
    output          [A, -A]^T           their parts of f cancel
    scalar          biases 0; a layer of fixed size stays as it is

Every entry has the standard deviation of the table. In the limit of infinite width the tangent kernel at init
is that of independent draws: forward passes see A + B, backward ones A - B, which are independent and of the
same variance as a row of the whole. At finite width it scatters as one of half as many units does. With one
hidden layer these are the pairs (a, w), (-a, w) of the references; training moves the two of a pair apart.

References:
    Chizat, Oyallon & Bach (2019), arXiv 1812.07956; Zhang, Xu, Luo & Ma (2019),
    arXiv 1905.07777 (antisymmetrical initialization); Kunin et al. (2024), arXiv 2406.06158.
"""

import torch
from torch import Tensor

from runner.errors import UserError
from runner.scaling.parameterization import Role


def symmetric(draw: Tensor, role: Role, axes: tuple[int, int], fan_in: int) -> Tensor:
    """Return a draw of one cell's parameter with the symmetry, made of its first half.

    Args:
        axes: Of inputs and of outputs.
        fan_in: Inputs summed over; 1 for biases and gains.

    Raises:
        UserError: If units cannot be paired.
    """
    inputs, outputs = axes
    if role == "scalar":
        return torch.zeros_like(draw) if fan_in == 1 else draw
    if role in ("input", "vector"):
        half = _half(draw, outputs)
        return torch.cat([half, half], outputs)
    half = _half(draw, inputs)
    if role == "output":
        return torch.cat([half, -half], inputs)
    _half(draw, outputs)
    return torch.cat([half, half.roll(half.shape[outputs] // 2, outputs)], inputs)


def _half(draw: Tensor, axis: int) -> Tensor:
    count = draw.shape[axis]
    if count % 2:
        raise UserError(
            f"width must make layers of even numbers of units with symmetric_init=true, got one of {count}; "
            "change it, or leave symmetric_init out"
        )
    return draw.narrow(axis, 0, count // 2)
