"""A pack at work: the networks of its cells, the data they share, and the function they compute."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from runner import layers
from runner.data import Dataset
from runner.data.order import Batch
from runner.grid.cell import Cell
from runner.models import build
from runner.numerics.precision import DTYPES

SPLITS = ("train", "test", "probe")


class Ensemble:
    """Cells of one shape as one module, with f = (h - h at init) / gamma on top of the raw outputs h.

    Args:
        cells: Cells with one ``pack_key``.
        model_settings: The ``model`` section.
        dataset: What they train on.
        device: Device of parameters and data.

    Attributes:
        inputs: Samples of each split, with a ``cell`` axis of length 1; symbols as whole numbers.
        targets: What the loss compares with, likewise: under cross-entropy 1 for the class and 0 elsewhere;
            symbols as whole numbers.
        scores: What regression aims at, likewise: the targets of the data set, whatever the loss.
        second: Another labelling of the samples, likewise, for the splits that have one.
        classification: Whether an error rate has a meaning.
        vocabulary: Different symbols, where samples are sequences of them.
        positions: Predictions of a sample, each of which counts as a sample.
        lr: Absolute base learning rate of every cell; NaN until it is known.
        gamma: Richness of every cell, ``[cell, 1, 1]``.
    """

    def __init__(
        self, cells: Sequence[Cell], model_settings: Mapping[str, Any], dataset: Dataset, device: torch.device
    ) -> None:
        shape = cells[0]
        self.device = device
        self.dtype = DTYPES[shape.precision]
        self._hold(cells)
        self.model: nn.Module = build(
            model_settings,
            width=shape.width, depth=shape.depth, inputs=dataset.input_shape, outputs=dataset.outputs,
        )  # fmt: skip
        layers.initialize(self.model, cells, self.dtype, device)
        # A cell axis of length 1: all cells share the data.
        self.inputs, self.scores, self.second = (
            {
                name: values[None].to(device, self.dtype if values.is_floating_point() else values.dtype)
                for name in SPLITS
                if (values := getattr(getattr(dataset, name), part)) is not None
            }
            for part in ("inputs", "targets", "second")
        )
        self.classification = dataset.task == "classification"
        self.vocabulary, self.positions = dataset.vocabulary, dataset.positions
        self.targets = {name: self._compared(scores) for name, scores in self.scores.items()}
        self.offset: dict[str, Tensor] = {}
        self.lr = torch.full((len(cells),), torch.nan, dtype=torch.float64, device=device)

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """Path to parameter, in the order of :func:`runner.layers.parameters_of`."""
        return {path: parameter for path, _, parameter, _ in layers.parameters_of(self.model)}

    def batch_targets(self, batch: Batch) -> Shaped[Tensor, "_cell sample output"]:
        """Return what the loss compares with on a batch."""
        return (
            take(self.targets["train"], batch.places)
            if batch.scores is None
            else self._compared(batch.scores)
        )

    def _compared(
        self, scores: Shaped[Tensor, "_cell sample output"]
    ) -> Shaped[Tensor, "_cell sample output"]:
        """What the loss compares with where regression aims at these scores; symbols are themselves."""
        if self.cells[0].loss == "cross_entropy" and scores.shape[2] > 1 and self.vocabulary is None:
            return _probabilities(scores)
        return scores

    def scored(self, split: str) -> Shaped[Tensor, "sample output"]:
        """Return what the loss compares each output with; of symbols 1 for the one that follows."""
        targets = self.targets[split][0]
        if self.vocabulary is None:
            return targets
        return nn.functional.one_hot(targets, self.vocabulary).flatten(1)

    def center(self, raw_outputs: Mapping[str, Float[Tensor, "cell sample output"]]) -> None:
        """Subtract these raw outputs, those at init, from now on."""
        self.offset = dict(raw_outputs)

    def origin(self, batch: Batch) -> Float[Tensor, "cell sample output"] | None:
        """Return h at init on samples of the training set, where it is subtracted."""
        return take(self.offset["train"], batch.places) if self.offset else None

    def function(
        self, raw: Float[Tensor, "cell sample output"], split: str
    ) -> Float[Tensor, "cell sample output"]:
        """Return f = (h - h at init if centred) / gamma.

        Args:
            raw: h on a split.
        """
        return self.scaled(raw, self.offset[split] if self.offset else None)

    def scaled(
        self, raw: Float[Tensor, "cell sample output"], origin: Float[Tensor, "#cell sample output"] | None
    ) -> Float[Tensor, "cell sample output"]:
        """Return f = (h - h at init if given) / gamma."""
        return (raw if origin is None else raw - origin) / self.gamma

    def select(self, index: Int[Tensor, "kept"], cells: Sequence[Cell] | None = None) -> None:
        """Keep the cells at ``index``, in that order; an index may occur more than once.

        Args:
            index: Places of the cells to keep.
            cells: Others of the same start, in their places; they may differ in lr and gamma.
        """
        layers.select(self.model, index)
        self._select(index, cells)

    def _select(self, index: Int[Tensor, "kept"], cells: Sequence[Cell] | None) -> None:
        """What there is per cell, but for the model."""
        self._hold([self.cells[i] for i in index.tolist()] if cells is None else cells)
        self.lr = self.lr[index]
        self.offset = {name: value[index] for name, value in self.offset.items()}

    def some(self, index: Int[Tensor, "kept"]) -> Ensemble:
        """Return an ensemble of some cells; this one keeps all of them."""
        part = copy.copy(self)
        part.model = layers.some(self.model, index)
        part._select(index, None)
        return part

    def _hold(self, cells: Sequence[Cell]) -> None:
        self.cells = list(cells)
        gamma = torch.tensor([cell.gamma for cell in cells], dtype=self.dtype, device=self.device)
        self.gamma = gamma[:, None, None]


def _probabilities(scores: Float[Tensor, "_cell sample output"]) -> Float[Tensor, "_cell sample output"]:
    """1 for the class, which has the largest score, 0 elsewhere."""
    return nn.functional.one_hot(scores.argmax(2), scores.shape[2]).to(scores.dtype)


def take(
    values: Shaped[Tensor, "_cell sample *rest"], index: Int[Tensor, "cell batch"] | None
) -> Shaped[Tensor, "_cell _batch *rest"]:
    """Pick every cell's samples; ``values`` may have a ``cell`` axis of length 1."""
    if index is None:
        return values
    if values.shape[0] == 1:
        return values[0][index]
    return values[torch.arange(index.shape[0], device=index.device)[:, None], index]
