r"""An explicit Runge-Kutta pair for many systems at once, each of which chooses its own substeps.

All tensors start with a ``cell`` axis, and cells do not interact. They are evaluated together, so a cell that
has arrived waits with substeps of length 0, and no number of it depends on how many the others need.

Dormand and Prince's pair has seven stages, the last of which is the first of the next substep::

    k_i = slope(y + h sum_j a_ij k_j),   y' = y + h sum_j b_j k_j of order 5,   error = h |sum_j e_j k_j|

The error is that of the embedded solution of order 4, so that it bounds that of y' with a margin. A substep
is taken if its error is at most tolerance times the distance that a whole step covers at the present speed.
Where the slope jumps (relu), an error falls with h but not faster: a bound on error / h could not be met.

References:
    Dormand & Prince (1980), "A family of embedded Runge-Kutta formulae". Step sizes: Hairer, Norsett & Wanner
    (1993), "Solving Ordinary Differential Equations I", section II.4.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

_STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
"""a_ij of the stages after the first; the last row is b, too."""
_ERROR = (71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
EVALUATIONS = len(_STAGES)
"""Of the slope in a substep; one more before the first."""
_FIRST = 0.01
"""Length of the first substep that is tried."""
_SAFETY, _LEAST, _MOST = 0.9, 0.2, 5.0
"""Share of the length that would just meet the tolerance; bounds of the change between two substeps."""
_LOST = 0.2
"""Error of the shortest substep, over its length at the speed it began with, beyond which a cell is lost.

It is 0.28 where the pair is no longer stable, at 3.3 over the largest rate of decay, and at most 0.16 where
the slope turns back."""
_ROUNDING = 10.0
"""Units of rounding, of the largest speed so far, that an error may have: slopes are no better known."""

Norm = Callable[[Iterable[Float[Tensor, "cell ..."]]], Float64[Tensor, "cell"]]
"""From one tensor for each part of the state to the norm of all."""


@dataclass
class Pace:
    """How each cell goes, ``[cell]`` each, float64; the unit of time is a step.

    Attributes:
        substep: Length of the substep to try next, at most 1.
        error: Sum of the error estimates of all substeps.
        length: Sum of their lengths in the norm of the state: of the path.
        fastest: Largest speed at the end of a substep.
    """

    substep: Tensor
    error: Tensor
    length: Tensor
    fastest: Tensor

    @classmethod
    def begin(cls, like: Float[Tensor, "cell"]) -> "Pace":
        """Return that of cells at their start."""
        zero = torch.zeros_like(like, dtype=torch.float64)
        return cls(zero + _FIRST, zero.clone(), zero.clone(), zero.clone())

    def named(self) -> dict[str, Float64[Tensor, "cell"]]:
        """Return all of it by name."""
        return {item.name: getattr(self, item.name) for item in fields(self)}

    def select(self, index: Int[Tensor, "kept"]) -> None:
        """Keep the cells at ``index``, in that order."""
        for name, value in self.named().items():
            setattr(self, name, value[index])


class DormandPrince:
    """Follows d state / dt = slope, a step of length 1 after the other.

    Args:
        state: Parts of the state; they are overwritten, also with what is only tried.
        slope: Where an evaluation leaves the slope, part by part.
        pace: Is kept up to date.
        norm: In which errors and speeds are measured.
        tolerance: Error of a substep over the distance that a step covers.
        least: Length of a substep that is taken though its error is larger, as where the slope jumps.
        rounding: Unit of rounding of slopes.
    """

    def __init__(
        self,
        state: Sequence[Float[Tensor, "cell ..."]],
        slope: Sequence[Float[Tensor, "cell ..."]],
        pace: Pace,
        norm: Norm,
        *,
        tolerance: float,
        least: float,
        rounding: float,
    ) -> None:
        self._state, self._slope, self._pace, self._norm = state, slope, pace, norm
        self._tolerance, self._least = tolerance, least
        self._floor = _ROUNDING * rounding
        self._base = [part.clone() for part in state]
        self._stages = [part.new_empty(len(_ERROR), *part.shape) for part in state]
        self._value: Tensor | None = None

    def advance(self, evaluate: Callable[[], Float[Tensor, "cell"]]) -> Float[Tensor, "cell"]:
        """Follow the slope for a step.

        The state of a cell becomes NaN if its slope is not finite, or if it is lost: if even a substep of the
        least length is too long to be stable.

        Args:
            evaluate: Leaves the slope at the present state in its place; returns a number of each cell.

        Returns:
            What ``evaluate`` returned before the step.
        """
        if self._value is None:
            self._value = self._evaluated(evaluate, 0)
        before, pace = self._value, self._pace
        for base, part in zip(self._base, self._state, strict=True):
            base.copy_(part)
        speed = self._norm(stages[0] for stages in self._stages)
        well = speed.isfinite() & before.isfinite()
        pace.fastest = torch.where(well, torch.maximum(pace.fastest, speed), pace.fastest)
        left, failed = well.double(), ~well
        while bool((left > 0).any()):
            left, speed, lost = self._substep(evaluate, left, speed)
            failed = failed | lost
        for part, base in zip(self._state, self._base, strict=True):
            part.copy_(torch.where(_wide(failed, part), torch.nan, base))
        self._value = torch.where(failed, torch.nan, self._value)
        return before

    def _substep(
        self, evaluate: Callable[[], Tensor], left: Tensor, speed: Tensor
    ) -> tuple[Float64[Tensor, "cell"], Float64[Tensor, "cell"], Bool[Tensor, "cell"]]:
        """Try a substep of the cells that have time left; returns what is left, speeds and who is lost."""
        pace, going = self._pace, left > 0
        # Even pieces, so that no last one is tiny.
        pieces = (left / pace.substep.clamp(min=self._least)).ceil().clamp(min=1.0)
        length = left / pieces
        for place, weights in enumerate(_STAGES, 1):
            for part, base, stages in zip(self._state, self._base, self._stages, strict=True):
                torch.addcmul(base, _sum(weights, stages), _wide(length, part), out=part)
            value = self._evaluated(evaluate, place)
        error = length * self._norm(_sum(_ERROR, stages) for stages in self._stages)
        moved = length * self._norm(_sum(_STAGES[-1], stages) for stages in self._stages)
        reached = self._norm(stages[-1] for stages in self._stages)
        allowed = self._tolerance * torch.maximum(speed, reached) + self._floor * pace.fastest
        share = torch.where(error == 0, 0.0, error / allowed)
        known = value.isfinite() & reached.isfinite()
        shortest = pace.substep <= self._least
        taken = going & known & ((share <= 1) | (shortest & (error <= _LOST * length * speed)))
        lost = going & shortest & ~taken
        # What cannot be told (NaN) is as bad as can be.
        change = torch.nan_to_num(_SAFETY * share ** (-1 / 5), nan=_LEAST).clamp(min=_LEAST)
        found = torch.minimum(length * change, torch.maximum(_MOST * length, pace.substep)).clamp(max=1.0)
        pace.substep = torch.where(going, found, pace.substep)
        pace.error = torch.where(taken, pace.error + error, pace.error)
        pace.length = torch.where(taken, pace.length + moved, pace.length)
        pace.fastest = torch.where(taken, torch.maximum(pace.fastest, reached), pace.fastest)
        assert self._value is not None
        self._value = torch.where(taken, value, self._value)
        for part, base, stages in zip(self._state, self._base, self._stages, strict=True):
            mask = _wide(taken, part)
            torch.where(mask, part, base, out=base)
            torch.where(mask, stages[-1], stages[0], out=stages[0])
        after = torch.where(pieces == 1, 0.0, left - length)
        left = torch.where(taken, after, torch.where(lost, 0.0, left))
        return left, torch.where(taken, reached, speed), lost

    def _evaluated(self, evaluate: Callable[[], Tensor], place: int) -> Float[Tensor, "cell"]:
        """Evaluate the slope at the present state, and keep it as a stage."""
        value = evaluate()
        for stages, slope in zip(self._stages, self._slope, strict=True):
            stages[place].copy_(slope)
        return value


def _sum(weights: Sequence[float], stages: Float[Tensor, "stage cell ..."]) -> Float[Tensor, "cell ..."]:
    """Return the weighted sum of the first stages."""
    some = stages[: len(weights)]
    return (some.new_tensor(weights) @ some.flatten(1)).view(some.shape[1:])


def _wide(values: Tensor, part: Float[Tensor, "cell ..."]) -> Tensor:
    """Return one value per cell, shaped to go with a part of the state; numbers in its dtype."""
    wide = values.view(-1, *(1,) * (part.dim() - 1))
    return wide if wide.dtype == torch.bool else wide.to(part)
