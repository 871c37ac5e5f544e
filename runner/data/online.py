"""Training online, one-pass SGD: fresh samples of the task at every step."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from runner.data.dataset import Dataset, Split, check_split
from runner.data.order import Batch
from runner.errors import UserError
from runner.numerics.generators import generator

DRAWN = ("parity", "polynomial", "single_index", "staircase", "teacher", "text", "xor")
"""Data sets of ``conf/data`` that can be drawn from without end."""
AHEAD = 1024
"""Samples that are drawn at a time: to draw batches of 64 one by one takes twice as long."""
_TRIED = 64
"""Samples of a data set that are drawn to see what it draws."""


def is_online(settings: Mapping[str, Any]) -> bool:
    """Return whether a ``data`` section asks for fresh samples at every step."""
    return bool(settings.get("online", False))


def check(settings: Mapping[str, Any], dataset: Dataset, batch_size: int | None) -> None:
    """Raise UserError if cells cannot train online on a data set.

    Args:
        settings: The ``data`` section.
        dataset: What it describes.
        batch_size: Samples per step; None for full batch, which fresh samples are not.
    """
    if dataset.fresh is None:
        raise UserError(
            f"data.online must be false for a data set without fresh samples, got true with "
            f"{settings['_target_']}; choose one of {', '.join(DRAWN)} or give your own Dataset.fresh"
        )
    if batch_size is None:
        raise UserError(
            "batch_size must be a whole number >= 1 with data.online=true, got null; "
            "say how many samples are drawn for a step, e.g. batch_size=64"
        )
    one, again, other = (_drawn(dataset, stream) for stream in ("one", "one", "other"))
    check_split("fresh", one, dataset)
    if len(one) != _TRIED:
        raise UserError(
            f"data must draw as many fresh samples as it is asked for, got {len(one)} of {_TRIED}; use count"
        )
    moved = not (torch.equal(one.inputs, again.inputs) and torch.equal(one.targets, again.targets))
    if moved or torch.equal(one.inputs, other.inputs):
        got = "others from the same one" if moved else "the same from another one"
        raise UserError(
            f"data must draw fresh samples from the generator that it is given, got {got}; "
            "pass it to all that is random"
        )


def _drawn(dataset: Dataset, stream: str) -> Split:
    """Some fresh samples."""
    assert dataset.fresh is not None
    split = dataset.fresh(_TRIED, generator(0, f"online/{stream}"))
    if not isinstance(split, Split):
        raise UserError(
            f"data must draw a runner.data.Split of fresh samples, got {type(split).__name__}; return one"
        )
    return split


class FreshBatches:
    """Batches of samples that are drawn for their step, from a stream named by the seed and the step.

    Samples are drawn for several steps at a time: those of the steps b * k to (b + 1) * k - 1, with
    k = max(1, AHEAD // batch_size), are the first to last of k * batch_size samples from the stream
    ``online/b`` of the seed. So a step's samples follow from seed, step and batch size alone, not from the
    pack, nor from where training was interrupted.

    Args:
        seeds: One per cell; cells with one seed see the same samples.
        fresh: Of the data set.
        batch_size: Samples per batch.
        device: Where batches are wanted. They are drawn in float64 on the CPU, to be the same everywhere.
        dtype: In which they are wanted.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        fresh: Callable[[int, torch.Generator], Split],
        batch_size: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self._seeds, self._fresh, self._size = list(seeds), fresh, batch_size
        self._device, self._dtype = device, dtype
        self._steps = max(1, AHEAD // batch_size)
        self._step = 0
        self._block: int | None = None

    def next(self) -> Batch:
        """Return the next batch: samples."""
        block, place = divmod(self._step, self._steps)
        if block != self._block:
            self._draw(block)
        rows = slice(place * self._size, (place + 1) * self._size)
        self._step += 1
        return Batch(
            inputs=self._inputs[self._stream_of_cell, rows], scores=self._scores[self._stream_of_cell, rows]
        )

    def _draw(self, block: int) -> None:
        """Draw a block, once for each seed that still trains."""
        distinct = sorted(set(self._seeds))
        count = self._steps * self._size
        drawn = [self._fresh(count, generator(seed, f"online/{block}")) for seed in distinct]
        self._inputs, self._scores = (
            torch.stack([self._cast(getattr(split, part)) for split in drawn]).to(self._device)
            for part in ("inputs", "targets")
        )
        places = [distinct.index(seed) for seed in self._seeds]
        self._stream_of_cell = torch.tensor(places, device=self._device)
        self._block = block

    def _cast(self, values: Tensor) -> Tensor:
        """In the precision that is wanted; symbols are whole numbers."""
        return values.to(self._dtype) if values.is_floating_point() else values

    def select(self, index: Int[Tensor, "kept"]) -> None:
        """Keep only the cells at ``index``."""
        self._seeds = [self._seeds[place] for place in index.tolist()]
        if self._block is not None:
            self._stream_of_cell = self._stream_of_cell[index]

    def state_dict(self) -> dict[str, Tensor]:
        """Return where it is: the step says all."""
        return {"step": torch.tensor(self._step)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state of the same seeds."""
        self._step, self._block = int(state["step"]), None
