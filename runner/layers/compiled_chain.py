"""A chain of dense layers that takes steps of plain gradient descent by compiled code.

What a batch is and how a loss follows from outputs is known to :mod:`runner.models`; only the squared loss is
compiled.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from runner.layers.activation import ACTIVATIONS, Nonlinearity
from runner.layers.chain import DenseChain
from runner.layers.dense import Linear
from runner.numerics import compiled
from runner.numerics.compiled import Operation, Pick, Program, SquaredLoss


class Task(NamedTuple):
    """What a chain fits, by squared loss: f = (outputs - offset) / gamma to targets.

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
    all layers, and where :meth:`fit` can be used through several steps, before the next begins: what it
    needs stays in the nearest caches.
    """

    _scales_are_free = True

    @staticmethod
    def takes(layers: Sequence[Linear], function: Nonlinearity) -> bool:
        """Say whether products do all of it: small layers without biases, relu or no function between."""
        known = function in (ACTIVATIONS["relu"], ACTIVATIONS["linear"])
        return known and all(compiled.takes(layer.weight) and not layer.has_bias for layer in layers)

    def __init__(self, layers: Sequence[Linear], function: Nonlinearity, samples: int) -> None:
        super().__init__(layers, function, samples)
        self._relu = function is ACTIVATIONS["relu"]
        self._forward: Program | None = None
        self._descent: Program | None = None
        self._fit: Program | None = None
        self._given: Tensor | None = None
        self._top = torch.empty_like(self._before[-1])

    def forward(self, x: Float[Tensor, "#cell sample features"]) -> Float[Tensor, "cell sample output"]:
        """Return the outputs; see :meth:`DenseChain.forward`."""
        if x is not self._given:
            self._given, inputs = x, x.expand(self._before[0].shape[0], -1, -1)
            self._inputs = inputs
            if self._forward:
                self._forward.bind(0, left=inputs)
            else:
                self._forward = Program(self._forwards(inputs))
        assert self._forward is not None
        self._forward.run()
        return self._before[-1]

    def _forwards(self, inputs: Float[Tensor, "cell sample features"]) -> list[Operation]:
        last = len(self._weights) - 1
        return [
            Operation(
                self._before[place], self._after[place - 1] if place else inputs, weight,
                *self._scales[place], rectify=self._relu and place < last,
            )
            for place, weight in enumerate(self._weights)
        ]  # fmt: skip

    def descend(
        self, gradient: Float[Tensor, "cell sample output"], rates: Mapping[str, Float[Tensor, "cell 1 1"]]
    ) -> None:
        """Add to every weight its gradient times a rate, which is negative in descent.

        Args:
            rates: By the path of each weight; the same memory at every call.
        """
        assert self._inputs is not None
        self._top.copy_(gradient)
        if self._descent is None:
            self._descent, self._seen = Program(self._descents(self._inputs, rates)), self._inputs
        elif self._seen is not self._inputs:
            self._seen = self._inputs
            self._descent.bind(-1, left=self._seen.mT)
        self._descent.run()

    def _descents(
        self, first: Float[Tensor, "cell sample features"], rates: Mapping[str, Float[Tensor, "cell 1 1"]]
    ) -> list[Operation]:
        operations = []
        for place in reversed(range(len(self._weights))):
            weight, scale = self._weights[place], self._scales[place]
            right = self._gradients[place] if place < len(self._gradients) else self._top
            inputs = self._after[place - 1] if place else first
            if place:
                above = inputs if self._relu else None
                operations.append(
                    Operation(self._gradients[place - 1], right, weight.mT, *scale, above=above)
                )
            rate = rates[f"{self._names[place]}.weight"]
            operations.append(Operation(weight, inputs.mT, right, *scale, also=rate, add=True))
        return operations

    def fit(
        self,
        task: Task,
        rates: Mapping[str, Float[Tensor, "cell 1 1"]],
        steps: int,
        places: Int64[Tensor, "step cell sample"] | None = None,
    ) -> Float[Tensor, "step cell"]:
        """Take several steps of gradient descent on the squared loss.

        Args:
            task: The same at every call.
            rates: As in :meth:`descend`; the same at all of these steps.
            places: Of the batch of every step in the samples of the task; all of them by default.

        Returns:
            The loss of every cell before each step.
        """
        losses = self._top.new_empty(steps, len(self._top))
        if self._fit is None:
            self._fit = self._fitting(task, rates, losses, places)
        self._fit.bind(self._loss, total=losses)
        if places is not None:
            for place in range(self._picks):
                self._fit.bind(place, places=places.contiguous())
        self._fit.run(steps)
        return losses

    def _fitting(
        self,
        task: Task,
        rates: Mapping[str, Float[Tensor, "cell 1 1"]],
        losses: Float[Tensor, "step cell"],
        places: Int64[Tensor, "step cell sample"] | None,
    ) -> Program:
        cells, samples = self._top.shape[:2]
        picks: list[Pick] = []

        def of_batch(table: Float[Tensor, "#cell table column"]) -> Float[Tensor, "#cell sample column"]:
            if places is None:
                return table
            picks.append(Pick(table.new_empty(cells, samples, table.shape[2]), table, places))
            return picks[-1].out

        inputs = of_batch(task.inputs).expand(cells, -1, -1)
        targets = of_batch(task.targets)
        offset = None if task.offset is None else of_batch(task.offset)
        forwards = self._forwards(inputs)
        self._picks, self._loss = len(picks), len(picks) + len(forwards)
        loss = SquaredLoss(self._top, self._before[-1], targets, task.gamma, losses, offset)
        return Program([*picks, *forwards, loss, *self._descents(inputs, rates)])
