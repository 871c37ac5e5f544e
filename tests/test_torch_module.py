"""Plain torch modules, wrapped: roles, kernels, training and measures against torch's own on one cell."""

import json

import modules
import pytest
import reference
import torch
from cells import DIGITS, make_cell
from torch.func import functional_call, jacrev

from runner import data
from runner.errors import UserError
from runner.layers import layers_of
from runner.measures import Snapshot
from runner.measures.kernel import empirical_ntk, empirical_ntk_full
from runner.models.ensemble import Ensemble
from runner.training.preflight import inspect
from runner.training.train import train_pack

CPU = torch.device("cpu")
SMALL = DIGITS | {"train_size": 12, "test_size": 6, "probe_size": 5}
PAIRS = {"_target_": "runner.data.modular_addition", "seed": 0, "p": 4, "train_size": 8, "probe_size": 4}
XOR = {"train_size": 12, "test_size": 6, "probe_size": 5}


def wrapped(name, **keys):
    return {
        "_target_": "runner.models.TorchModule", "sigma_bias": 0.2,
        "module": {"_target_": f"modules.{name}", **keys},
    }  # fmt: skip


CASES = {
    "Perceptron": (
        XOR, {"slope": 1.5},
        {"first": "input", "block.0": "vector", "block.1": "hidden", "second": "hidden", "head": "output"},
    ),
    "Convolutional": (SMALL, {}, {"features.0": "input", "features.2": "hidden", "head": "output"}),
    "Tokens": (PAIRS, {}, {"embed": "input", "mix": "hidden", "head": "output"}),
}  # fmt: skip


def cells_of(case, names=("ntk", "mup"), seeds=(0, 1), **changes):
    dataset, keys, _ = CASES[case]
    return [
        make_cell(
            width=8, base_width=2, parameterization=name, seed=seed, model=wrapped(case, **keys),
            data=dataset, **changes,
        )
        for name in names for seed in seeds
    ]  # fmt: skip


def ensemble_of(cells):
    sections = json.loads(cells[0].settings)
    return Ensemble(cells, sections["model"], data.load(sections["data"]), CPU)


def naive(case, ensemble, position):
    """A module of torch, raw parameters in its shapes, and what multiplies them and their learning rates."""
    cell = ensemble.cells[position]
    shape, outputs = ensemble.inputs["probe"].shape[2:], ensemble.targets["probe"].shape[2]
    keys = {"width": 8, "inputs": tuple(shape), "outputs": outputs} | CASES[case][1]
    module = getattr(modules, case)(**keys, **({"depth": 2} if case == "Convolutional" else {})).double()
    raw, scales, rates = {}, {}, {}
    for path, parameter in ensemble.parameters.items():
        layer, _, name = path.rpartition(".")
        role = CASES[case][2][layer]
        value = parameter[position].detach().clone()
        kind = type(module.get_submodule(layer))
        raw[path] = value.T if kind is torch.nn.Linear and name == "weight" else value
        role = {"input": "input", "hidden": "input", "vector": "input"}.get(role) if name == "bias" else role
        role = "input" if role == "vector" else role
        factors = [
            reference.factor(cell.parameterization, letter, role, 4.0) if role else 1.0 for letter in "ac"
        ]
        scales[path], rates[path] = factors

    def function(raw, x):
        return functional_call(module, {path: scales[path] * p for path, p in raw.items()}, (x,))

    return raw, rates, function


def close(actual, expected, rel=1e-9):
    assert (actual - expected).norm() <= rel * expected.norm()


@pytest.mark.parametrize("case", CASES)
def test_roles_and_kernels(case):
    ensemble = ensemble_of(cells_of(case))
    assert {layer.name: layer.role for layer in layers_of(ensemble.model)} == CASES[case][2]
    x = ensemble.inputs["probe"]
    trace = empirical_ntk(ensemble.model, ensemble.parameters, x)
    full = empirical_ntk_full(ensemble.model, ensemble.parameters, x)
    for position in range(len(ensemble.cells)):
        raw, rates, function = naive(case, ensemble, position)
        close(ensemble.model(x)[position].detach(), function(raw, x[0]))
        expected = sum(
            rates[path] * torch.einsum("ikp,jlp->kilj", block.flatten(2), block.flatten(2))
            for path, block in jacrev(function)(raw, x[0]).items()
        )
        close(full[position], expected)
        count = expected.shape[0]
        close(trace[position], sum(expected[k, :, k] for k in range(count)) / count)


@pytest.mark.parametrize("case", CASES)
def test_training_and_packs(case):
    cells = cells_of(case, lr=0.5, steps=20)
    rows = train_pack(cells, CPU).cells
    alone = train_pack(cells[-1:], CPU).cells[0]
    for key, value in alone.items():
        if isinstance(value, float) and key != "train_seconds":
            assert rows[-1][key] == pytest.approx(value, rel=1e-8, abs=1e-12), key
    raw, rates, function = naive(case, ensemble_of(cells), len(cells) - 1)
    train = data.load(json.loads(cells[0].settings)["data"]).train
    for _ in range(20):
        leaves = {path: p.clone().requires_grad_() for path, p in raw.items()}
        loss = reference.mse(function(leaves, train.inputs), train.targets)
        gradients = torch.autograd.grad(loss, list(leaves.values()))
        for (path, p), g in zip(raw.items(), gradients, strict=True):
            raw[path] = p - alone["lr_absolute"] * rates[path] * g
    expected = reference.mse(function(raw, train.inputs), train.targets)
    assert alone["train_loss"] == pytest.approx(float(expected), rel=1e-7)


def test_every_measure_and_what_hidden_representations_are():
    functions = {
        name: {"_target_": f"runner.measures.{name}"}
        for name in (
            "param_movement", "layer_movement", "ntk_change", "feature_movement", "update_size", "cka",
            "linearization_error", "kernel_gd_error", "sharpness", "spectrum", "ntk_gain", "transfer_gain",
        )
    }  # fmt: skip
    (cell,) = cells_of("Perceptron", ("mup",), (0,), measure={"points": 2, "functions": functions})
    row = train_pack([cell], CPU).cells[0]
    assert row["feature_movement"] > 0.01
    assert all(
        row[name] is not None for name in ("cka", "linearization_error", "kernel_gd_error", "sharpness")
    )
    ensemble = ensemble_of([cell])
    features = Snapshot(ensemble, 0).features()
    assert list(features) == ["first", "block.0", "block.1", "second"]
    raw = {path: p[0].detach() for path, p in ensemble.parameters.items()}
    scale = reference.factor("mup", "a", "input", 4.0)
    z = ensemble.inputs["probe"][0] @ raw["first.weight"] + raw["first.bias"]
    after = torch.tanh(1.5 * scale * z) + 0.5
    close(features["first"][0], torch.nn.functional.layer_norm(after, (8,)))


MISTAKES = {
    "Normalized": (XOR, "must not contain BatchNorm1d, got one at norm: it makes the output for one sample"),
    "BatchCentred": (XOR, "got one that does not: it makes the output for one sample depend on the others"),
    "DroppingByHand": (XOR, "it makes the network another function at every call"),
    "Idle": (XOR, "must use all of its parameters, got spare.weight on which no output depends"),
    "Frozen": (XOR, "must train all of its parameters, got requires_grad=False of first.weight"),
    "Dropping": (XOR, "must not contain Dropout, got one at drop"),
    "Growing": (XOR, "got more.0.weight on which no output depends"),
    "Cube": (
        XOR,
        "scales pair.weight, got shape 16 x 16 x 16, and 32 x 32 x 32 at twice the width: more than",
    ),
    "ByHand": (
        SMALL,
        "scales embed.weight, got shape 10 x 16, and 10 x 32 at twice the width, used as input",
    ),
    "Counting": (XOR, "must not change when it is called, got a new value of its buffer calls"),
    "Sprouting": (XOR, "must have the same parameters at every call, got more4 at some only"),
    "Lazy": (XOR, "must have real parameters of known shape, got no shape as yet at first.weight"),
    "Complex": (XOR, "must have real parameters of known shape, got complex64 at phase"),
    "OnceOnly": (XOR, "must have first and second derivatives, got no second"),
    "nothing": (XOR, "must return a torch.nn.Module, got int"),
    "failing": (XOR, "got RuntimeError: no such width"),
    "absent": (XOR, "model.module._target_ must be importable"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_line_before_training(name):
    dataset, expected = MISTAKES[name]
    with pytest.raises(UserError) as caught:
        inspect(make_cell(model=wrapped(name), data=dataset))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
