"""The order in which minibatches visit the training samples."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from runner.numerics.generators import generator


class Batch(NamedTuple):
    """What every cell descends on at a step; the whole training set if nothing is given.

    Attributes:
        places: In the training set.
        inputs: Samples that are in no split, instead.
        scores: The targets of these.
    """

    places: Int[Tensor, "cell batch"] | None = None
    inputs: Shaped[Tensor, "cell batch *shape"] | None = None
    scores: Shaped[Tensor, "cell batch output"] | None = None


class BatchOrder:
    """Minibatches without replacement: each epoch is a fresh permutation, its incomplete last batch dropped.

    Args:
        seeds: One per cell; cells with one seed see the same batches.
        batch_size: Samples per batch, at most ``samples``.
    """

    def __init__(self, seeds: Sequence[int], samples: int, batch_size: int, device: torch.device) -> None:
        distinct = sorted(set(seeds))
        self._generators = [generator(seed, "batches") for seed in distinct]
        self._stream_of_cell = torch.tensor([distinct.index(seed) for seed in seeds], device=device)
        self._samples, self._size, self._device = samples, batch_size, device
        self._per_epoch = samples // batch_size
        self._next = self._per_epoch

    def next(self) -> Batch:
        """Return the next batch: places in the training set."""
        if self._next == self._per_epoch:
            permutations = [torch.randperm(self._samples, generator=g) for g in self._generators]
            self._epoch = torch.stack(permutations).to(self._device)
            self._next = 0
        batch = self._epoch[:, self._next * self._size : (self._next + 1) * self._size]
        self._next += 1
        return Batch(batch[self._stream_of_cell])

    def select(self, index: Int[Tensor, "kept"]) -> None:
        """Keep only the cells at ``index``."""
        self._stream_of_cell = self._stream_of_cell[index]

    def state_dict(self) -> dict[str, Tensor]:
        """Return where the order is: the epoch under way and the generators of those to come."""
        return {
            "epoch": self._epoch,
            "next": torch.tensor(self._next),
            "generators": torch.stack([stream.get_state() for stream in self._generators]),
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state of the same seeds."""
        self._epoch, self._next = state["epoch"].to(self._device), int(state["next"])
        for stream, saved in zip(self._generators, state["generators"].cpu(), strict=True):
            stream.set_state(saved.clone())  # torch reads the storage of a view from its start
