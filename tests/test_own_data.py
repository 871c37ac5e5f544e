"""A data set of one's own: a file outside the package, named by ``_target_``, as the docs show it."""

import json
import sys

import jaxtyping
import numpy as np
import pytest
import torch
from pages import copy_examples

from runner import cli, data, store
from runner.data import Dataset, Split
from runner.errors import UserError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The reader's folder, and nothing left of it afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    sys.modules.pop("my_data", None)


def test_the_example_of_the_docs_trains(folder):
    copy_examples(folder)
    line = (
        "--config-dir my_conf data=stripes data.frequency=3.0,9.0 width=8 lr=0.1 steps=2 workers=1 store=out"
    )
    assert cli.main(["sweep", *line.split(), "data.train_size=16", "data.test_size=24"]) == 0
    cells = store.load("out").cells
    assert set(cells["status"]) == {"ok"}
    assert sorted(json.loads(text)["data"]["frequency"] for text in cells["settings"]) == [3, 9]
    assert cells["test_error"].between(0, 1).all()
    more = ["data.train_size=16", "data.test_size=24", "data.online=true", "batch_size=20"]
    assert cli.main(["sweep", *line.split(), *more]) == 0
    assert sorted(store.load("out").cells["data.online"].dropna()) == [True, True]
    found = data.load(
        {"_target_": "my_data.stripes", "seed": 0, "train_size": 16, "test_size": 24, "probe_size": 8}
    )
    assert [len(split) for split in (found.train, found.test, found.probe)] == [16, 24, 8]


def split(samples=5, inputs=(3,), targets=(5, 1), value=1.0, second=None):
    return Split(torch.full((samples, *inputs), value).double(), torch.ones(targets).double(), second)


def marked(*labels):
    return Split(torch.ones(5, 3).double(), torch.tensor(labels).double()[:, None])


class Array(Split):
    """What a data function returns that never heard of torch."""

    def __init__(self):
        object.__setattr__(self, "inputs", np.ones((5, 3)))
        object.__setattr__(self, "targets", torch.ones(5, 1).double())
        object.__setattr__(self, "second", None)


MISTAKES = {
    "0/1 labels": (
        {"test": marked(0, 1, 1, 0, 1)},
        "by the sign of a single target, got 0 in the test split; use -1",
    ),
    "arrays": (
        {"train": Array()},
        "data must be tensors, got ndarray in the train split; use torch.from_numpy",
    ),
    "task": ({"task": "classify"}, "data must be of a task of classification, regression, got classify"),
    "nothing": ({}, "data._target_ must return a runner.data.Dataset, got NoneType from test_own_data.own"),
    "NaN": ({"probe": {"value": float("nan")}}, "data must be finite, got NaN or inf in the probe split"),
    "counts": ({"test": {"targets": (4, 1)}}, "got 5 inputs and 4 targets in the test split"),
    "empty": ({"probe": {"samples": 0, "targets": (0, 1)}}, "got 0 inputs and 0 targets in the probe split"),
    "more classes": ({"test": {"targets": (5, 3)}}, r"in every split, got \[5, 3\] in the test split"),
    "flat targets": ({"train": {"targets": (5,)}}, r"\[sample, output\], .* got \[5\] in the train split"),
    "shapes": ({"test": {"inputs": (4,)}}, r"got \(3,\) in the train split and \(4,\) in the test split"),
    "second": ({"train": {"second": torch.zeros(5, 1).double()}}, r"second labels of -1 and \+1, got others"),
}


def own(mistake):
    changes = MISTAKES[mistake][0]
    given = {name: changes.get(name, {}) for name in ("train", "test", "probe")}
    splits = {name: one if isinstance(one, Split) else split(**one) for name, one in given.items()}
    return Dataset(**splits, task=changes.get("task", "classification")) if changes else None


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_in_a_data_set_of_ones_own_are_named(monkeypatch, mistake):
    # Outside of tests nothing checks shapes in signatures.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(UserError, match=MISTAKES[mistake][1]) as caught:
        data.load({"_target_": "test_own_data.own", "mistake": mistake})
    assert "\n" not in str(caught.value)
