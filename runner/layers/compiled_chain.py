"""A chain of dense layers that takes whole steps of an optimizer by compiled code.

What a batch is, and what is subtracted from outputs, is known to :mod:`runner.models`.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from jaxtyping import Float, Float64, Int64
from torch import Tensor

from runner.layers.activation import ACTIVATIONS, Nonlinearity
from runner.layers.chain import DenseChain
from runner.layers.dense import Linear
from runner.numerics import compiled
from runner.numerics.compiled import Loss, Operation, Pick, Program, Step


class Task(NamedTuple):
    """What a chain fits: f = (outputs - offset) / gamma to targets.

    Attributes:
        inputs: Of the first layer.
        offset: Outputs at init, where they are subtracted.
    """

    inputs: Float[Tensor, "#cell sample features"]
    targets: Float[Tensor, "#cell sample output"]
    offset: Float[Tensor, "#cell sample output"] | None
    gamma: Float[Tensor, "cell 1 1"]


Update = Callable[[str, Operation], Sequence[Step]]
"""From the path of a weight, and what writes its gradient, to what is done with it."""


class CompiledChain(DenseChain):
    """A dense chain that takes whole steps of an optimizer, by compiled products with few passes beside them.

    Factors, relu, its derivative and the update of plain descent are part of the products. One cell goes
    through all layers, and through several steps, before the next begins: what it needs stays in the nearest
    caches.
    """

    _scales_are_free = True

    @staticmethod
    def takes(layers: Sequence[Linear], function: Nonlinearity, samples: int) -> bool:
        """Say whether products do all of it: small layers without biases, relu or no function between."""
        known = function in (ACTIVATIONS["relu"], ACTIVATIONS["linear"])
        return known and all(compiled.takes(layer.weight, samples) and not layer.has_bias for layer in layers)

    def __init__(
        self, layers: Sequence[Linear], function: Nonlinearity, samples: int, loss: str, update: Update
    ) -> None:
        super().__init__(layers, function, samples)
        self._name, self._update = loss, update
        self._relu = function is ACTIVATIONS["relu"]
        self._above = self._room(self._weights[-1], samples)
        self._program: Program | None = None

    @staticmethod
    def _room(weight: Float[Tensor, "cell fan_in fan_out"], rows: int) -> Float[Tensor, "cell row fan_out"]:
        """Memory of one cell for all of them: the next begins when one is done."""
        return weight.new_empty(1, rows, weight.shape[2]).expand(len(weight), -1, -1)

    def fit(
        self,
        task: Task,
        table: Float64[Tensor, "step column"],
        places: Int64[Tensor, "step cell sample"] | None = None,
    ) -> Float[Tensor, "step cell"]:
        """Take steps.

        Args:
            task: With ``places`` another one at every call, of any number of samples.
            table: What updates multiply by, at each step.
            places: Of the batch of every step in the samples of the task; all of them by default, and then
                at every call.

        Returns:
            The loss of every cell before each step.
        """
        losses = self._above.new_empty(len(table), len(self._above))
        if self._program is None:
            self._program = self._fitting(task, losses, places)
        self._program.bind(self._loss, total=losses)
        if places is not None:
            for place, samples in enumerate(_tables(task)):
                self._program.bind(place, left=samples, places=places.contiguous())
        self._program.run(len(table), table)
        return losses

    def _fitting(
        self,
        task: Task,
        losses: Float[Tensor, "step cell"],
        places: Int64[Tensor, "step cell sample"] | None,
    ) -> Program:
        operands, picks = _tables(task), list[Pick]()
        if places is not None:
            cells, samples, _ = self._above.shape
            for table in operands:
                out = table.new_empty(1, samples, table.shape[2]).expand(cells, -1, -1)
                picks.append(Pick(out, table, places))
            operands = [pick.out for pick in picks]
        inputs, targets, *offset = operands
        inputs = inputs.expand(len(self._above), -1, -1)
        forward = self._forward(inputs)
        self._loss = len(picks) + len(forward)
        above = Loss(self._name, self._above, self._before[-1], targets, task.gamma, losses, *offset)
        return Program([*picks, *forward, above, *self._descent(inputs)])

    def _forward(self, inputs: Float[Tensor, "cell sample features"]) -> list[Operation]:
        last = len(self._weights) - 1
        return [
            Operation(
                self._before[place], self._after[place - 1] if place else inputs, weight,
                *self._scales[place], rectify=self._relu and place < last,
            )
            for place, weight in enumerate(self._weights)
        ]  # fmt: skip

    def _descent(self, first: Float[Tensor, "cell sample features"]) -> list[Step]:
        steps = list[Step]()
        for place in reversed(range(len(self._weights))):
            weight, scale = self._weights[place], self._scales[place]
            right = self._gradients[place] if place < len(self._gradients) else self._above
            inputs = self._after[place - 1] if place else first
            if place:
                mask = inputs if self._relu else None
                steps.append(Operation(self._gradients[place - 1], right, weight.mT, *scale, above=mask))
            found = Operation(self._room(weight, weight.shape[1]), inputs.mT, right, *scale)
            steps += self._update(f"{self._names[place]}.weight", found)
        return steps


def _tables(task: Task) -> list[Float[Tensor, "#cell sample column"]]:
    """Return what of a task has samples: inputs, targets and, where it is subtracted, the offset."""
    return [task.inputs, task.targets, *([] if task.offset is None else [task.offset])]
