"""Cells: an id is a promise about what was trained, so it is pinned."""

import dataclasses
import hashlib

import pytest
from sweeping import cells_of

from runner.errors import UserError
from runner.grid.cell import FIELDS, ID_VERSION, OPTIONAL, Cell, canonical_json
from runner.grid.rules import check_value

BASE = Cell(
    width=64,
    depth=2,
    lr=0.1,
    lr_unit="absolute",
    gamma=1.0,
    center_output=False,
    base_width=1,
    seed=0,
    steps=200,
    batch_size=None,
    loss="mse",
    dtype="float32",
    model="mlp",
    data="digits",
    optimizer="sgd",
    parameterization="ntk",
    exponents='{"a":{"hidden":0.5,"input":0,"output":0.5}}',
    settings='{"data":{"seed":0},"model":{"activation":"relu"}}',
)

PINNED = {
    "c1-087ca4fba8037a00b938": BASE,
    "c1-817951047da4407794a1": dataclasses.replace(
        BASE, lr=1.0, width=128, batch_size=32, center_output=True
    ),
    "c1-ece8e3f15dc6b236d0bc": dataclasses.replace(
        BASE, parameterization="mup", exponents='{"a":{}}', dtype="float64", lr=1e-5
    ),
}


@pytest.mark.parametrize(("cell_id", "cell"), PINNED.items())
def test_ids_are_pinned(cell_id, cell):
    assert cell.cell_id == cell_id, (
        "The id of an old cell changed, so every store loses its results. Legitimate only with a new "
        "cell.ID_VERSION, when the same cell would give other numbers."
    )


@pytest.mark.parametrize("given", [{}, {"base_depth": 4}])
def test_id_is_the_hash_of_the_canonical_row(given):
    """A field that came later is left out while it has its default: older cells keep their ids."""
    cell = dataclasses.replace(BASE, **given)
    row = {name: value for name, value in cell.row().items() if name not in OPTIONAL} | given
    expected = hashlib.sha256(canonical_json(row).encode()).hexdigest()[:20]
    assert cell.cell_id == f"{ID_VERSION}-{expected}"


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_is_part_of_the_id(name):
    value = getattr(BASE, name)
    other = {bool: True, int: 7, float: 7.5, str: "other", type(None): 7}[type(value)]
    assert dataclasses.replace(BASE, **{name: other}).cell_id != BASE.cell_id


def test_a_cell_survives_its_row():
    assert Cell.from_row({**BASE.row(), "train_loss": 1.0}) == BASE
    older = {name: value for name, value in BASE.row().items() if name not in OPTIONAL}
    assert Cell.from_row(older) == BASE


def test_cells_start_alike_whatever_their_lr_and_gamma():
    assert dataclasses.replace(BASE, lr=7.0, gamma=3.0, lr_unit="sharpness").start_key == BASE.start_key
    for name, other in (
        ("seed", 1),
        ("base_width", 8),
        ("base_depth", 1),
        ("parameterization", "mup"),
        ("sigma", "{}"),
    ):
        assert dataclasses.replace(BASE, **{name: other}).start_key != BASE.start_key


def test_a_base_depth_is_of_tables_that_depend_on_depth(monkeypatch):
    """Where nothing depends on it, it makes no other cell."""
    words = ["width=8", "lr=1", "model=resmlp"]
    flat, deep = cells_of(monkeypatch, *words, "parameterization=mup,completep", "base_depth=2")
    assert (flat.base_depth, deep.base_depth) == (None, 2)
    assert flat == cells_of(monkeypatch, *words, "parameterization=mup")[0]
    (textbook,) = cells_of(monkeypatch, *words, "parameterization=completep")
    assert textbook.base_depth is None
    with pytest.raises(UserError, match="base_depth must be a whole number >= 1, or null, which is 1, got 0"):
        check_value("base_depth", 0)


def test_equal_numbers_are_one_cell(monkeypatch):
    (one,) = cells_of(monkeypatch, "lr=1", "gamma=2.0", "width=64")
    (other,) = cells_of(monkeypatch, "lr=1.0", "gamma=2", "width=64.0")
    assert one.cell_id == other.cell_id


@pytest.mark.parametrize(
    "line",
    [
        ["lr=0.1,1", "width=16,32", "parameterization=ntk,mup"],
        ["parameterization=mup,ntk", "width=range(16,33,16)", "lr=logspace(-1,0,2)"],
        ["--multirun", "width=choice(32,16)", "lr=1.0,1e-1", "parameterization=glob([ntk,mup])"],
        ["++width=16,32", "lr=0.1,1.0,1", "parameterization=ntk,mup", "name=elsewhere", "device=cpu"],
        ["+hydra.sweeper.params={width:'16,32',lr:[0.1,1]}", "parameterization=ntk,mup"],
    ],
)
def test_ids_do_not_depend_on_how_a_grid_is_written(monkeypatch, line):
    reference = cells_of(monkeypatch, "width=16,32", "lr=0.1,1", "parameterization=ntk,mup")
    cells = cells_of(monkeypatch, *line)
    assert len(cells) == len(set(cells)) == 8
    assert {cell.cell_id for cell in cells} == {cell.cell_id for cell in reference}
