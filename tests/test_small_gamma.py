"""Small gamma: f is a difference over gamma, which float32 cannot tell from zero."""

import dataclasses

import pytest
import torch
from cells import make_cell
from test_cell import BASE

from runner.errors import UserError
from runner.grid.cells import Cells
from runner.grid.rules import check_value
from runner.planning.plan import form_packs
from runner.training.preflight import inspect
from runner.training.train import train_pack

CPU = torch.device("cpu")


def row(**changes):
    data = {"dim": 10, "train_size": 24, "linear": 0.0, "standardize": False}
    model = {"activation": "relu", "normalize_input": True}
    same = {"width": 64, "lr": 1.0, "steps": 200, "center_output": True, "data": data, "model": model}
    return train_pack([make_cell(**same | changes)], CPU).cells[0]


@pytest.mark.parametrize("gamma", [1e-2, 1e-4, 1e-6, 1e-7])
def test_the_numbers_are_those_of_float64(gamma):
    """What float32 loses may show in a loss by 1e-6 of its start, and in a movement by 1e-3 of itself."""
    single, double = (row(gamma=gamma, dtype=dtype) for dtype in ("float32", "float64"))
    assert single["train_loss"] == pytest.approx(
        double["train_loss"], abs=1e-6 * double["initial_train_loss"]
    )
    for name in ("ntk_change", "feature_movement", "param_movement"):
        assert single[name] == pytest.approx(double[name], rel=1e-3)
    assert double["precision"] == "float64"
    assert single["precision"] == ("float32" if gamma == 1e-2 else "float64")


def test_cells_in_float64_train_by_themselves():
    cells = [make_cell(gamma=gamma, dtype="float32", seed=seed) for gamma in (1.0, 1e-5) for seed in (0, 1)]
    packs = form_packs(cells, inspect)
    assert [{cell.precision for cell in pack.cells} for pack in packs] == [{"float32"}, {"float64"}]
    mixed, alone = form_packs([*cells, make_cell(dtype="float64")], inspect), form_packs(cells[:2], inspect)
    assert [pack.cells for pack in alone] == [mixed[0].cells]


def test_columns_say_the_same_as_cells():
    cells = [
        dataclasses.replace(BASE, width=width, gamma=gamma, dtype=dtype)
        for width in (16, 1 << 16)
        for gamma in (1.0, 0.1, 1e-3)
        for dtype in ("float32", "float64", "tf32")
    ]
    values, codes = Cells.of(cells).column("precision")
    assert [values[code] for code in codes] == [cell.precision for cell in cells]
    assert {cell.precision for cell in cells} == {"float32", "float64", "tf32"}


def test_what_float64_cannot_tell_either_is_refused():
    with pytest.raises(
        UserError, match="gamma must be a finite number > 1e-10, got 1e-11; below, even float64"
    ):
        check_value("gamma", 1e-11)
