"""Cells for tests, without Hydra: the smallest complete settings, changed by keyword."""

import json

import torch
from reference import ABC, ATTENTION, ROLES, in_depth
from torch import nn

from runner.grid.cell import Cell, canonical_json
from runner.layers import Embedding, Linear

MEASURES = ("param_movement", "layer_movement", "ntk_change", "kernel_distance", "feature_movement")
SETTINGS = {
    "model": {
        "_target_": "runner.models.MLP", "activation": "tanh", "bias": False, "sigma_weight": 1.0,
        "sigma_bias": 0.0, "normalize_input": False,
    },
    "data": {
        "_target_": "runner.data.xor", "seed": 0, "dim": 6, "linear": 0.5, "standardize": True,
        "inputs": "sphere", "train_size": 24, "test_size": 16, "probe_size": 12,
    },
    "optimizer": {"_target_": "runner.optim.SGD"},
    "measure": {
        "points": 4,
        "functions": {
            name: {"_target_": f"runner.measures.{name}"}
            for name in MEASURES
        },
    },
}  # fmt: skip
DIGITS = {"_target_": "runner.data.digits", "seed": 0, "train_size": 40, "test_size": 20, "probe_size": 10}
SCALARS = {
    "width": 16, "depth": 2, "lr": 0.5, "lr_unit": "sharpness", "gamma": 1.0, "center_output": False,
    "base_width": 1, "seed": 0, "steps": 20, "batch_size": None, "loss": "mse", "dtype": "float64",
    "model": "mlp", "data": "xor", "optimizer": "sgd", "parameterization": "ntk",
}  # fmt: skip


def exponents(name):
    """The canonical JSON of a parameterization's abc table, from the reference."""
    table = {letter: dict(zip(ROLES, ABC[name][letter], strict=True)) for letter in "ab"}
    table["c"] = {
        family: dict(zip(ROLES, ABC[name][letter], strict=True))
        for family, letter in (("sgd", "c"), ("adam", "c_adam"))
    }
    if name in ATTENTION:
        table["attention"] = ATTENTION[name]
    if depth := in_depth(name):
        table["depth"] = depth
    return canonical_json(table)


def make_cell(**changes):
    """A small cell; a dict updates a section (model, data, ...), anything else sets a field."""
    settings = json.loads(json.dumps(SETTINGS))
    scalars = dict(SCALARS)
    for key, value in changes.items():
        if isinstance(value, dict):
            settings[key] = value if "_target_" in value else settings.get(key, {}) | value
        else:
            scalars[key] = value
    table = exponents(scalars["parameterization"])
    return Cell(**scalars, exponents=table, settings=canonical_json(settings))


class LinearModel(nn.Module):
    """A model of one's own, linear in its parameters."""

    def __init__(self, width, depth, inputs, outputs):
        super().__init__()
        self.output = Linear(inputs[0], outputs, "input")

    def forward(self, x):
        return self.output(x)


class TiedModel(nn.Module):
    """One hidden layer called twice."""

    def __init__(self, width, depth, inputs, outputs):
        super().__init__()
        self.input = Linear(inputs[0], width, "input", sigma_weight=inputs[0] ** 0.5)
        self.hidden = Linear(width, width, "hidden")
        self.output = Linear(width, outputs, "output")

    def forward(self, x):
        x = self.input(x).tanh()
        for _ in range(2):
            x = self.hidden(x).tanh()
        return self.output(x)


class TokenModel(nn.Module):
    """The sum of its tokens' rows, seen through tanh."""

    def __init__(self, width, depth, inputs, outputs, indices):
        super().__init__()
        self.indices = indices
        self.embed = Embedding(inputs[1], width)
        self.output = Linear(width, outputs, "output")

    def forward(self, x):
        return self.output(self.embed(x.argmax(-1) if self.indices else x.sign()).sum(2).tanh())


class WithBatchNorm(LinearModel):
    def __init__(self, width, depth, inputs, outputs):
        super().__init__(width, depth, inputs, outputs)
        self.norm = nn.BatchNorm1d(outputs)


class WithDropout(LinearModel):
    def __init__(self, width, depth, inputs, outputs):
        super().__init__(width, depth, inputs, outputs)
        self.dropout = nn.Dropout()


class WithParameter(LinearModel):
    def __init__(self, width, depth, inputs, outputs):
        super().__init__(width, depth, inputs, outputs)
        self.scale = nn.Parameter(torch.ones(1))


class WithTwoOutputs(LinearModel):
    def forward(self, x):
        return self.output(x).repeat(1, 1, 2)


class Broken(LinearModel):
    def forward(self, x):
        return self.output(x[..., 1:])


class Bypassing(LinearModel):
    """Uses a weight without calling its layer, so that nothing of it is on the tape."""

    def forward(self, x):
        return self.output(x) + 0.1 * x @ self.output.weight
