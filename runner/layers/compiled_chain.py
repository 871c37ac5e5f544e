"""A chain of dense layers that takes whole steps of plain gradient descent by compiled code.

What a batch is, and what is subtracted from outputs, is known to :mod:`runner.models`.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jaxtyping import Float, Int64
from torch import Tensor

from runner.layers.activation import ACTIVATIONS, Nonlinearity
from runner.layers.chain import DenseChain
from runner.layers.dense import Linear
from runner.numerics import compiled
from runner.numerics.compiled import Loss, Operation, Pick, Program


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


class CompiledChain(DenseChain):
    """A dense chain under plain gradient descent, by compiled products that need no passes beside them.

    Factors, relu, its derivative and the update of a weight are part of the products. One cell goes through
    all layers, and through several steps, before the next begins: what it needs stays in the nearest caches.
    """

    _scales_are_free = True

    @staticmethod
    def takes(layers: Sequence[Linear], function: Nonlinearity) -> bool:
        """Say whether products do all of it: small layers without biases, relu or no function between."""
        known = function in (ACTIVATIONS["relu"], ACTIVATIONS["linear"])
        return known and all(compiled.takes(layer.weight) and not layer.has_bias for layer in layers)

    def __init__(self, layers: Sequence[Linear], function: Nonlinearity, samples: int, loss: str) -> None:
        super().__init__(layers, function, samples)
        self._name = loss
        self._relu = function is ACTIVATIONS["relu"]
        self._above = self._before[-1].new_empty(self._before[-1].shape)
        self._program: Program | None = None

    def fit(
        self,
        task: Task,
        rates: Mapping[str, Float[Tensor, "cell 1 1"]],
        steps: int = 1,
        places: Int64[Tensor, "step cell sample"] | None = None,
    ) -> Float[Tensor, "step cell"]:
        """Take steps of gradient descent.

        Args:
            task: With ``places`` another one at every call, of any number of samples.
            rates: What a weight's gradient is added times, negative in descent, by the path of the weight;
                the same memory at every call.
            places: Of the batch of every step in the samples of the task; all of them by default, and then
                at every call.

        Returns:
            The loss of every cell before each step.
        """
        losses = self._above.new_empty(steps, len(self._above))
        if self._program is None:
            self._program = self._fitting(task, rates, losses, places)
        self._program.bind(self._loss, total=losses)
        if places is not None:
            for place, table in enumerate(_tables(task)):
                self._program.bind(place, left=table, places=places.contiguous())
        self._program.run(steps)
        return losses

    def _fitting(
        self,
        task: Task,
        rates: Mapping[str, Float[Tensor, "cell 1 1"]],
        losses: Float[Tensor, "step cell"],
        places: Int64[Tensor, "step cell sample"] | None,
    ) -> Program:
        cells, samples = self._above.shape[:2]
        operands, picks = _tables(task), list[Pick]()
        if places is not None:
            picks = [
                Pick(table.new_empty(cells, samples, table.shape[2]), table, places) for table in operands
            ]
            operands = [pick.out for pick in picks]
        inputs, targets, *offset = operands
        inputs = inputs.expand(cells, -1, -1)
        forward = self._forward(inputs)
        self._loss = len(picks) + len(forward)
        above = Loss(self._name, self._above, self._before[-1], targets, task.gamma, losses, *offset)
        return Program([*picks, *forward, above, *self._descent(inputs, rates)])

    def _forward(self, inputs: Float[Tensor, "cell sample features"]) -> list[Operation]:
        last = len(self._weights) - 1
        return [
            Operation(
                self._before[place], self._after[place - 1] if place else inputs, weight,
                *self._scales[place], rectify=self._relu and place < last,
            )
            for place, weight in enumerate(self._weights)
        ]  # fmt: skip

    def _descent(
        self, first: Float[Tensor, "cell sample features"], rates: Mapping[str, Float[Tensor, "cell 1 1"]]
    ) -> list[Operation]:
        operations = []
        for place in reversed(range(len(self._weights))):
            weight, scale = self._weights[place], self._scales[place]
            right = self._gradients[place] if place < len(self._gradients) else self._above
            inputs = self._after[place - 1] if place else first
            if place:
                mask = inputs if self._relu else None
                operations.append(Operation(self._gradients[place - 1], right, weight.mT, *scale, above=mask))
            rate = rates[f"{self._names[place]}.weight"]
            operations.append(Operation(weight, inputs.mT, right, *scale, also=rate, add=True))
        return operations


def _tables(task: Task) -> list[Float[Tensor, "#cell sample column"]]:
    """Return what of a task has samples: inputs, targets and, where it is subtracted, the offset."""
    return [task.inputs, task.targets, *([] if task.offset is None else [task.offset])]
