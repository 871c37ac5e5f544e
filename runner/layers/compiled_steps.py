"""A network that takes whole steps of an optimizer by compiled code.

What a batch is, and what is subtracted from outputs, is known to :mod:`runner.models`.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from runner.layers.lowered import Blocks, Update, Value
from runner.layers.lowered_tokens import one_hot
from runner.layers.lowering import Lowering
from runner.numerics.images import Convolve
from runner.numerics.operations import Loss, Operation, Pick, Repeat, Step
from runner.numerics.steps import Program

BLOCK_BYTES = 1 << 20
"""What a block of samples may hold beside as much as the weights: half a second cache. It is the same on all
machines, as sums should be."""


class Task(NamedTuple):
    """What a network fits: f = (outputs - offset) / gamma to targets.

    Attributes:
        inputs: Of the first layer, those of all positions side by side.
        targets: Of every output; where symbols are predicted, that of every position.
        offset: Outputs at init, where they are subtracted.
        vocabulary: How many symbols there are, where these are predicted.
    """

    inputs: Float[Tensor, "#cell sample features"]
    targets: Float[Tensor, "#cell sample _"]
    offset: Float[Tensor, "#cell sample output"] | None
    gamma: Float[Tensor, "cell 1 1"]
    vocabulary: int | None = None


Network = Callable[[Lowering, Value], Value]
"""From what the first layer is given, a row for each sample, to the outputs, likewise."""


class CompiledSteps:
    """Takes steps with the cells of an ensemble.

    Factors, relu, its derivative and the update of plain descent are part of products. One cell goes
    through all layers, and through several steps, before the next begins: what it needs stays in the nearest
    caches. A batch that is too large for these is cut into blocks, whose gradients add up.

    Args:
        network: Its layers, in compiled form.
        like: Has a ``cell`` axis, the dtype and the device.
        features: Of a sample.
        samples: Of a batch.
        loss: Its name.

    Attributes:
        multiplications: Of a step of one cell.
    """

    def __init__(
        self, network: Network, like: Tensor, features: int, samples: int, loss: str, update: Update
    ) -> None:
        self._network, self._like, self._samples = network, like, samples
        self._loss, self._update = loss, update
        one = of_one_sample(network, like, features)
        self._block = block_of(one, samples)
        self.multiplications = 3 * samples * sum(map(_multiplications, one.forward))
        self._program: Program | None = None
        self._losses: list[int] = []
        self._picks: list[tuple[int, int, int]] = []

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
        losses = self._like.new_empty(len(table), len(self._like))
        moved = None if places is None else places.contiguous()
        if places is None and self._block < self._samples:
            places = torch.arange(self._samples).expand(1, len(self._like), -1)
        if self._program is None:
            self._program = self._fitting(task, losses, places)
        for place in self._losses:
            self._program.bind(place, total=losses)
        if moved is not None:
            tables = _tables(task)
            for place, operand, first in self._picks:
                self._program.bind(place, left=tables[operand], places=moved[..., first:])
        self._program.run(len(table), table)
        return losses

    def _fitting(
        self,
        task: Task,
        losses: Float[Tensor, "step cell"],
        places: Int64[Tensor, "#step cell sample"] | None,
    ) -> Program:
        whole, rest = divmod(self._samples, self._block)
        if whole == 1 and not rest:
            return Program(self._on_block(task, losses, places, 0, self._samples, 0, None))
        steps, blocks = list[Step](), Blocks()
        for first, samples, times in ((0, self._block, whole), (whole * self._block, rest, 1)):
            if samples:
                block = self._on_block(task, losses, places, first, samples, len(steps) + 1, blocks)
                steps += [Repeat(len(block), times), *block]
        for path, gradient in blocks.sums.items():
            arranging, arranged = blocks.after.get(path, ([], gradient))
            steps += [*arranging, *self._update.formed(path, arranged)]
        before = len(blocks.before)
        self._losses = [place + before for place in self._losses]
        self._picks = [(place + before, operand, first) for place, operand, first in self._picks]
        return Program([*blocks.before, *steps])

    def _on_block(
        self,
        task: Task,
        losses: Float[Tensor, "step cell"],
        places: Int64[Tensor, "#step cell sample"] | None,
        first: int,
        samples: int,
        start: int,
        blocks: Blocks | None,
    ) -> list[Step]:
        """Return the operations of a block.

        Args:
            first: Sample of a batch.
            start: Where these operations begin in the program.
            blocks: What it shares with others, if there are more.
        """
        lowering = Lowering(self._like, samples, None if blocks else self._update, blocks)
        operands, picks = _tables(task), list[Step]()
        for operand, table in enumerate(operands):
            if places is None:
                operands[operand] = table.expand(len(self._like), -1, -1)
            else:
                operands[operand] = lowering.room(samples, table.shape[2])
                self._picks.append((start + len(picks), operand, first))
                picks.append(Pick(operands[operand], table, places[..., first:]))
        inputs, targets, *offset = operands
        outputs = self._network(lowering, Value(inputs, None))
        predictions = 1
        if task.vocabulary is not None:  # each position counts as a sample
            predictions = targets.shape[2]
            targets = one_hot(lowering, targets, task.vocabulary)
        rows, *offset = (
            one.reshape(len(self._like), samples * predictions, -1) for one in (outputs.rows, *offset)
        )
        above = lowering.room(*rows.shape[1:])
        count = self._samples * predictions
        loss = Loss(self._loss, above, rows, targets, task.gamma, losses, count, *offset)
        self._losses.append(start + len(picks) + len(lowering.forward))
        assert outputs.gradient is not None
        outputs.gradient.room, outputs.gradient.begun = above.view(outputs.rows.shape), True
        return [*picks, *lowering.forward, loss, *lowering.backward()]


def block_of(one: Lowering, samples: int) -> int:
    """Return how many samples are in a block of a batch.

    Each block passes over all weights, so that it should be no smaller than they are.

    Args:
        one: As :func:`of_one_sample` returns it.
        samples: Of the batch.
    """
    size = one.like.element_size()
    weights = sum(step.right[0].numel() for step in one.forward if isinstance(step, Operation | Convolve))
    blocks = -(-samples * one.numbers * size // (BLOCK_BYTES + size * weights))
    return -(-samples // blocks)


def of_one_sample(network: Network, like: Tensor, features: int) -> Lowering:
    """Return the operations of a block of one sample.

    Args:
        like: Has a ``cell`` axis, the dtype and the device.
        features: Of the sample.

    Raises:
        CannotLower: If the network has no compiled form.
    """
    one = Lowering(like, 1, None, Blocks())
    outputs = network(one, Value(one.room(1, features), None))
    assert outputs.gradient is not None
    outputs.gradient.room, outputs.gradient.begun = one.room(*outputs.rows.shape[1:]), True
    one.backward()
    return one


def _multiplications(step: Step) -> int:
    if not isinstance(step, Operation | Convolve):
        return 0
    return step.out.shape[1] * step.right.shape[1] * step.right.shape[2]


def _tables(task: Task) -> list[Float[Tensor, "#cell sample column"]]:
    """Return what of a task has samples: inputs, targets and, where it is subtracted, the offset."""
    return [task.inputs, task.targets, *([] if task.offset is None else [task.offset])]
