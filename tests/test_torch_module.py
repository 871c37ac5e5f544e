"""Plain torch modules, wrapped: what hidden representations are, and mistakes; see also test_handed.py."""

import json

import pytest
import reference
import torch
from cells import DIGITS, make_cell
from test_handed import close

from runner import data
from runner.errors import UserError
from runner.measures import Snapshot
from runner.models.ensemble import Ensemble
from runner.training.preflight import inspect
from runner.training.train import train_pack

CPU = torch.device("cpu")
SMALL = DIGITS | {"train_size": 12, "test_size": 6, "probe_size": 5}
XOR = {"train_size": 12, "test_size": 6, "probe_size": 5}


def wrapped(name, **keys):
    return {
        "_target_": "runner.models.TorchModule", "sigma_bias": 0.2,
        "module": {"_target_": f"modules.{name}", **keys},
    }  # fmt: skip


def test_every_measure_and_what_hidden_representations_are():
    functions = {
        name: {"_target_": f"runner.measures.{name}"}
        for name in (
            "param_movement", "layer_movement", "ntk_change", "feature_movement", "update_size", "cka",
            "linearization_error", "kernel_gd_error", "sharpness", "spectrum", "ntk_gain", "transfer_gain",
        )
    }  # fmt: skip
    cell = make_cell(
        width=8, base_width=2, parameterization="mup", model=wrapped("Perceptron", slope=1.5), data=XOR,
        measure={"points": 2, "functions": functions},
    )  # fmt: skip
    row = train_pack([cell], CPU).cells[0]
    assert row["feature_movement"] > 0.01
    assert all(
        row[name] is not None for name in ("cka", "linearization_error", "kernel_gd_error", "sharpness")
    )
    sections = json.loads(cell.settings)
    ensemble = Ensemble([cell], sections["model"], data.load(sections["data"]), CPU)
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
    "Misshapen": (XOR, "must map samples of shape (6,), got RuntimeError: mat1 and mat2 shapes cannot be"),
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
