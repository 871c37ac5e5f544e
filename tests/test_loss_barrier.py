"""The loss on the line from init, against one network written by hand."""

import json

import numpy as np
import pytest
import torch
from cells import make_cell

from runner.data import load
from runner.measures import Measurement
from runner.training.train import train_pack

CPU = torch.device("cpu")
FUNCTIONS = {
    "loss_barrier": {"_target_": "runner.measures.loss_barrier"},
    "keep": {"_target_": "test_loss_barrier.keep"},
}
KEPT = {}


def keep(now, start):
    """Remember the weights of the last measured step and of init."""
    for name, snapshot in (("now", now), ("start", start)):
        KEPT[name] = [value[0].clone() for value in snapshot.parameters.values()]
    return Measurement()


def trained(**changes):
    """A network of one hidden layer: its losses along the line, over that at init, and what was measured."""
    cell = make_cell(depth=1, measure={"points": 3, "functions": FUNCTIONS}, **changes)
    row = train_pack([cell], CPU).cells[0]
    data = load(json.loads(cell.settings)["data"])
    x, y = data.train.inputs.double(), data.train.targets.double()

    def loss(share):
        first, last = (
            torch.lerp(start, now, share) for start, now in zip(KEPT["start"], KEPT["now"], strict=True)
        )
        f = torch.tanh(x @ first) @ last / cell.width**0.5
        return float(((f - y) ** 2).sum() / (2 * len(x)))

    return np.array([loss(share) for share in np.linspace(0, 1, 17)]) / loss(0.0), row["loss_barrier"]


@pytest.mark.parametrize(("lr", "steps"), [(1.0, 20), (3.0, 2), (3.5, 1)])
def test_the_largest_loss_on_the_line(lr, steps):
    losses, found = trained(lr=lr, steps=steps, width=64)
    assert found == pytest.approx(losses.max(), rel=1e-12)


def test_it_is_one_where_the_loss_only_falls_and_more_where_a_step_went_too_far():
    assert trained(lr=1.0, steps=20, width=64)[1] == 1
    assert trained(lr=3.5, steps=1, width=64)[1] > 1
