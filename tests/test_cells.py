"""Cells as columns: what a list of cells says, in less room."""

import dataclasses
import pickle
import tracemalloc

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cell import BASE, PINNED

from runner.grid.cell import FIELDS, OPTIONAL, Cell
from runner.grid.cells import Cells
from runner.schema import CELLS as CELLS_TABLE
from runner.store.arrow import to_arrow

VALUES = {
    "width": (1, 64, 1024),
    "lr": (1e-5, 0.1, 1, 2.5),
    "gamma": (0.5, 1.0),
    "seed": (0, 1, 10, 2),
    "batch_size": (None, 1, 32),
    "base_depth": (None, 2),
    "sigma": (None, '{"hidden":1,"input":2,"output":1}'),
    "symmetric_init": (None, True),
    "center_output": (True, False),
    "model": ("mlp", "größe,"),
    "settings": ('{"data":{"seed":0}}', '{"data":{"seed":1}}'),
}
CELLS = st.builds(
    lambda **values: dataclasses.replace(BASE, **values),
    **{name: st.sampled_from(values) for name, values in VALUES.items()},
)


@given(st.lists(CELLS, min_size=1))
@settings(deadline=None)
def test_columns_hold_the_cells_and_give_their_ids(cells):
    columns = Cells.of(cells)
    assert columns == cells
    assert list(columns) == [columns[place] for place in range(len(cells))] == cells
    assert columns[1:] == cells[1:]
    assert columns.ids().to_pylist() == [cell.cell_id for cell in cells]
    assert pickle.loads(pickle.dumps(columns)) == cells


def test_ids_are_pinned():
    assert Cells.of(PINNED.values()).ids().to_pylist() == list(PINNED)


@given(st.lists(CELLS, min_size=1), st.permutations(FIELDS))
@settings(deadline=None)
def test_order_sorts_by_fields_and_names_equal_cells_once(cells, names):
    def key(cell):
        values = (getattr(cell, name) for name in names)
        return tuple((value is not None, value) for value in values)

    columns = Cells.of(cells)
    assert list(columns.take(columns.order(names))) == sorted(set(cells), key=key)
    few = columns.take(columns.order(names[:3]))
    assert len(few) == len({tuple(getattr(cell, name) for name in names[:3]) for cell in cells})


@given(st.lists(st.lists(CELLS, min_size=1), min_size=2, max_size=4))
@settings(deadline=None)
def test_a_union_has_each_cell_once_in_the_order_in_which_they_come(lists):
    union = Cells.join([Cells.of(dict.fromkeys(cells)) for cells in lists])
    assert union == list(dict.fromkeys(cell for cells in lists for cell in cells))


@given(st.lists(CELLS, min_size=1))
@settings(deadline=None)
def test_cells_survive_arrow(cells):
    arrays = Cells.of(cells).arrow()
    assert Cells.from_arrow(arrays) == cells
    stored = to_arrow(arrays, [column for column in CELLS_TABLE if column.name in FIELDS])
    assert Cells.from_arrow(pa.concat_tables([stored, stored.slice(0, 1)])) == [*cells, cells[0]]


@given(st.lists(CELLS, min_size=1))
@settings(deadline=None)
def test_rows_of_an_older_store_lack_what_came_later(cells):
    cells = [dataclasses.replace(cell, **OPTIONAL) for cell in cells]
    arrays = {name: array for name, array in Cells.of(cells).arrow().items() if name not in OPTIONAL}
    assert Cells.from_arrow(arrays) == cells
    assert Cells.from_arrow(pa.table(arrays)) == cells


def test_the_last_axis_varies_fastest():
    cells = Cells.product(BASE, {"lr": (0.1, 0.2), "seed": (0, 1, 2)})
    assert [(cell.lr, cell.seed) for cell in cells] == [(lr, seed) for lr in (0.1, 0.2) for seed in (0, 1, 2)]
    assert Cells.product(BASE, {}) == [BASE]


def test_many_cells_take_little_room():
    """A column of codes per axis, where a million cells would be 200 MB."""
    tracemalloc.start()
    try:
        cells = Cells.product(BASE, {"width": (16, 32), "lr": (0.1, 0.2), "seed": range(25_000)})
        assert len(cells) == 100_000
        assert tracemalloc.get_traced_memory()[1] < 50 * len(cells)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("other", ["text", 1, [Cell]])
def test_what_is_no_list_of_cells_is_not_equal(other):
    assert Cells.of([BASE]) != other
