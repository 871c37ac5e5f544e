r"""When a cell has diverged: its loss is not finite, or so large that no catapult comes back from it.

Above the critical learning rate the loss of a wide network grows until the tangent kernel has shrunk enough
to train. For two layers and one sample, f = u.v |x| / gamma with learning rates eta_u and eta_v of the
weights in force, a step of gradient descent on MSE changes L = eta * lambda by exactly::

    L' = L + eta_u eta_v (|x| / gamma)^2 f^2 (L - 4)

so that the kernel has fallen by its own size once f^2 = gamma^2 / (eta_u eta_v |x|^2): the loss peaks there,
and below it nothing can be said of how training ends. With eta_l = eta gamma^2 r^(-2 a_l - c_l) that is
width / (eta gamma)^2 under ``ntk`` and 1 / (eta gamma)^2 under ``mup``, and under ``sp`` it grows with the
square of the width for learning rates in units of the sharpness. Beyond the peak, where the cubic term rules,
a loss that grows does so doubly exponentially: a limit far above it costs a few steps.

References:
    Lewkowycz et al. (2020), "The large learning rate phase of deep learning", arXiv 2003.02218, eq. 4-5,
    whose network of width n has eta_u eta_v |x|^2 / gamma^2 = eta^2 / n.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from runner.grid.cell import Cell
from runner.scaling.parameterization import Scaling

MARGIN = 1e6
"""How far above the peak of a catapult, and above its start, a loss must be: depth, data and constants of the
architecture are not in the estimate."""
_LARGEST = 1e30  # a ratio of losses that float32 can hold


def loss_limits(
    cells: Sequence[Cell],
    lr: Float[Tensor, "cell"],
    initial_loss: Float[Tensor, "cell"],
    descends: bool = True,
) -> Float[Tensor, "cell"]:
    """Return the multiple of its loss at init beyond which each cell has diverged.

    Args:
        lr: Absolute base learning rate.
        initial_loss: Loss on the whole training set at init.
        descends: Whether steps follow the gradient's size, as catapults need; under Adam and signs the limit
            is ``MARGIN``.

    Returns:
        ``loss_limit`` of the cell where it is set; otherwise ``MARGIN``, times the loss that a catapult
        reaches over that at init where this is more than 1.
    """
    limit = torch.ones(len(cells), dtype=torch.float64)
    if descends:
        scaling = Scaling(cells)
        widths = torch.tensor([cell.width for cell in cells], dtype=torch.float64)
        # Of the weight in force, without eta gamma^2; a hidden layer is fed by as many units as it is wide.
        pace = {
            role: scaling.multiplier(role) ** 2 * scaling.lr(role, "sgd")
            for role in ("input", "hidden", "output")
        }
        inner = torch.minimum(pace["input"], widths * pace["hidden"])
        peak = 1 / (inner * pace["output"] * (lr.double() * scaling.gamma) ** 2)
        limit = torch.nan_to_num(peak / initial_loss.double(), nan=1.0).clamp(min=1.0)
    given = torch.tensor([cell.loss_limit or torch.nan for cell in cells], dtype=torch.float64)
    return torch.where(given.isnan(), MARGIN * limit, given).clamp(max=_LARGEST)
