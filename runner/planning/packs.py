"""Packs: cells that train together, and many packs in little room."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from typing import overload

import numpy as np

from runner.grid.cell import PACK_FIELDS, Cell
from runner.grid.cells import Cells

_GOLDEN_RATIO = (5**0.5 - 1) / 2


@dataclass(frozen=True, slots=True)
class Pack:
    """Cells trained as one ensemble.

    Attributes:
        index: Place in the plan of the whole grid.
        cells: Those that are still to be trained.
        cost: Estimated seconds.
        threads: Threads that train the pack.
    """

    index: int
    cells: tuple[Cell, ...]
    cost: float
    threads: int = 1

    @property
    def name(self) -> str:
        """Place and content: other cells of the same planned pack are another name."""
        ids = "\n".join(cell.cell_id for cell in self.cells)
        return f"{self.index:06d}-{hashlib.sha256(ids.encode()).hexdigest()[:12]}"

    def halves(self) -> tuple[Pack, ...]:
        """Return the pack cut in two; nothing for a single cell."""
        middle = len(self.cells) // 2
        return (self._with(self.cells[:middle]), self._with(self.cells[middle:])) if middle else ()

    def only(self, cell_ids: Container[str]) -> Pack:
        """Return the pack with these of its cells alone."""
        return self._with(tuple(cell for cell in self.cells if cell.cell_id in cell_ids))

    def _with(self, cells: tuple[Cell, ...]) -> Pack:
        return replace(self, cells=cells, cost=self.cost * len(cells) / max(1, len(self.cells)))


class Packs(Sequence[Pack]):
    """Packs over columns of cells: each is made when asked for, so that a million cells take little room.

    Args:
        cells: Cells of all packs, one pack after the other.
        sizes: Cells of each pack; at least one.
        indices: Place of each in the plan of the whole grid.
        costs: Estimated seconds of each.
        threads: Threads that train each; one by default.
    """

    __slots__ = ("cells", "costs", "indices", "sizes", "stops", "threads")
    __hash__ = None  # type: ignore[assignment]

    def __init__(
        self, cells: Cells, sizes: np.ndarray, indices: np.ndarray, costs: np.ndarray,
        threads: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        self.cells, self.sizes, self.indices, self.costs = cells, sizes, indices, costs
        self.threads = np.ones_like(sizes) if threads is None else threads
        self.stops = np.cumsum(sizes)

    def __len__(self) -> int:
        return len(self.sizes)

    @overload
    def __getitem__(self, place: int) -> Pack: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Pack]: ...
    def __getitem__(self, place: int | slice) -> Pack | Sequence[Pack]:
        if isinstance(place, slice):
            return [self[one] for one in range(len(self))[place]]
        stop = int(self.stops[place])
        cells = tuple(self.cells[stop - int(self.sizes[place]) : stop])
        threads = int(self.threads[place])
        return Pack(int(self.indices[place]), cells, float(self.costs[place]), threads)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Packs) and list(self) == list(other)

    def first(self, place: int) -> Cell:
        """Return the first cell of a pack, without the others."""
        return self.cells[int(self.stops[place] - self.sizes[place])]

    def only(self, kept: np.ndarray) -> Packs:
        """Return the packs with some of their cells alone; a pack with none left vanishes."""
        sizes = np.add.reduceat(kept, self.stops - self.sizes, dtype=np.int64) if len(self) else self.sizes
        there = sizes > 0
        costs = self.costs * sizes / np.maximum(1, self.sizes)
        owned = (self.indices[there], costs[there], self.threads[there])
        return Packs(self.cells.take(kept), sizes[there], *owned)

    def costliest_first(self) -> Packs:
        """Return the packs as workers do best to take them: those of many threads first, then long ones.

        Packs of equal cost come from all over the plan, in the order of a golden-ratio sequence: neighbours
        there are alike in more than their cost, such as diverging early, and the first to end are taken to
        speak for the others.
        """
        spread = self.indices * _GOLDEN_RATIO % 1.0
        places = np.lexsort((spread, -self.costs, -self.threads))
        sizes = self.sizes[places]
        moved = (self.stops - self.sizes)[places] - (np.cumsum(sizes) - sizes)
        cells = self.cells.take(np.repeat(moved, sizes) + np.arange(len(self.cells)))
        return Packs(cells, sizes, self.indices[places], self.costs[places], self.threads[places])


def costs_by_kind(packs: Sequence[Pack]) -> dict[tuple[object, ...], float]:
    """Return the estimated seconds of packs by the ``pack_key`` of their cells, making none of `Packs`."""
    found: dict[tuple[object, ...], float] = {}
    if isinstance(packs, Packs):
        firsts = packs.cells.take(packs.stops - packs.sizes)
        runs = itertools.pairwise([*firsts.starts(PACK_FIELDS).tolist(), len(packs)])
        pairs = ((firsts[start].pack_key, float(packs.costs[start:stop].sum())) for start, stop in runs)
    else:
        pairs = ((pack.cells[0].pack_key, pack.cost) for pack in packs)
    for kind, cost in pairs:
        found[kind] = found.get(kind, 0.0) + cost
    return found


def total_cost(packs: Sequence[Pack]) -> float:
    """Return the estimated seconds of all packs, making none that is kept in columns."""
    return float(packs.costs.sum() if isinstance(packs, Packs) else sum(pack.cost for pack in packs))
