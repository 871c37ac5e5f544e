"""Cells -> packs -> shards: which cells train together, and which job trains which pack.

A plan depends on the grid alone, never on what is finished already, so that a resumed launch trains
the same packs bit for bit.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import math
import operator
from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from runner.cell import FIELDS, PACK_FIELDS, Cell
from runner.errors import UserError

TARGET_BYTES = 8 << 20
"""Weights and activations of a pack: larger ones fall out of the caches, smaller ones pay more for dispatch.
On one core, seconds per cell of width 256: 0.51 at 1 MB, 0.29 at 3, 0.25 at 8, 0.32 at 16."""
MAX_CELLS = 512
LONG_SECONDS = 60.0
"""Packs that would take longer are cut, so that one long pack does not keep a single core busy."""
SHARD_SECONDS = 450.0
"""Length of a launcher's job: long beside the start of a job, short beside a time limit."""
MAX_SHARDS = 256
"""That the planner chooses by itself: a queue is shared. ``shards=N`` may ask for more."""

_FLOPS_PER_SECOND = 3e10  # one core, measures included; only ratios matter for the balance
_STEP_SECONDS = 3e-4  # of Python and dispatch, per step of a pack
_PACK_SECONDS = 0.3  # of data, init and measures, per pack


class Shape(Protocol):
    """What the planner asks of ``train.PackShape``."""

    @property
    def parameters(self) -> int:
        """Trainable parameters of a cell."""

    @property
    def train_size(self) -> int:
        """Training samples."""

    @property
    def inputs(self) -> int:
        """Input features."""

    @property
    def activations(self) -> int:
        """Numbers that the layers return for one sample."""

    @property
    def flops_per_step(self) -> float:
        """Floating-point operations of one optimizer step of one cell."""


@dataclass(frozen=True, slots=True)
class Pack:
    """Cells trained as one ensemble.

    Attributes:
        index: Place in the plan of the whole grid.
        cells: Those that are still to be trained.
        cost: Estimated seconds.
    """

    index: int
    cells: tuple[Cell, ...]
    cost: float

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
        return Pack(self.index, cells, self.cost * len(cells) / max(1, len(self.cells)))


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be trained where.

    Attributes:
        packs: With cells to train, in canonical order.
        shard_of: The shard of each pack.
        finished: Packs of the finished cells: part of the grid, to be trained by no shard.
    """

    packs: tuple[Pack, ...]
    shard_of: tuple[int, ...]
    finished: tuple[Pack, ...] = ()

    @property
    def shards(self) -> int:
        """Number of shards."""
        return max(self.shard_of, default=-1) + 1

    @property
    def missing(self) -> int:
        """Number of cells to train."""
        return sum(len(pack.cells) for pack in self.packs)

    @property
    def total(self) -> int:
        """Number of cells of the grid."""
        return self.missing + sum(len(pack.cells) for pack in self.finished)

    def rows(self) -> dict[str, list[Any]]:
        """Return the plan as columns: every field of a cell, cell_id, pack and shard.

        The pack and the shard of a finished cell are None.
        """
        owned: list[tuple[Pack, int | None]] = list(zip(self.packs, self.shard_of, strict=True))
        owned += [(pack, None) for pack in self.finished]
        owned.sort(key=lambda item: item[0].index)
        cells = [cell for pack, _ in owned for cell in pack.cells]
        columns: dict[str, list[Any]] = {
            name: list(map(operator.attrgetter(name), cells)) for name in ("cell_id", *FIELDS)
        }
        columns["pack"] = [None if shard is None else pack.index for pack, shard in owned for _ in pack.cells]
        columns["shard"] = [shard for pack, shard in owned for _ in pack.cells]
        return columns


def make_plan(
    cells: Collection[Cell],
    shape_of: Callable[[Cell], Shape] | None = None,
    shards: int | None = 1,
    finished: Collection[str] = frozenset(),
) -> Plan:
    """Group cells into packs and packs into shards of about equal cost.

    Packs are formed over all cells; finished ones are dropped from them afterwards, and a pack with
    none left vanishes. The same cells in any order give the same plan.

    Args:
        cells: The whole grid; repeated cells count once.
        shape_of: Size of a cell; ``train.inspect`` by default, which checks model and data too.
        shards: How many; None for jobs of about `SHARD_SECONDS`.
        finished: Ids of cells that need no training.

    Raises:
        UserError: If there are no cells, or a model, data set or measure cannot be built.
    """
    if not cells:
        raise UserError("the grid must have at least one cell, got none; give every axis a value")
    if shape_of is None:
        from runner.train import inspect

        shape_of = inspect
    packs, done = [], []
    for pack in form_packs(cells, shape_of):
        missing, trained = _split(pack, finished)
        packs += [missing] if missing.cells else []
        done += [trained] if trained.cells else []
    return Plan(tuple(packs), _balance(packs, _shard_count(packs, shards)), tuple(done))


def form_packs(cells: Collection[Cell], shape_of: Callable[[Cell], Shape]) -> Iterator[Pack]:
    """Yield the packs of a grid, in canonical order."""
    index = itertools.count()
    ordered = sorted(dict.fromkeys(cells), key=_canonical_order)
    for _, group in itertools.groupby(ordered, key=_PACK_KEY):
        members = tuple(group)
        # All are of one shape; what else may not fit together is looked at once per kind of cell.
        kinds = {(cell.lr_unit, cell.exponents): cell for cell in reversed(members)}
        shape = [shape_of(cell) for cell in kinds.values()][-1]
        for chunk in _chunks(members, pack_limit(members[0], shape)):
            yield Pack(next(index), chunk, _cost(chunk[0], len(chunk), shape))


def pack_limit(cell: Cell, shape: Shape) -> int:
    """Return how many cells like this one fit in a pack.

    A cell's working set is its weights and one batch of activations; that of a pack should stay in
    the caches, see `TARGET_BYTES`.
    """
    batch = min(cell.batch_size or shape.train_size, shape.train_size)
    numbers = shape.parameters + batch * (shape.inputs + shape.activations)
    size = (8 if cell.dtype == "float64" else 4) * numbers
    fitting = max(1, min(MAX_CELLS, TARGET_BYTES // max(size, 1)))
    # A long run is cut into packs that can run side by side, but none so small that dispatch counts.
    compute = max(shape.flops_per_step, 1.0) / _FLOPS_PER_SECOND
    short = LONG_SECONDS / (max(cell.steps, 1) * compute)
    worthwhile = 5 * _STEP_SECONDS / compute
    return min(fitting, max(1, math.ceil(max(short, worthwhile))))


_PACK_KEY = operator.attrgetter(*PACK_FIELDS)
_INIT_KEY = operator.attrgetter("parameterization", "exponents", "base_width", "seed")
_SWEPT_KEY = operator.attrgetter("lr_unit", "gamma", "lr")


def _canonical_order(cell: Cell) -> tuple[object, ...]:
    # None does not compare with numbers: full batch sorts as 0.
    shape = tuple(0 if value is None else value for value in _PACK_KEY(cell))
    return (*shape, *_INIT_KEY(cell), *_SWEPT_KEY(cell))


def _chunks(members: tuple[Cell, ...], limit: int) -> Iterator[tuple[Cell, ...]]:
    """Cut into packs of about equal size, of whole groups of one init where they fit.

    The engine does the work at init once per group, so cutting one open repeats that work.
    """
    groups = [tuple(group) for _, group in itertools.groupby(members, key=_INIT_KEY)]
    largest = max(map(len, groups))
    if largest > limit:
        for group in groups:
            yield from _equal_parts(group, limit)
        return
    per_pack = _even(len(groups), limit // largest)
    for start in range(0, len(groups), per_pack):
        yield tuple(itertools.chain.from_iterable(groups[start : start + per_pack]))


def _equal_parts(items: tuple[Cell, ...], limit: int) -> Iterator[tuple[Cell, ...]]:
    size = _even(len(items), limit)
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _even(count: int, limit: int) -> int:
    """Return the part size that cuts ``count`` into the fewest, most equal parts of at most ``limit``."""
    return math.ceil(count / math.ceil(count / limit))


def _cost(cell: Cell, count: int, shape: Shape) -> float:
    step = _STEP_SECONDS + count * shape.flops_per_step / _FLOPS_PER_SECOND
    return _PACK_SECONDS + cell.steps * step


def _split(pack: Pack, finished: Collection[str]) -> tuple[Pack, Pack]:
    """Return the pack of the missing cells and that of the finished ones."""
    sides: tuple[list[Cell], list[Cell]] = ([], [])
    for cell in pack.cells:
        sides[bool(finished) and cell.cell_id in finished].append(cell)
    missing, trained = map(tuple, sides)
    cost = pack.cost * len(missing) / len(pack.cells)
    return Pack(pack.index, missing, cost), Pack(pack.index, trained, 0.0)


def _shard_count(packs: Sequence[Pack], shards: int | None) -> int:
    if shards is None:
        shards = min(MAX_SHARDS, math.ceil(sum(pack.cost for pack in packs) / SHARD_SECONDS))
    return max(1, min(shards, len(packs)))


def _balance(packs: Sequence[Pack], shards: int) -> tuple[int, ...]:
    """Give the costliest pack left to the least loaded shard, until none is left."""
    loads = [(0.0, shard) for shard in range(shards)]
    shard_of = [0] * len(packs)
    for place in sorted(range(len(packs)), key=lambda place: (-packs[place].cost, place)):
        load, shard = heapq.heappop(loads)
        shard_of[place] = shard
        heapq.heappush(loads, (load + packs[place].cost, shard))
    return tuple(shard_of)


def packs_of_rows(
    columns: Mapping[str, Sequence[Any]], shard: int, shape_of: Callable[[Cell], Shape]
) -> list[Pack]:
    """Return the packs of one shard from the columns of a stored plan, in order."""
    packs: dict[int, list[Cell]] = {}
    fields = [columns[name] for name in FIELDS]
    for place, owner in enumerate(columns["shard"]):
        if owner == shard:
            packs.setdefault(columns["pack"][place], []).append(Cell(*(field[place] for field in fields)))
    return [
        Pack(index, tuple(cells), _cost(cells[0], len(cells), shape_of(cells[0])))
        for index, cells in sorted(packs.items())
    ]
