"""When a cell had fitted train and test."""

import math

import pytest

from runner.training.record import delay


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
