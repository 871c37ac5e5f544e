"""When a cell is done before its last step: its loss, its error or its margin has come to a given level."""

import math
from collections.abc import Mapping
from typing import Any

from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from runner.data import Dataset
from runner.errors import UserError
from runner.numerics import losses

LEVELS = ("train_loss", "train_error", "margin")


class StopRule:
    """The levels of the ``stop`` section of a pack's cells, of which the first that is reached ends a cell.

    Args:
        section: ``train_loss`` and ``train_error``, to be at or below, ``margin``, to be at or above, and
            ``every``, the steps between two looks; all may be missing.
        batch_size: Samples per step; None for full batch, where the default is to look at every step. With
            mini-batches it is once per epoch or as many fresh samples: a look is a pass over that set.
    """

    def __init__(self, section: Mapping[str, Any], train_size: int, batch_size: int | None) -> None:
        self.levels = {name: section[name] for name in LEVELS if name in section}
        self.every = section.get("every") or math.ceil(train_size / (batch_size or train_size))

    def due(self, step: int) -> bool:
        """Return whether it is looked at before this step."""
        return bool(self.levels) and step % self.every == 0

    def following(self, step: int) -> float:
        """Return the first step after this one before which it is looked at; infinity if none is."""
        return (step // self.every + 1) * self.every if self.levels else math.inf

    def reached(
        self,
        outputs: Float[Tensor, "cell sample output"],
        targets: Shaped[Tensor, "_cell sample _"],
        loss: Any,
    ) -> dict[str, Bool[Tensor, "cell"]]:
        """Return for each level which cells have reached it.

        Args:
            outputs: f on the training set.
            loss: The loss that the cells train with.
        """
        found = {}
        for name, level in self.levels.items():
            if name == "margin":
                found[name] = losses.margin(outputs, targets) >= level
            else:
                value = (
                    loss(outputs, targets) if name == "train_loss" else losses.error_rate(outputs, targets)
                )
                found[name] = value <= level
        return found


def check(section: Mapping[str, Any], dataset: Dataset) -> None:
    """Raise UserError for a level that has no meaning for the task."""
    for name in ("train_error", "margin"):
        if name in section and dataset.task != "classification":
            raise UserError(
                f"stop.{name} must be null for a regression task, got {section[name]}; use stop.train_loss"
            )
