"""Plans: which cells train together, and who trains them."""

import dataclasses
import itertools
import random
from unittest import mock

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sweeping import shape_of
from test_cell import BASE

from runner.errors import UserError
from runner.planning.costs import MAX_CELLS, Costs
from runner.planning.machine import USUAL
from runner.planning.packs import costs_by_kind, total_cost
from runner.planning.plan import WHOLE_BYTES, Plan, form_packs, make_plan, packs_of_rows


def grid(**axes):
    """Every cell of a product of fields."""
    return [
        dataclasses.replace(BASE, **dict(zip(axes, point, strict=True)))
        for point in itertools.product(*axes.values())
    ]


GRID = grid(
    width=(16, 64, 512), lr=(0.1, 0.2, 0.4), seed=(0, 1), parameterization=("ntk", "sp"), gamma=(1.0, 2.0)
)


def members(plan: Plan):
    return [(pack.index, [cell.cell_id for cell in pack.cells]) for pack in plan.packs]


@given(st.randoms(use_true_random=False))
@settings(max_examples=20, deadline=None)
def test_the_plan_does_not_depend_on_the_order_of_the_cells(shuffler):
    cells = GRID[:]
    shuffler.shuffle(cells)
    assert make_plan(cells, shape_of, 3) == make_plan([*GRID, *GRID], shape_of, 3)


def test_every_cell_is_planned_once_with_others_of_its_shape():
    plan = make_plan(GRID, shape_of, 1)
    planned = [cell for pack in plan.packs for cell in pack.cells]
    assert sorted(cell.cell_id for cell in planned) == sorted(cell.cell_id for cell in GRID)
    assert all(len({cell.pack_key for cell in pack.cells}) == 1 for pack in plan.packs)
    assert [pack.index for pack in plan.packs] == list(range(len(plan.packs)))


def test_cells_of_one_init_are_adjacent_and_lr_varies_fastest():
    for pack in make_plan(GRID, shape_of, 1).packs:
        inits = [(cell.parameterization, cell.base_width, cell.seed) for cell in pack.cells]
        assert len(list(itertools.groupby(inits))) == len(set(inits))
        for _, group in itertools.groupby(
            pack.cells, key=lambda cell: (cell.parameterization, cell.seed, cell.gamma)
        ):
            rates = [cell.lr for cell in group]
            assert rates == sorted(rates)


@given(
    width=st.integers(1, 4096),
    dtype=st.sampled_from(["float32", "float64"]),
    batch=st.sampled_from([None, 1, 64]),
)
@settings(deadline=None)
def test_packs_fit_the_caches(width, dtype, batch):
    cell = dataclasses.replace(BASE, width=width, dtype=dtype, batch_size=batch)
    shape, limit = shape_of(cell), Costs(cell, shape_of(cell), USUAL).pack_limit()
    assert 1 <= limit <= MAX_CELLS
    weights = limit * shape.parameters * (8 if dtype == "float64" else 4)
    assert limit == 1 or weights <= USUAL.cache_bytes


def test_long_runs_are_cut_but_not_to_where_dispatch_counts():
    def sizes(**changes):
        return [len(pack.cells) for pack in form_packs(grid(lr=tuple(range(1, 25)), **changes), shape_of)]

    short = sizes(width=(64,), steps=(100,))
    long = sizes(width=(64,), steps=(100_000,))
    narrow = sizes(width=(4,), steps=(10_000_000,))
    assert max(long) < max(short)
    assert min(narrow) > 4


def test_large_groups_are_cut_evenly_and_small_ones_kept_whole():
    wide = [
        len(pack.cells)
        for pack in form_packs(grid(width=(256,), lr=tuple(i / 10 for i in range(1, 10))), shape_of)
    ]
    assert sum(wide) == 9
    assert max(wide) - min(wide) <= max(wide) // 2 + 1
    narrow = grid(width=(16,), lr=(0.1, 0.2, 0.3), seed=tuple(range(40)))
    for pack in form_packs(narrow, shape_of):
        assert len(pack.cells) % 3 == 0


def test_cells_that_start_alike_stay_together_where_the_work_at_init_is_dear():
    rates = tuple(i / 10 for i in range(1, 7))

    def sizes(machine=USUAL, **changes):
        cells = grid(width=(512,), lr=rates, **changes)
        return [len(pack.cells) for pack in form_packs(cells, shape_of, machine)]

    (cell,) = grid(width=(512,), steps=(10,))
    limit = Costs(cell, shape_of(cell), USUAL).pack_limit()
    assert limit < len(rates)
    assert sizes(steps=(10,)) == [len(rates)]
    assert max(sizes(steps=(100_000,))) <= limit
    # Beyond this, a pack is never larger than what fits: a GPU's share of memory is one such bound.
    huge = Costs(cell, shape_of(cell), USUAL).cell_bytes * len(rates)
    assert huge < WHOLE_BYTES
    with mock.patch("runner.planning.plan.WHOLE_BYTES", huge - 1):
        assert max(sizes(steps=(10,))) <= limit


@given(st.sets(st.integers(0, len(GRID) - 1)))
@settings(max_examples=30, deadline=None)
def test_finished_cells_leave_the_other_packs_as_they_were(places):
    done = {GRID[place].cell_id for place in places}
    whole, rest = make_plan(GRID, shape_of, 1), make_plan(GRID, shape_of, 1, done)
    expected = [(index, [i for i in ids if i not in done]) for index, ids in members(whole)]
    assert members(rest) == [(index, ids) for index, ids in expected if ids]
    assert (rest.missing, rest.total) == (len(GRID) - len(done), len(GRID))
    assert rest.shards == bool(rest.packs)


def test_rows_hold_the_whole_grid_and_give_the_packs_back():
    plan = make_plan(GRID, shape_of, 4, {cell.cell_id for cell in GRID[::5]})
    table = pa.table(plan.rows())
    rows = table.to_pydict()
    assert sorted(rows["cell_id"]) == sorted(cell.cell_id for cell in GRID)
    assert [(p is None, s is None) for p, s in zip(rows["pack"], rows["shard"], strict=True)] == [
        (i in {cell.cell_id for cell in GRID[::5]},) * 2 for i in rows["cell_id"]
    ]
    owned = [table.filter(pc.field("shard") == shard) for shard in range(4)]
    packs = [pack for rows in owned for pack in packs_of_rows(rows, shape_of)]
    assert sorted((pack.index, pack.cells) for pack in packs) == [
        (pack.index, pack.cells) for pack in plan.packs
    ]


def test_several_workers_begin_with_what_takes_longest():
    packs = make_plan(GRID, shape_of, 1).packs
    ordered = packs.costliest_first()
    assert [pack.cost for pack in ordered] == sorted((pack.cost for pack in packs), reverse=True)
    assert sorted(ordered, key=lambda pack: pack.index) == list(packs)
    kinds = costs_by_kind(packs)
    assert kinds == pytest.approx(costs_by_kind(list(packs)))
    assert kinds == pytest.approx(costs_by_kind(ordered))
    assert len(kinds) == 3
    assert sum(kinds.values()) == pytest.approx(total_cost(packs)) == pytest.approx(total_cost(list(packs)))


def test_packs_of_equal_cost_come_from_all_over_the_plan():
    packs = form_packs(grid(width=(512,), seed=tuple(range(64)), steps=(1000,)), shape_of)
    equal = [pack.index for pack in packs.costliest_first() if pack.cost == packs.costs.max()]
    assert sorted(equal) != equal
    for count in (4, 8, 16):  # the first few already lie in every part of it
        parts = {index * count // (2 * len(packs)) for index in equal[: 2 * count]}
        assert len(parts) == count // 2


TWO_CORES = dataclasses.replace(USUAL, threads=2, gains=(1.8,) * len(USUAL.gains))


def test_a_pack_as_long_as_all_others_is_trained_on_all_cores():
    def threaded(cells, shards=1, done=frozenset(), machine=TWO_CORES):
        plan = make_plan(cells, shape_of, shards, done, machine)
        return plan, plan.threaded

    (wide,) = grid(width=(1024,), steps=(2000,))
    narrow = grid(width=(16,), lr=(0.1, 0.2), steps=(100,))
    plan, found = threaded([wide, *narrow])
    (place,) = [pack.index for pack in plan.packs if pack.cells == (wide,)]
    assert found == (place,)
    assert threaded([wide, *narrow], done={wide.cell_id})[1] == found  # of the grid, not of what is left
    assert threaded(narrow)[1] == ()
    assert threaded(grid(width=(1024,), steps=(2000,), seed=(0, 1)))[1] == ()  # one for each core
    assert len(threaded(grid(width=(1024,), steps=(2000,), seed=(0, 1, 2)))[1]) <= 1
    assert threaded([wide, *narrow], shards=2)[1] == ()
    assert threaded([wide, *narrow], machine=USUAL)[1] == ()
    stored = packs_of_rows(pa.table(plan.rows()), shape_of, TWO_CORES, found)
    assert {pack.index: pack.threads for pack in stored} == {
        pack.index: 2 if pack.index == place else 1 for pack in plan.packs
    }
    assert stored.costliest_first()[0].threads == 2
    assert stored.costs[place] == pytest.approx(plan.packs.costs[place] / 1.8)


def test_packs_are_of_the_machine_that_is_given():
    small = dataclasses.replace(USUAL, cache_bytes=1 << 16)
    usual, other = make_plan(GRID, shape_of), make_plan(GRID, shape_of, machine=small)
    assert len(other.packs) > len(usual.packs)
    rows = pa.table(other.rows())
    assert packs_of_rows(rows, shape_of, small) == other.packs


@given(st.integers(1, 12))
@settings(deadline=None)
def test_shards_are_balanced(shards):
    plan = make_plan(GRID, shape_of, shards)
    assert plan.shards == min(shards, len(plan.packs))
    loads = [0.0] * plan.shards
    for pack, shard in zip(plan.packs, plan.shard_of, strict=True):
        loads[shard] += pack.cost
    assert max(loads) - min(loads) <= max(pack.cost for pack in plan.packs)


def test_the_planner_chooses_shards_by_cost():
    assert make_plan(GRID, shape_of, None).shards == 1
    long = make_plan(grid(width=(512,), steps=(100_000,), seed=tuple(range(50))), shape_of, None)
    assert 1 < long.shards <= len(long.packs)
    cost = sum(pack.cost for pack in long.packs) / long.shards
    assert cost < 600 or long.shards == len(long.packs)


def test_no_cells_are_a_mistake():
    with pytest.raises(UserError, match=r"^the grid must have at least one cell"):
        make_plan([], shape_of)


def test_the_engine_is_asked_once_per_shape_and_may_refuse():
    asked = []

    def refuse(cell):
        asked.append(cell.width)
        if cell.width == 512:
            raise UserError("width must be small")
        return shape_of(cell)

    with pytest.raises(UserError, match="width must be small"):
        make_plan(random.Random(0).sample(GRID, len(GRID)), refuse)
    assert asked == [16, 64, 512]


def test_cells_of_a_plain_torch_module_are_packed_beyond_the_caches():
    """One alone pays for the batching of torch.func and has none."""
    (cell,) = grid(width=(1024,))
    shape = shape_of(cell)
    assert Costs(cell, shape, USUAL).pack_limit() < 8
    shape.wrapped = True
    costs = Costs(cell, shape, USUAL)
    assert costs.pack_limit() == min(8, (64 << 20) // costs.cell_bytes) > 2
