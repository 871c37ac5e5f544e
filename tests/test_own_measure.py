"""A measure of one's own: files outside the package, as the docs show them."""

import sys

import pytest
import torch
from cells import make_cell
from pages import copy_examples

from runner import cli, store
from runner.errors import UserError
from runner.measures import Measurement
from runner.training.train import train_pack


def test_the_example_of_the_docs_is_measured(tmp_path, monkeypatch):
    copy_examples(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    small = "data.train_size=16 data.test_size=16 data.probe_size=10 width=8 lr=0.1,0.2 steps=2 workers=1"
    words = ["--config-dir", "my_conf", "measure=[basic,feature_rank]", "store=out", *small.split()]
    try:
        assert cli.main(["sweep", *words]) == 0
    finally:
        sys.modules.pop("my_measures", None)
    opened = store.load("out")
    assert opened.cells["feature_rank"].between(1, 8).all()
    assert opened.trace["feature_rank"].notna().all()
    assert cli.main(["phase", "out", "--color", "feature_rank"]) == 0


def taken(now, start):
    return Measurement(trace={"train_loss": torch.zeros(len(now.ensemble.cells))})


def whole(now, start):
    return Measurement(trace={"size": torch.zeros(())})


def samples(now, start):
    return Measurement(layers={"size": {"output": torch.zeros(len(now.ensemble.cells), 3)}})


def number(now, start):
    return Measurement(trace={"size": 1.0})


def elsewhere(now, start):
    return Measurement(layers={"size": {"top": torch.zeros(len(now.ensemble.cells))}})


def writing(now, start):
    moved = now.features()
    for name, value in start.features().items():
        moved[name] -= value
    return Measurement(
        trace={"moved": torch.stack([m.flatten(1).norm(dim=1) for m in moved.values()]).sum(0)}
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("writing", "must not write into what it is given, got changes of hidden.0"),
        ("taken", "must return columns of its own, got train_loss; rename it"),
        ("whole", r"one number per cell, of shape \(2,\), got \(\) for size"),
        ("samples", r"of shape \(2,\), got \(2, 3\) for size of output"),
        ("number", r"of shape \(2,\), got float for size"),
        ("elsewhere", r"must name layers of the model \(hidden.0, hidden.1, output\), got top in size"),
    ],
)
def test_a_measure_that_cannot_be_kept_is_refused_before_a_step(name, message):
    """A wrong shape showed when the tables were written: after training, and for all cells of the pack."""
    measure = {"points": 4, "functions": {"mine": {"_target_": f"test_own_measure.{name}"}}}
    steps = []
    with pytest.raises(UserError, match=f"measure.functions.mine {message}" if name == "taken" else message):
        train_pack(
            [make_cell(seed=seed, measure=measure) for seed in (0, 1)],
            torch.device("cpu"),
            lambda step, diverged: steps.append(step),
        )
    assert not steps
