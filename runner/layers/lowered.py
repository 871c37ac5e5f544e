"""What layers in compiled form hand to each other, and what the blocks of a batch share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from runner.numerics.operations import Operation, Step, Transpose


class CannotLower(Exception):
    """Something has no compiled form; torch does it."""


@runtime_checkable
class Update(Protocol):
    """What an optimizer does with the gradient of a parameter, given its path."""

    def product(self, path: str, gradient: Operation) -> Sequence[Step]:
        """Return it for a gradient that an operation writes, in memory of its own for one cell."""

    def formed(self, path: str, gradient: Float[Tensor, "cell ..."]) -> Sequence[Step]:
        """Return it for a gradient that is there."""


class Gradient:
    """Room for the gradient with respect to a value: contributions add up.

    Attributes:
        room: Where it is; none before the first contribution.
        begun: Whether something has been written there.
        kind: Which rooms can take its place, once it is not needed.
    """

    def __init__(self, room: Tensor | None = None) -> None:
        self.room, self.begun = room, room is not None
        self.kind: tuple[object, ...] | None = None


class Value:
    """What a layer returns for a block of samples, in the layout of products.

    Attributes:
        rows: The numbers, a row for each position of each sample.
        gradient: With respect to them, or to what they are a function of; none of what is given.
        slope: What a contribution to the gradient is multiplied by, the derivative of that function: the
            numbers themselves, where these are relus.
        shared: Whether somebody else reads the numbers, too.
        image: Height, breadth and margin, if rows are pixels. Margins hold zeros.
    """

    def __init__(
        self, rows: Float[Tensor, "cell row column"], gradient: Gradient | None, slope: Tensor | None = None,
        *, shared: bool = False, image: tuple[int, int, int] | None = None,
    ) -> None:  # fmt: skip
        self.rows, self.gradient, self.slope = rows, gradient, slope
        self.shared, self.image = shared, image

    def beside(self) -> Value:
        """Return the same for a branch: it stays as it is, for what goes past the branch."""
        return Value(self.rows, self.gradient, self.slope, shared=True, image=self.image)


class Blocks:
    """What blocks of a batch share.

    Attributes:
        sums: Gradients by path, which add up.
        transposed: Weights by path, for the way back.
        before: Operations that a step begins with.
        after: By path, what arranges a sum as its parameter is, and where.
    """

    def __init__(self) -> None:
        self.sums, self.transposed = dict[str, Tensor](), dict[str, Tensor]()
        self.before: list[Step] = []
        self.after = dict[str, tuple[list[Step], Tensor]]()

    def transpose(self, path: str, weight: Float[Tensor, "cell fan_in fan_out"]) -> Tensor:
        """Return a weight transposed: once in a step, where products would gather it in each block."""
        if path not in self.transposed:
            self.transposed[path] = weight.new_empty(1, *weight.shape[:0:-1]).expand(len(weight), -1, -1)
            self.before.append(Transpose(self.transposed[path], weight))
        return self.transposed[path]
