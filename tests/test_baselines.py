"""Baselines: rows of their own beside the network's, on the same splits."""

import json

import numpy as np
import pytest
import torch
from cells import DIGITS, make_cell
from sklearn.kernel_ridge import KernelRidge
from sklearn.svm import SVC

from runner import data
from runner.errors import UserError
from runner.training.preflight import inspect
from runner.training.train import train_pack

CPU = torch.device("cpu")
MLP = {"activation": "tanh", "bias": False, "sigma_weight": 1.0, "sigma_bias": 0.0, "normalize_input": False}
NAMES = {"Linear": {}, "RBFRidge": {}, "RBFSVM": {}, "RidgeNTK": MLP}
XOR = {"linear": 0.0, "standardize": False, "dim": 4, "train_size": 100, "test_size": 200}


def cell_of(name, **changes):
    return make_cell(model={"_target_": f"runner.baselines.{name}"} | NAMES[name], **changes)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("task", ["regression", "two classes", "ten classes"])
def test_rows_hold_losses_and_errors_where_they_mean_something(name, task):
    settings = {"regression": {}, "two classes": XOR, "ten classes": DIGITS | {"train_size": 100}}[task]
    cell = cell_of(name, data=settings)
    assert inspect(cell).parameters == 0
    tables = train_pack([cell, cell], CPU)
    row = tables.cells[0]
    assert row["status"] == "ok"
    assert {k: v for k, v in tables.cells[1].items() if k != "train_seconds"} == {
        k: v for k, v in row.items() if k != "train_seconds"
    }
    assert ("test_error" in row) == (task != "regression")
    assert ("test_loss" in row) == (name != "RBFSVM" or task == "regression")
    assert tables.trace == tables.layers == {}
    if task == "ten classes":
        assert row["train_error"] <= row["test_error"] < 0.6


def test_ridge_ntk_is_the_kernel_regression_of_the_network():
    functions = {"kernel_regression": {"_target_": "runner.measures.kernel_regression", "at": "init"}}
    for changes in ({}, {"data": DIGITS}, {"parameterization": "mup", "base_width": 4, "seed": 3}):
        network = train_pack(
            [make_cell(measure={"points": 2, "functions": functions}, **changes)], CPU
        ).cells[0]
        row = train_pack([cell_of("RidgeNTK", **changes)], CPU).cells[0]
        assert row["test_loss"] == pytest.approx(network["kernel_regression_loss_init"], rel=1e-9)
        if "data" in changes:
            assert row["test_error"] == network["kernel_regression_error_init"]


def test_only_the_ntk_looks_at_the_network():
    wide, narrow = (train_pack([cell_of("RidgeNTK", width=w)], CPU).cells[0] for w in (64, 4))
    assert wide["test_loss"] != narrow["test_loss"]
    wide, narrow = (train_pack([cell_of("RBFRidge", width=w)], CPU).cells[0] for w in (64, 4))
    assert wide["test_loss"] == narrow["test_loss"]


@pytest.mark.parametrize(
    ("name", "fits"),
    [
        ("RBFRidge", lambda g: [KernelRidge(kernel="rbf", alpha=10.0**a, gamma=g) for a in range(2, -9, -1)]),
        ("RBFSVM", lambda g: [SVC(C=10.0**c, gamma=g) for c in range(-2, 4)]),
    ],
)
def test_hyperparameters_come_from_a_split_of_train(name, fits):
    """The test error is one of those on the grid, and the model is not the one that is best on test."""
    cell = cell_of(name, data=XOR)
    dataset = data.load(json.loads(cell.settings)["data"])
    x, y = dataset.train.inputs.numpy(), np.sign(dataset.train.targets.numpy()[:, 0])
    z, w = dataset.test.inputs.numpy(), np.sign(dataset.test.targets.numpy()[:, 0])
    tried = []
    for factor in (0.125, 0.5, 2.0, 8.0):
        for model in fits(factor / (2 * x.var(0, ddof=1).sum())):
            model.fit(x[:80], y[:80])
            predicted = model.predict(x[80:])
            wrong = (predicted != y[80:]).mean() if name == "RBFSVM" else ((predicted - y[80:]) ** 2).mean()
            model.fit(x, y)
            tried.append((wrong, (np.sign(model.predict(z)) != w).mean()))
    least = min(held_out for held_out, _ in tried)
    assert train_pack([cell], CPU).cells[0]["test_error"] in [
        pytest.approx(test) for held_out, test in tried if held_out == least
    ]


def test_losses_are_null_under_cross_entropy():
    row = train_pack([cell_of("RBFRidge", data=XOR, loss="cross_entropy")], CPU).cells[0]
    assert "test_loss" not in row
    assert row["test_error"] < 0.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"train_size": 4}}, "data.train_size must be at least 5 for a baseline"),
        (
            {"model": {"_target_": "runner.baselines.Linear", "activation": "relu"}},
            "model.activation must be one of",
        ),
        ({"model": {"_target_": "runner.baselines.RidgeNTK", "activation": "relo"}}, "did you mean 'relu'"),
        ({"loss": "cross_entropy"}, "loss must be mse for a regression task"),
    ],
)
def test_bad_settings_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        inspect(make_cell(**{"model": {"_target_": "runner.baselines.Linear"}} | changes))
