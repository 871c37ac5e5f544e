"""Plain modules with their own init, trained as ``mup``: against microsoft/mup on the same weights."""

import json
from functools import partial

import handed
import modules
import mup
import pytest
import reference
import torch
from cells import DIGITS, make_cell
from torch import nn

from runner import data
from runner.models.ensemble import Ensemble
from runner.models.own_init import OwnInit
from runner.training.run import Run

SMALL = DIGITS | {"train_size": 8, "test_size": 4, "probe_size": 10}
WIDTH, BASE, OUTPUTS, STEPS = 16, 8, 10, 20
OPTIMIZERS = {
    "sgd": (0.02, {"_target_": "runner.optim.SGD", "momentum": 0.9}, partial(mup.MuSGD, momentum=0.9)),
    "adam": (1e-3, {"_target_": "runner.optim.Adam", "eps": 1e-30}, partial(mup.MuAdam, eps=1e-30)),
}


def theirs(kind, seed):
    """A module as a user of mup makes it: the last layer replaced, base shapes set, init rescaled."""

    def build(width):
        module = kind(width, OUTPUTS)
        readout = mup.MuReadout(module.head.in_features, OUTPUTS)
        readout.load_state_dict(module.head.state_dict())
        module.head = readout
        return module

    torch.manual_seed(seed)
    module = build(WIDTH)
    return mup.set_base_shapes(module, build(BASE), delta=build(2 * BASE)).double()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("kind", [modules.Biased, handed.GroupNormResNet, handed.TorchTransformer])
def test_trajectories_are_those_of_mup(kind, optimizer):
    lr, ours, make = OPTIMIZERS[optimizer]
    target = f"{kind.__module__}.{kind.__name__}"
    cell = make_cell(
        width=WIDTH, base_width=BASE, parameterization="mup", seed=3, data=SMALL, lr=lr, lr_unit="absolute",
        steps=STEPS, optimizer=ours,
        model={"_target_": "runner.models.TorchModule", "init": "own", "module": {"_target_": target}},
    )  # fmt: skip
    sections = json.loads(cell.settings)
    dataset = data.load(sections["data"])
    run = Run([cell], sections, dataset, torch.device("cpu"))
    module = theirs(kind, cell.seed)
    optimizer = make(module.parameters(), lr=lr)
    x, y = dataset.train.inputs.double(), dataset.train.targets.double()
    losses = []
    for step in range(STEPS):
        loss = reference.mse(module(x), y)
        found = run.ensemble.model(run.ensemble.inputs["train"]).detach()[0]
        losses.append(float(loss.detach()))
        assert float(reference.mse(found, y)) == pytest.approx(losses[-1], rel=1e-6)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        run.advance(step)
    assert losses[-1] < 0.9 * losses[0]


def test_how_an_init_scales_with_width_is_exact():
    kinds = {
        "plain": lambda width: nn.Linear(width, 4),
        "small": lambda width: nn.init.normal_(nn.Linear(width, 4).weight, std=0.02),
        "truncated": lambda width: nn.init.trunc_normal_(nn.Linear(width, 4).weight, std=width**-1.0),
        "orthogonal": lambda width: nn.init.orthogonal_(nn.Linear(width, width).weight),
        "zero": lambda width: nn.init.zeros_(nn.Linear(width, 4).weight),
    }

    def exponents(kind):
        def make(width):
            made = kinds[kind](width)
            return lambda: made if isinstance(made, nn.Module) else nn.ParameterDict({"weight": made})

        return OwnInit(lambda: make(64)(), lambda: make(128)(), 2).exponents

    assert exponents("plain") == {"weight": 0.5, "bias": 0.5}
    found = {kind: exponents(kind)["weight"] for kind in ("small", "truncated", "orthogonal", "zero")}
    assert found == {"small": 0.0, "truncated": 1.0, "orthogonal": 0.5, "zero": 0.0}


def test_an_init_of_ones_own_is_rescaled_where_the_parameterization_asks_for_it():
    """Of a constant size at every width, as GPT-2's, a hidden weight shrinks as its role asks."""
    sizes = {}
    for width in (16, 64):
        module = {"_target_": "modules.Constant"}
        model = {"_target_": "runner.models.TorchModule", "init": "own", "module": module}
        cells = [
            make_cell(width=width, base_width=16, parameterization=name, model=model, data=SMALL, seed=seed)
            for name in ("mup", "ntk", "sp") for seed in (0, 1)
        ]  # fmt: skip
        sections = json.loads(cells[0].settings)
        ensemble = Ensemble(cells, sections["model"], data.load(sections["data"]), torch.device("cpu"))
        sizes[width] = {
            name: torch.stack([*held.used(ensemble.parameters[held.path])]).flatten(1).std(1)
            for name, held in ensemble.model._leaves.held.items()
        }
    ratio = {name: sizes[16][name] / sizes[64][name] for name in sizes[16]}
    assert ratio["hidden.weight"].tolist() == pytest.approx([2.0] * 6, rel=0.1)
    assert ratio["first.weight"].tolist() == pytest.approx([1.0] * 6, rel=0.1)
    assert ratio["head.weight"].tolist() == pytest.approx([4.0, 4.0, 2.0, 2.0, 2.0, 2.0], rel=0.15)
