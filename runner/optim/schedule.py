"""How the learning rate changes over the steps of a run."""

import math
from collections.abc import Callable

from runner.errors import UserError, unknown
from runner.grid.rules import shown
from runner.optim.checks import not_negative

SHAPES: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "cosine": lambda progress: (1 + math.cos(math.pi * progress)) / 2,
    "linear": lambda progress: 1 - progress,
}
"""Name -> factor of the learning rate, given how much of the run after the warm-up is done, in [0, 1)."""


class Schedule:
    """The factor of the learning rate at a step: a linear warm-up, then a shape that ends at 0.

    With T steps of which W are warm-up, step t (the first is 0) has the factor (t + 1) / W before W and
    shape((t - W) / (T - W)) from there on: ``torch.optim.lr_scheduler``'s ``LinearLR`` from 1/W over W - 1
    steps, then ``CosineAnnealingLR`` with ``T_max`` = T - W, or ``LinearLR`` to 0.

    Raises:
        UserError: If there is no such shape, or the warm-up is longer than the run.
    """

    def __init__(self, shape: str, warmup: float, steps: int) -> None:
        if shape not in SHAPES:
            raise unknown("optimizer.schedule", shape, SHAPES)
        self.shape = SHAPES[shape]
        self.steps = steps
        given = not_negative("optimizer.warmup", warmup)
        if given >= 1 and given != int(given):
            raise UserError(
                f"optimizer.warmup must be a number of steps or a fraction below 1, got {shown(warmup)}; "
                "e.g. optimizer.warmup=0.1"
            )
        self.warmup = round(given * steps) if given < 1 else int(given)
        if self.warmup > steps:
            raise UserError(
                f"optimizer.warmup must be at most steps = {steps}, got {shown(warmup)}; "
                "lower it or raise steps"
            )

    def factor(self, step: int) -> float:
        """Return the factor of the learning rate at a step, counted from 0."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        return self.shape((step - self.warmup) / max(self.steps - self.warmup, 1))
