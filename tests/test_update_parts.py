"""The two parts of what a layer's outputs changed, against the formula, layer by layer, in float64."""

import json

import numpy as np
import pytest
import reference
import torch
from cells import DIGITS, LinearModel, make_cell
from test_engine import CPU, train_reference
from test_handed import ROLES, cells_of, ensemble_of, flat, naive, wrapped
from torch.func import functional_call

from runner import data, layers
from runner.errors import UserError
from runner.layers import ParameterSpec
from runner.measures import Snapshot
from runner.measures.features import parts_of_update
from runner.training.train import train_pack

MEASURE = {"points": 3, "functions": {"update_parts": {"_target_": "runner.measures.update_parts"}}}
BASIC = {
    name: {"_target_": f"runner.measures.{name}"}
    for name in ("layer_movement", "update_size", "update_parts")
}
PARTS = ("update_own", "update_passed")
MODULES = ("modules.Perceptron slope=1.5", "modules.Convolutional", "modules.Tokens")
SMALL = DIGITS | {"train_size": 12, "test_size": 6, "probe_size": 5}
PAIRS = {"_target_": "runner.data.modular_addition", "seed": 0, "p": 4, "train_size": 8, "probe_size": 4}


def model(name, **keys):
    return {"_target_": f"runner.models.{name}", "activation": "tanh", **keys}


BUILT_IN = {
    "mlp": (model("MLP"), SMALL),
    "resmlp": (model("ResidualMLP"), SMALL),
    "cnn": (model("CNN", stride=2), SMALL),
    "resnet": (model("ResNet"), SMALL),
    "transformer": (model("Transformer", heads=2, patch_size=4), SMALL),
    "transformer, sequences": (model("Transformer", heads=2, causal=True, readout="last"), PAIRS),
    "embedding": ({"_target_": "cells.TokenModel", "indices": True}, PAIRS),
}
KEYS = {"measure": MEASURE, "width": 8, "base_width": 2, "lr": 0.5, "steps": 10}


def last_rows(cell, others=()):
    """Return the values of both parts by layer, at the last step of a cell trained beside others."""
    table = train_pack([*others, cell], CPU).layers
    places = [
        place
        for place, key in enumerate(zip(table["cell_id"], table["step"], strict=True))
        if key == (cell.cell_id, cell.steps)
    ]
    return {table["layer"][place]: [table[part][place] for part in PARTS] for place in places}


def rms(values):
    return float(np.sqrt(np.mean(np.square(np.asarray(values)))))


def moments(ensemble):
    """Return snapshots of an ensemble before and after a random change of all its parameters."""
    start = Snapshot(ensemble, 0, keep=True)
    generator = torch.Generator().manual_seed(1)
    for parameter in ensemble.parameters.values():
        noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        parameter.data += 0.3 * noise * parameter.detach().abs().mean()
    return start, Snapshot(ensemble, 1)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("name", ["ntk", "mup", "sp"])
def test_equals_the_formula(name, bias):
    cell = make_cell(
        **KEYS, parameterization=name, depth=2, gamma=2.0, center_output=True,
        model={"bias": bias, "sigma_bias": 0.3},
    )  # fmt: skip
    network = train_reference(cell)
    x = data.load(json.loads(cell.settings)["data"]).probe.inputs
    scale = network.scales("a")[:3]
    W_0 = [(s * w).numpy() for s, w in zip(scale, network.start[:3], strict=True)]
    W_t = [(s * w).numpy() for s, w in zip(scale, network.raw[:3], strict=True)]
    x_0 = [x.numpy(), *(a.numpy() for a in network.hidden(network.start, x)[0])]
    x_t = [x.numpy(), *(a.numpy() for a in network.hidden(network.raw, x)[0])]
    found = last_rows(cell)
    assert list(found) == ["hidden.0", "hidden.1", "output"]
    for layer, (own, passed) in enumerate(found.values()):
        gamma = 2.0 if layer == 2 else 1.0
        assert own == pytest.approx(rms(x_t[layer] @ (W_t[layer] - W_0[layer])) / gamma, rel=1e-9)
        assert passed == pytest.approx(rms((x_t[layer] - x_0[layer]) @ W_0[layer]) / gamma, rel=1e-9)
    assert found["hidden.0"][1] == 0  # the samples do not change


@pytest.mark.parametrize("case", BUILT_IN)
def test_the_parts_add_up_to_the_change(case):
    settings, dataset = BUILT_IN[case]
    cells = [make_cell(**KEYS, seed=seed, model=settings, data=dataset) for seed in (0, 1)]
    start, now = moments(ensemble_of(cells))
    before, after = ({call.layer.name: call for call in snapshot.probed().tape} for snapshot in (start, now))
    found = list(parts_of_update(now, start))
    assert [name for name, _, _ in found] == [layer.name for layer in layers.layers_of(now.ensemble.model)]
    previous = None
    for name, own, passed in found:
        change = (after[name].outputs - before[name].outputs).detach()
        if isinstance(after[name].layer, layers.Position):  # it adds to tokens, which are no part of W x
            change = change - previous
            assert not passed.any()
        torch.testing.assert_close((own + passed).expand_as(change), change, rtol=1e-10, atol=1e-12)
        assert own.any()
        previous = change


def called(function, raw, x):
    """Call a module of torch; return layer, weight in force and input of the last call of every layer."""
    calls = {}

    def listen(layer, args, kwargs, _):
        if hasattr(layer, "weight"):
            calls[layer] = layer.weight.clone(), (args or tuple(kwargs.values()))[0]

    handle = torch.nn.modules.module.register_module_forward_hook(listen, with_kwargs=True)
    try:
        function(raw, x)
    finally:
        handle.remove()
    return [(layer, *call) for layer, call in calls.items()]


@pytest.mark.parametrize("case", MODULES)  # whose layers all have a weight that multiplies
def test_plain_modules_equal_torchs_own_layers(case):
    ensemble = ensemble_of(cells_of(case))
    x = ensemble.inputs["probe"][0]
    before = [naive(case, ensemble, position) for position in range(2)]
    start, now = moments(ensemble)
    found = list(parts_of_update(now, start))
    names = dict.fromkeys(name.rpartition(".")[0] for name, _ in flat(ROLES[case]))
    assert [name for name, _, _ in found] == list(names)
    for position in range(2):
        raw, _, function = naive(case, ensemble, position)
        old = called(before[position][2], before[position][0], x)
        new = called(function, raw, x)
        for (_, own, passed), (_, w_0, x_0), (layer, w_t, x_t) in zip(found, old, new, strict=True):

            def returned(weight, given, layer=layer):
                rest = {name: torch.zeros_like(p) for name, p in layer.named_parameters()}
                return functional_call(layer, rest | {"weight": weight}, (given,))

            torch.testing.assert_close(own[position], returned(w_t - w_0, x_t), rtol=1e-9, atol=1e-12)
            expected = returned(w_0, x_t) - returned(w_0, x_0)
            torch.testing.assert_close(passed[position], expected, rtol=1e-9, atol=1e-12)


def test_a_layer_called_twice_has_the_parts_of_its_last_call():
    cell = make_cell(**KEYS, parameterization="mup", model={"_target_": "cells.TiedModel"})
    start, now = moments(ensemble_of([cell]))
    factor = {role: reference.factor("mup", "a", role, 4.0) for role in ("input", "hidden")}
    given, weights = [], []
    for snapshot in (start, now):
        parts = snapshot.parameters
        first, hidden = (factor[name] * parts[f"{name}.weight"][0] for name in factor)
        given.append(torch.tanh(torch.tanh(now.ensemble.inputs["probe"][0] @ first) @ hidden))
        weights.append(hidden)
    (_, own, passed) = list(parts_of_update(now, start))[1]
    torch.testing.assert_close(own[0], given[1] @ (weights[1] - weights[0]))
    torch.testing.assert_close(passed[0], (given[1] - given[0]) @ weights[0])


class Scaled(layers.Layer):
    """A layer of one's own: a factor per feature."""

    def __init__(self, size):
        super().__init__()
        self.declare("weight", ParameterSpec((size,), "vector", 1, 1.0))

    def forward(self, x):
        outputs = x * self.scale("weight", self.weight).unsqueeze(1)
        self.remember(x, outputs)
        return outputs


class WithScaled(LinearModel):
    def __init__(self, width, depth, inputs, outputs):
        super().__init__(width, depth, inputs, outputs)
        self.own = Scaled(inputs[0])

    def forward(self, x):
        return self.output(self.own(x))


def test_a_layer_that_does_not_say_what_its_weight_does_is_refused():
    cell = make_cell(**KEYS, model={"_target_": "test_update_parts.WithScaled"})
    start, now = moments(ensemble_of([cell]))
    with pytest.raises(UserError, match="got Scaled at own; give it a method multiply"):
        list(parts_of_update(now, start))


@pytest.mark.parametrize(
    ("settings", "dataset"),
    [*BUILT_IN.values(), (wrapped("modules.Perceptron"), {}), (wrapped("modules.Tokens"), PAIRS)],
)
def test_no_layer_of_a_trained_network_is_without(settings, dataset):
    measure = {"points": 3, "functions": BASIC}
    cells = [
        make_cell(**KEYS | {"measure": measure}, seed=seed, model=settings, data=dataset) for seed in (0, 1)
    ]
    table = train_pack(cells, CPU).layers
    for part in PARTS:
        values = np.array(table[part], dtype=float)
        steps = np.array(table["step"])
        assert np.isfinite(values).all()
        assert not values[steps == 0].any()
    assert (np.array(table["update_own"])[np.array(table["step"]) > 0] > 0).all()


@pytest.mark.parametrize("case", ["mlp", "resnet", "transformer"])
def test_a_cell_in_a_pack_equals_the_same_cell_alone(case):
    """Some share a start, one leaves the pack as it diverges, and the last may be left alone."""
    settings, dataset = BUILT_IN[case]

    def cell(**changes):
        return make_cell(**KEYS | changes, model=settings, data=dataset)

    others = [cell(lr=1e9), cell(lr=0.1), cell(seed=1, lr=1e9), cell(seed=1, lr=0.1, gamma=0.5)]
    chosen = cell(seed=1)
    alone = last_rows(chosen)
    for beside in (others, others[:1], others[2:3], others[::2]):
        for name, values in last_rows(chosen, beside).items():
            assert values == pytest.approx(alone[name], rel=1e-8, abs=1e-14), name


@pytest.mark.parametrize("name", ["mup", "ntk"])
def test_slopes_against_width_are_those_of_theory(name):
    """Features are learned at every width under mup, by each layer's own change too; not under ntk."""
    widths = (64, 128, 256, 512)
    sizes = {}
    for width in widths:
        cells = [
            make_cell(
                parameterization=name, width=width, depth=2, lr=0.5, steps=5, seed=seed, center_output=True,
                measure=MEASURE | {"points": 2},
            )
            for seed in range(4)
        ]  # fmt: skip
        table = train_pack(cells, CPU).layers
        for layer in ("hidden.1", "output"):
            for part in PARTS:
                rows = zip(table["layer"], table["step"], table[part], strict=True)
                values = [value for key, step, value in rows if (key, step) == (layer, 5)]
                sizes.setdefault((layer, part), []).append(np.log(values).mean())
    slopes = {key: np.polyfit(np.log(widths), found, 1)[0] for key, found in sizes.items()}
    hidden = {"mup": 0.0, "ntk": -0.5}[name]
    expected = {(layer, part): hidden if layer == "hidden.1" else 0.0 for layer, part in sizes}
    assert slopes == pytest.approx(expected, abs=0.15)
