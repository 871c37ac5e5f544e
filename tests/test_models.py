"""Every architecture against naive ones: function, kernels, training, and that a pack changes nothing."""

import json
import math
from functools import partial

import architectures
import pytest
import reference
import torch
from cells import DIGITS, make_cell
from torch.func import jacrev

from runner import data
from runner.errors import UserError
from runner.layers import Activation, gains_in_weights, kernel_memory, layers_of, parameters_of
from runner.layers.contraction import Pairing, contraction_costs, dense_kernel
from runner.measures.kernel import empirical_ntk, empirical_ntk_full
from runner.models.ensemble import Ensemble
from runner.training.preflight import inspect
from runner.training.train import train_pack

CPU = torch.device("cpu")
SMALL = DIGITS | {"train_size": 12, "test_size": 6, "probe_size": 5}
XOR = {"train_size": 12}
PAIRS = {"_target_": "runner.data.modular_addition", "seed": 0, "p": 4, "train_size": 8, "probe_size": 4}


def model(name, **keys):
    return {"_target_": f"runner.models.{name}", "activation": "tanh", **keys}


CASES = {
    "resmlp": (model("ResidualMLP"), SMALL, 3, partial(architectures.resmlp, depth=3)),
    "resmlp, bias": (
        model("ResidualMLP", bias=True, sigma_bias=0.3), SMALL, 2, partial(architectures.resmlp, depth=2)
    ),
    "cnn": (model("CNN"), SMALL, 2, partial(architectures.cnn, depth=2)),
    "cnn, pooled, bias": (
        model("CNN", pool=2, bias=True, sigma_bias=0.3, activation="relu"), SMALL, 3,
        partial(architectures.cnn, depth=3, pool=True, activation="relu"),
    ),
    "cnn, stride": (model("CNN", stride=2), SMALL, 2, partial(architectures.cnn, depth=2, stride=2)),
    "resnet": (model("ResNet"), SMALL, 1, partial(architectures.resnet, depth=1)),
    "resnet, stages": (model("ResNet", stages=2), SMALL, 2, partial(architectures.resnet, depth=2, stages=2)),
    "transformer": (
        model("Transformer", activation="gelu", heads=2, patch_size=4), SMALL, 1,
        partial(architectures.transformer, depth=1, heads=2, side=4),
    ),
    "transformer, causal, bias": (
        model("Transformer", heads=4, patch_size=4, causal=True, readout="last", bias=True, sigma_bias=0.3),
        SMALL, 2,
        partial(architectures.transformer, depth=2, heads=4, side=4, causal=True, last=True,
                activation="tanh"),
    ),
    "transformer, sequences": (
        model("Transformer", activation="gelu", heads=None, head_size=4), PAIRS, 1,
        partial(architectures.transformer, depth=1, heads=2),
    ),
}  # fmt: skip


def cells_of(case, names=("ntk", "mup"), seeds=(0, 1), **changes):
    settings, dataset, depth, _ = CASES[case]
    return [
        make_cell(
            width=8, depth=depth, base_width=2, parameterization=name, seed=seed, model=settings,
            data=dataset, **changes,
        )
        for name in names for seed in seeds
    ]  # fmt: skip


def ensemble_of(cells):
    sections = json.loads(cells[0].settings)
    return Ensemble(cells, sections["model"], data.load(sections["data"]), CPU)


def naive(case, ensemble, position):
    """The raw parameters of a cell, their scales a and c, and the function of raw parameters and samples."""
    cell = ensemble.cells[position]
    ratio = cell.width / cell.base_width
    raw, scales, rates = {}, {}, {}
    for path, spec, parameter, _ in parameters_of(ensemble.model):
        role = "input" if spec.role == "vector" else spec.role
        raw[path] = parameter[position].detach().clone()
        known = role != "scalar"
        scales[path] = reference.factor(cell.parameterization, "a", role, ratio) if known else 1.0
        rates[path] = reference.factor(cell.parameterization, "c", role, ratio) if known else 1.0
    function = CASES[case][3]
    if "transformer" in case:
        function = partial(function, logit_factor=ratio ** -reference.ATTENTION.get(cell.parameterization, 0))

    def outputs(parameters, x):
        return function({path: scales[path] * p for path, p in parameters.items()}, x)

    return raw, rates, outputs


def close(actual, expected, rel=1e-9):
    assert (actual - expected).norm() <= rel * expected.norm()


def test_what_a_pass_dispatches_and_writes_is_counted():
    settings, dataset, _, _ = CASES["transformer"]
    clipped = {"_target_": "runner.optim.SGD", "clip": 1.0}  # by autograd
    keys = {"model": settings, "data": dataset, "optimizer": clipped}
    shapes = [inspect(make_cell(width=8, depth=depth, **keys)) for depth in (1, 2, 3)]
    for counted in ([shape.calls for shape in shapes], [shape.written for shape in shapes]):
        assert counted[0] > 0
        assert counted[2] - counted[1] == counted[1] - counted[0] > 0
    narrow, wide = (inspect(make_cell(width=width, depth=1, **keys)) for width in (8, 16))
    assert narrow.calls == wide.calls
    assert narrow.written < wide.written < 4 * narrow.written


@pytest.mark.parametrize("two", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_gains_can_be_left_to_weights(case, two):
    settings, dataset, depth, _ = CASES[case]
    settings = (
        settings
        | {"activation": "relu", "bias": True, "sigma_bias": 0.3}
        | ({"block_layers": 2} if two else {})
    )
    if two and not settings["_target_"].endswith(("ResNet", "ResidualMLP")):
        pytest.skip("blocks of two layers are of residual networks")
    cells = [
        make_cell(width=8, depth=depth + 1, parameterization=name, model=settings, data=dataset)
        for name in ("ntk", "mup")
    ]
    ensemble = ensemble_of(cells)
    x = ensemble.inputs["probe"]
    expected = ensemble.model(x)
    with gains_in_weights():
        close(ensemble.model(x), expected, 1e-13)
        relu = next(module for module in ensemble.model.modules() if isinstance(module, Activation))
        close(relu(expected), expected.clamp(min=0), 0)


@pytest.mark.parametrize("case", CASES)
def test_function_and_kernels_equal_full_jacobian(case):
    ensemble = ensemble_of(cells_of(case))
    x = ensemble.inputs["probe"]
    outputs = ensemble.model(x).detach()
    trace = empirical_ntk(ensemble.model, ensemble.parameters, x)
    some = empirical_ntk(ensemble.model, ensemble.parameters, x, 3)
    full = empirical_ntk_full(ensemble.model, ensemble.parameters, x)
    for position in range(len(ensemble.cells)):
        raw, rates, function = naive(case, ensemble, position)
        close(outputs[position], function(raw, x[0]))
        blocks = jacrev(function)(raw, x[0])
        expected = sum(
            rates[path] * torch.einsum("ikp,jlp->kilj", block.flatten(2), block.flatten(2))
            for path, block in blocks.items()
        )
        close(full[position], expected)
        count = expected.shape[0]
        close(trace[position], sum(expected[k, :, k] for k in range(count)) / count)
        close(some[position], trace[position][:, :3])


@pytest.mark.parametrize(
    "case", ["resmlp", "cnn, pooled, bias", "resnet, stages", "transformer, causal, bias"]
)
def test_training_equals_naive_gradient_descent(case):
    cell, *_ = cells_of(case, names=("mup",), lr=0.5, steps=10)
    row = train_pack([cell], CPU).cells[0]
    ensemble = ensemble_of([cell])
    raw, rates, function = naive(case, ensemble, 0)
    dataset = data.load(json.loads(cell.settings)["data"])
    for _ in range(cell.steps):
        leaves = {path: p.clone().requires_grad_() for path, p in raw.items()}
        loss = reference.mse(function(leaves, dataset.train.inputs), dataset.train.targets)
        gradients = torch.autograd.grad(loss, list(leaves.values()))
        for (path, p), g in zip(raw.items(), gradients, strict=True):
            raw[path] = p - row["lr_absolute"] * rates[path] * g
    expected = reference.mse(function(raw, dataset.train.inputs), dataset.train.targets)
    assert row["train_loss"] == pytest.approx(float(expected), rel=1e-8)


@pytest.mark.parametrize("case", CASES)
def test_a_cell_does_not_depend_on_its_pack(case):
    cells = cells_of(case, names=("sp", "ntk", "mup"), lr=0.5, steps=6, batch_size=4)
    together = train_pack(cells, CPU).cells
    for cell, row in list(zip(cells, together, strict=True))[::3]:
        alone = train_pack([cell], CPU).cells[0]
        assert row["status"] == "ok"
        for key, value in alone.items():
            if isinstance(value, float) and key != "train_seconds":
                assert row[key] == pytest.approx(value, rel=1e-8, abs=1e-12), key


@pytest.mark.parametrize("case", ["cnn", "transformer"])
def test_parameterizations_are_related_as_they_should(case):
    names = ("sp", "ntk", "mean_field", "mup")
    settings, dataset, depth, _ = CASES[case]

    def losses(base_width):
        cells = [
            make_cell(
                width=8, depth=depth, base_width=base_width, parameterization=name, model=settings,
                data=dataset, steps=20,
            )
            for name in names
        ]  # fmt: skip
        return [row["train_loss"] for row in train_pack(cells, CPU).cells]

    same = losses(8)
    assert same == pytest.approx([same[0]] * 4, rel=1e-9)
    sp, ntk, mean_field, mup = losses(2)
    assert mean_field == pytest.approx(mup, rel=1e-9)
    assert len({round(value, 6) for value in (sp, ntk, mup)}) == 3


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(("positions", "features"), [(2, 40), (40, 2)])
def test_both_contractions_give_the_same_kernel(full, positions, features):
    generator = torch.Generator().manual_seed(0)
    columns = torch.randn(1, 6, positions, features, generator=generator, dtype=torch.float64)
    rows = torch.randn(2, 3, 6, positions, features, generator=generator, dtype=torch.float64)
    pairing = Pairing(4, full)
    by_sample, by_pair = contraction_costs(columns, rows, pairing)
    assert (by_pair < by_sample) == (positions < features)
    gradients = torch.einsum("xsti,costj->cosij", columns, rows).flatten(3)
    every = torch.einsum("cosp,cnmp->csonm", gradients, gradients[:, :, :4]).permute(0, 2, 1, 3, 4)
    expected = every if full else torch.einsum("coson->csn", every)
    whole = dense_kernel(columns, rows, pairing)
    close(whole, expected)
    with kernel_memory(1e-6):
        close(dense_kernel(columns, rows, pairing), expected)


def test_a_layer_called_twice_sums_over_its_calls():
    cell = make_cell(model={"_target_": "cells.TiedModel"}, width=8)
    ensemble = ensemble_of([cell])
    x = ensemble.inputs["probe"]
    raw = {path: p[0].detach() for path, p in ensemble.parameters.items()}

    def function(w, x):
        z = torch.tanh(x @ w["input.weight"])
        for _ in range(2):
            z = torch.tanh(z @ w["hidden.weight"] / math.sqrt(8))
        return z @ w["output.weight"] / math.sqrt(8)

    blocks = jacrev(function)(raw, x[0])
    expected = sum(torch.einsum("ikp,jlp->kilj", b.flatten(2), b.flatten(2)) for b in blocks.values())
    close(empirical_ntk_full(ensemble.model, ensemble.parameters, x)[0], expected)


def test_tokens_are_indices_or_one_hot():
    """The same function and kernel, however a model hands its tokens to an embedding."""
    found = []
    for indices in (False, True):
        settings = {"_target_": "cells.TokenModel", "indices": indices}
        ensemble = ensemble_of([make_cell(model=settings, data=PAIRS, width=8, parameterization="mup")])
        x = ensemble.inputs["probe"]
        inspect(ensemble.cells[0])  # its kernel is that of its gradient
        found.append((ensemble.model(x), empirical_ntk(ensemble.model, ensemble.parameters, x)))
        rows = ensemble.parameters["embed.weight"][0] * math.sqrt(8)
        tokens = x[0].argmax(-1)
        close(ensemble.model.embed(x.argmax(-1) if indices else x.sign())[0], rows[tokens])
    for one, other in zip(*found, strict=True):
        close(one, other)


ROLES = {
    "stem": "input", "blocks.0.skip": "hidden", "blocks.0.first": "hidden", "blocks.0.second": "hidden",
    "embedding": "input", "position": "input", "blocks.0.attention.query": "hidden", "blocks.0.up": "hidden",
    "blocks.0.down": "hidden", "blocks.0.norm": "vector", "norm": "vector", "output": "output",
}  # fmt: skip


@pytest.mark.parametrize("case", ["resnet, stages", "transformer"])
def test_roles(case):
    found = {layer.name: layer.role for layer in layers_of(ensemble_of(cells_of(case)).model)}
    assert {name: role for name, role in found.items() if name in ROLES}.items() <= ROLES.items()
    assert {"input", "hidden", "output"} <= set(found.values())


MISTAKES = {
    "an attention width": (
        model("Transformer", heads=3), SMALL, "width must be divisible by model.heads, got width 16 and 3",
    ),
    "the size of heads": (
        model("Transformer", head_size=5), SMALL, "width must be divisible by model.head_size",
    ),
    "a readout": (model("Transformer", readout="first"), SMALL, "model.readout must be one of"),
    "patches": (model("Transformer", patch_size=3), SMALL, "model.patch_size must divide the image"),
    "vectors for a cnn": (model("CNN"), XOR, "data must hold images"),
    "vectors for a resnet": (model("ResNet"), XOR, "data must hold images"),
    "an image that vanishes": (model("CNN", pool=9), SMALL, "depth must leave an image of at least one"),
    "a model key": (model("CNN", kernel=3), SMALL, "model.kernel must be one of"),
    "batch norm": ({"_target_": "cells.WithBatchNorm"}, XOR, "it makes the output for one sample depend"),
    "dropout": ({"_target_": "cells.WithDropout"}, XOR, "another function at every call"),
    "a parameter of torch": ({"_target_": "cells.WithParameter"}, XOR, "model must hold its parameters in"),
    "outputs": ({"_target_": "cells.WithTwoOutputs"}, XOR, "got (1, 1, 2)"),
    "a forward pass that fails": ({"_target_": "cells.Broken"}, XOR, "got RuntimeError"),
    "a weight out of its layer": ({"_target_": "cells.Bypassing"}, XOR, "by calling their layers only"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_one_line_before_training(mistake):
    settings, dataset, expected = MISTAKES[mistake]
    with pytest.raises(UserError) as caught:
        inspect(make_cell(model=settings, data=dataset))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
