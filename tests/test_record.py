"""When a cell had fitted train and test."""

import math

import pytest
import torch
from cells import make_cell

from runner.schema import CELLS
from runner.training.record import Recorder, delay
from runner.training.train import train_pack


def rows(split_values, key="error"):
    return [{"step": step, f"train_{key}": train, f"test_{key}": test} for step, train, test in split_values]


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        (rows([(0, 0.9, 0.9), (10, 0.1, 0.8), (40, 0.0, 0.1), (90, 0.0, 0.0)]), (10, 40, 4.0)),
        (rows([(0, 0.9, 0.9), (10, 0.05, 0.02)]), (10, 10, 1.0)),
        (rows([(0, 0.9, 0.9), (10, 0.05, 0.5)]), (10, None, math.inf)),
        (rows([(0, 0.9, 0.9), (10, 0.5, 0.5)]), (None, None, None)),
        (rows([(0, 0.0, 0.9), (10, 0.0, 0.0)]), (0, 10, 10.0)),
        (rows([(0, 5.0, 4.0), (10, 0.5, 0.9), (20, 0.4, 0.4)], "loss"), (10, 20, 2.0)),
        ([], (None, None, None)),
    ],
)
def test_delay(measured, expected):
    found = delay(measured)
    names = ("train_fit_step", "test_fit_step", "generalization_delay")
    assert tuple(found.get(name) for name in names) == expected


def test_the_best_is_kept_beside_the_last():
    """A network that overtrains loses again what it had won over its kernel."""
    measure = {"points": 12, "functions": {"ntk_gain": {"_target_": "runner.measures.ntk_gain"}}}
    tables = train_pack([make_cell(width=64, lr=0.5, steps=400, measure=measure)], torch.device("cpu"))
    (row,), trace = tables.cells, tables.trace
    assert row["ntk_gain"] == trace["ntk_gain"][-1]
    assert row["best_ntk_gain"] == max(trace["ntk_gain"]) > row["ntk_gain"]
    assert row["best_test_loss"] == min(trace["test_loss"]) < row["test_loss"]


def test_a_loss_is_not_called_a_mean_squared_error():
    meaning = {column.name: column.meaning for column in CELLS}
    assert "half the mean squared error" in meaning["kernel_regression_loss"]
    assert not [name for name, text in meaning.items() if "MSE loss" in text]


def test_the_best_does_not_stick_at_what_is_not_a_number():
    recorder = Recorder([], [], [make_cell()], {}, {}.get)
    for step, value in enumerate((math.nan, 0.2, 0.1, math.nan)):
        one = torch.tensor([value])
        recorder.add(step, [0], {"test_loss": one, "ntk_gain": one}, {})
    (row,) = recorder.rows()["results"]
    assert (row["best_test_loss"], row["best_ntk_gain"]) == (pytest.approx(0.1), pytest.approx(0.2))
