"""Cells -> packs -> shards: which cells train together, and which job trains which pack.

A plan depends on the grid and on the machine that it is made for, never on what is finished already, so that
a resumed launch trains the same packs bit for bit.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from runner.errors import UserError
from runner.grid.cell import PACK_FIELDS, START_FIELDS, Cell
from runner.grid.cells import Cells
from runner.planning.costs import MAX_CELLS, Costs
from runner.planning.machine import USUAL, Machine
from runner.planning.packs import Packs, total_cost
from runner.store.arrow import from_numpy, is_in, to_numpy

if TYPE_CHECKING:
    from runner.training.preflight import PackShape

SHARD_SECONDS = 450.0
"""Length of a launcher's job: long beside the start of a job, short beside a time limit."""
_THREADED_SECONDS = 10.0
"""Least cost of a pack that is trained on all cores."""
_WORTHWHILE = 0.9
_BEYOND = 4
"""Times what the caches hold, that a pack may hold to keep cells that start alike together."""
WHOLE_BYTES = 64 << 20
"""Largest such pack: beyond any core's caches, but no GPU, whose memory must suffice, is filled by it."""
_WORTH_CUTTING = 0.9
"""Share of its cost whole to which cutting a group of cells that start alike must bring it: passes beyond
the caches hide behind products, and cost less than is estimated."""
MAX_SHARDS = 256
"""That the planner chooses by itself: a queue is shared. ``shards=N`` may ask for more."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be trained where.

    Attributes:
        packs: With cells to train, in canonical order.
        shard_of: The shard of each pack.
        grid: All cells in canonical order, the finished ones included.
        ids: Ids of all cells of the grid, Arrow strings.
        missing_cells: Mask over the grid of the cells to be trained: those of the packs, in the same order.
        threaded: Indices of the packs to be trained on all cores, one after the other, before the others.
    """

    packs: Packs
    shard_of: tuple[int, ...]
    grid: Cells
    ids: pa.Array = field(compare=False)
    missing_cells: np.ndarray = field(compare=False)
    threaded: tuple[int, ...]

    @property
    def shards(self) -> int:
        """Number of shards."""
        return max(self.shard_of, default=-1) + 1

    @property
    def missing(self) -> int:
        """Number of cells to train."""
        return len(self.packs.cells)

    @property
    def total(self) -> int:
        """Number of cells of the grid."""
        return len(self.grid)

    def rows(self) -> dict[str, pa.Array]:
        """Return the plan as Arrow's columns: every field of a cell, cell_id, pack and shard.

        The pack and the shard of a finished cell are null.
        """
        columns = {"cell_id": self.ids, **self.grid.arrow()}
        for name, owner in (("pack", self.packs.indices), ("shard", np.array(self.shard_of, np.int64))):
            values = np.zeros(self.total, np.int64)
            values[self.missing_cells] = np.repeat(owner, self.packs.sizes)
            columns[name] = from_numpy(values, self.missing_cells)
        return columns


def make_plan(
    cells: Collection[Cell],
    shape_of: Callable[[Cell], PackShape] | None = None,
    shards: int | None = 1,
    finished: Collection[str] = frozenset(),
    machine: Machine = USUAL,
) -> Plan:
    """Group cells into packs and packs into shards of about equal cost.

    Packs are formed over all cells; finished ones are dropped from them afterwards, and a pack with
    none left vanishes. The same cells in any order give the same plan.

    Args:
        cells: The whole grid; repeated cells count once.
        shape_of: Size of a cell; ``preflight.inspect`` by default, which checks model and data too.
        shards: How many; None for jobs of about `SHARD_SECONDS`.
        finished: Ids of cells that need no training.
        machine: Where they train: packs are formed for it, so a launch resumed needs the same.

    Raises:
        UserError: If there are no cells, or a model, data set or measure cannot be built.
    """
    if not cells:
        raise UserError("the grid must have at least one cell, got none; give every axis a value")
    if shape_of is None:
        from runner.training.preflight import inspect

        shape_of = inspect
    whole = form_packs(cells, shape_of, machine)
    ids = whole.cells.ids()
    missing = ~is_in(ids, finished)
    packs = whole.only(missing)
    shard_of = _balance(packs.costs, _shard_count(packs, shards))
    # Of the whole grid, too: another number of threads may round otherwise. Jobs may share their machine.
    threaded = _threaded(whole, machine) if shards == 1 else ()
    return Plan(packs, shard_of, whole.cells, ids, missing, threaded)


def form_packs(
    cells: Iterable[Cell], shape_of: Callable[[Cell], PackShape], machine: Machine = USUAL
) -> Packs:
    """Return the packs of a grid, in canonical order."""
    grid = Cells.of(cells)
    grid = grid.take(grid.order(_CANONICAL))
    sizes: list[np.ndarray] = []
    seconds: list[np.ndarray] = []
    for start, stop in itertools.pairwise([*grid.starts(PACK_FIELDS).tolist(), len(grid)]):
        members = grid[start:stop]
        # All are of one shape; what else may not fit together is looked at once per kind of cell.
        kinds = [members[int(place)] for place in members.order(_KIND)]
        shape = [shape_of(cell) for cell in kinds][-1]
        costs = Costs(members[0], shape, machine)
        sizes.append(_chunks(members, costs))
        seconds.append(_seconds(members, sizes[-1], costs))
    count = sum(map(len, sizes))
    return Packs(grid, np.concatenate(sizes), np.arange(count), np.concatenate(seconds))


_KIND = ("lr_unit", "exponents", "symmetric_init")
_CANONICAL = (*PACK_FIELDS, *START_FIELDS, "lr_unit", "gamma", "lr")


def _chunks(members: Cells, costs: Costs) -> np.ndarray:
    """Cut into packs of about equal size, of whole groups of one init where they fit; returns the sizes.

    The engine does the work at init once per group, so cutting one open repeats that work: a group somewhat
    beyond the caches stays whole, unless that is estimated to cost much more.
    """
    groups = np.diff(members.starts(START_FIELDS), append=len(members))
    largest, limit = int(groups.max()), costs.pack_limit()
    if limit < largest <= min(MAX_CELLS, min(WHOLE_BYTES, _BEYOND * costs.cache_bytes) // costs.cell_bytes):
        part = _even(largest, limit)
        if costs.seconds(part) / part > _WORTH_CUTTING * costs.seconds(largest) / largest:
            limit = largest
    if largest <= limit:
        return np.add.reduceat(groups, np.arange(0, len(groups), int(_even(len(groups), limit // largest))))
    size = _even(groups, limit)
    parts = -(-groups // size)
    last = np.cumsum(parts) - 1
    sizes = np.repeat(size, parts)
    sizes[last] = groups - (parts - 1) * size
    return sizes


def _even(count: Any, limit: int) -> Any:
    """Return the part size that cuts ``count`` into the fewest, most equal parts of at most ``limit``."""
    return -(-count // -(-count // limit))


def _seconds(members: Cells, sizes: np.ndarray, costs: Costs) -> np.ndarray:
    """Return the cost of packs that these cells are cut into."""
    inits, stops = members.starts(START_FIELDS), np.cumsum(sizes)
    begun_before = np.searchsorted(inits, stops - sizes, side="right") - 1
    return costs.seconds(sizes, np.searchsorted(inits, stops) - begun_before)


def _shard_count(packs: Packs, shards: int | None) -> int:
    if shards is None:
        shards = min(MAX_SHARDS, math.ceil(total_cost(packs) / SHARD_SECONDS))
    return max(1, min(shards, len(packs)))


def _balance(costs: np.ndarray, shards: int) -> tuple[int, ...]:
    """Give the costliest pack left to the least loaded shard, until none is left."""
    loads = [(0.0, shard) for shard in range(shards)]
    shard_of = [0] * len(costs)
    for place in np.argsort(-costs, kind="stable").tolist() if shards > 1 else ():
        load, shard = loads[0]
        shard_of[place] = shard
        heapq.heapreplace(loads, (load + float(costs[place]), shard))
    return tuple(shard_of)


def _threaded(packs: Packs, machine: Machine) -> tuple[int, ...]:
    """Return the packs that are better trained on all cores, the costliest first.

    A pack that takes longer than its share leaves the other cores without work while it trains.
    """
    found: list[int] = []
    left = float(packs.costs.sum())
    order = np.argsort(-packs.costs, kind="stable").tolist()
    for place, following in itertools.pairwise([*order, None]):
        cost, next_cost = (
            float(packs.costs[place]),
            0.0 if following is None else float(packs.costs[following]),
        )
        gain = machine.gain(packs.first(place).width)
        apart = max(cost, left / machine.threads)
        together = cost / gain + max(next_cost, (left - cost) / machine.threads)
        if cost < _THREADED_SECONDS or together > _WORTHWHILE * apart:
            break
        found.append(int(packs.indices[place]))
        left -= cost
    return tuple(found)


def packs_of_rows(
    rows: Mapping[str, Any] | pa.Table,
    shape_of: Callable[[Cell], PackShape],
    machine: Machine = USUAL,
    threaded: Collection[int] = (),
) -> Packs:
    """Return the packs of a shard from its rows of a stored plan, in order.

    Args:
        rows: Rows of the plan that are of the shard.
        threaded: Indices of the packs that are trained on all its cores.
    """
    cells, index = Cells.from_arrow(rows), to_numpy(rows["pack"])
    firsts = np.flatnonzero(np.diff(index, prepend=-1))
    sizes, seconds = np.diff(firsts, append=len(cells)), np.empty(len(firsts))
    for start, stop in itertools.pairwise([*cells.starts(PACK_FIELDS).tolist(), len(cells)]):
        some = slice(*np.searchsorted(firsts, [start, stop]).tolist())
        costs = Costs(cells[start], shape_of(cells[start]), machine)
        seconds[some] = _seconds(cells[start:stop], sizes[some], costs)
    packs = Packs(cells, sizes, index[firsts], seconds)
    for place in np.flatnonzero(np.isin(packs.indices, list(threaded))).tolist():
        packs.threads[place] = machine.threads
        packs.costs[place] /= machine.gain(packs.first(place).width)
    return packs
