"""Modules of any kind, as people bring them: roles, kernel, training and measures against torch's own."""

import json
import math
from contextlib import nullcontext
from inspect import signature

import handed
import modules
import pytest
import reference
import torch
import yaml
from cells import DIGITS, make_cell
from torch import nn
from torch.func import functional_call, jacrev
from torch.utils._pytree import tree_leaves

from runner import data
from runner.layers import Linear, layers_of
from runner.measures import Snapshot
from runner.measures.curvature import sharpness
from runner.measures.features import parts_of_update, received
from runner.measures.kernel import empirical_ntk, empirical_ntk_full
from runner.models import mapped
from runner.models.ensemble import Ensemble
from runner.models.substitutes import substituted
from runner.models.uses import follow
from runner.training.preflight import inspect
from runner.training.train import train_pack

CPU = torch.device("cpu")
SMALL = DIGITS | {"train_size": 6, "test_size": 4, "probe_size": 10}
XOR = {"train_size": 12, "test_size": 6, "probe_size": 10}
PAIRS = {"_target_": "runner.data.modular_addition", "seed": 0, "p": 4, "train_size": 8, "probe_size": 4}
DATA = {"modules.Perceptron slope=1.5": XOR, "modules.Tokens": PAIRS}
"""Of those that do not take images."""
WIDTH, BASE = 8, 4
MEASURES = (
    "param_movement",
    "layer_movement",
    "ntk_change",
    "kernel_distance",
    "feature_movement",
    "update_parts",
)
MEASURE = {"points": 2, "functions": {name: {"_target_": f"runner.measures.{name}"} for name in MEASURES}}
COLUMNS = ("param_movement", "ntk_change", "kernel_distance", "feature_movement", "lambda_max_init")

NORM = {"weight": "input", "bias": "input"}  # a vector scales as an input weight
DENSE = {"weight": "hidden", "bias": "input"}
FIRST = {"weight": "input", "bias": "input"}
LAST = {"weight": "output", "bias": None}
ENCODER = {
    "self_attn.in_proj_weight": "hidden", "self_attn.in_proj_bias": "input", "self_attn.out_proj": DENSE,
    "linear1": DENSE, "linear2": DENSE, "norm1": NORM, "norm2": NORM,
}  # fmt: skip
GATES = {"weight_ih_l0": "input", "weight_hh_l0": "hidden", "bias_ih_l0": "input", "bias_hh_l0": "input"}
HEAD = {"q.weight": "hidden", "k.weight": "hidden", "v.weight": "hidden"}
ROLES = {
    "modules.Perceptron slope=1.5": {
        "first": FIRST, "block": {"0": NORM, "1.weight": "hidden"}, "second": DENSE, "head": LAST,
    },
    "modules.Convolutional": {"features.0": FIRST, "features.2.weight": "hidden", "head": LAST},
    "modules.Tokens": {"embed.weight": "input", "mix": DENSE, "head": LAST},
    "handed.GroupNormResNet": {
        "stem": FIRST, "head": LAST,
        "blocks.0": {"conv1.weight": "hidden", "conv2.weight": "hidden", "norm1": NORM, "norm2": NORM},
        "blocks.1": {
            "conv1.weight": "hidden", "conv2.weight": "hidden", "norm1": NORM, "norm2": NORM,
            "skip.weight": "hidden",
        },
    },
    "handed.TorchTransformer": {
        "embed": FIRST, "head": LAST, "blocks.layers.0": ENCODER, "blocks.layers.1": ENCODER,
    },
    "handed.FusedAttention": {
        "embed": FIRST, "norm": NORM, "qkv.weight": "hidden", "out": DENSE, "head": LAST,
    },
    "handed.GrowingHeads": {"embed": FIRST, "heads.0": HEAD, "out": DENSE, "head": LAST},
    "handed.FixedStem": {
        "stem": {"weight": None, "bias": None}, "first": FIRST, "second": DENSE, "head": LAST,
    },
    "handed.WeightNorm": {
        "first": {
            "bias": "input", "parametrizations.weight.original0": "input",
            "parametrizations.weight.original1": "input",
        },
        "head": LAST,
    },
    "modules.Recurrent kind=LSTM": {"rows": GATES, "head": LAST},
    "modules.Recurrent kind=GRU": {"rows": GATES, "head": LAST},
    "modules.Recurrent kind=Unbiased": {
        "rows": {"weight_ih_l0": "input", "weight_hh_l0": "hidden"}, "head": LAST,
    },
    "modules.Convolutions": {
        "volume": FIRST, "first": DENSE, "norm": NORM, "each": FIRST, "up": DENSE, "last.weight": "input",
        "head": LAST,
    },
    "modules.Pairs": {
        "first": FIRST, "pair": DENSE, "turn.parametrizations.weight.original": "hidden", "gain": "input",
        "mix": "hidden", "readout": "output",
    },
    "modules.Placed": {"embed": FIRST, "positions.table": "input", "head": LAST},
    "modules.TiedTokens": {
        "embed.weight": "input", "head.weight": "output", "positions": "input", "mix": DENSE,
    },
}  # fmt: skip
"""Class to parameter to role, by hand; None for what does not grow with width."""


def flat(tree, prefix=""):
    for name, item in tree.items():
        if isinstance(item, dict):
            yield from flat(item, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", item


def parsed(case):
    """Where a module's class is, and its keys."""
    target, *settings = case.split()
    return target, {key: yaml.safe_load(value) for key, value in (word.split("=") for word in settings)}


def wrapped(case, **keys):
    target, settings = parsed(case)
    return {
        "_target_": "runner.models.TorchModule", "sigma_bias": 0.2,
        "module": {"_target_": target} | settings, **keys,
    }  # fmt: skip


def cells_of(case, names=("ntk", "mup"), **changes):
    given = {
        "width": WIDTH,
        "base_width": BASE,
        "data": DATA.get(case, SMALL),
        "model": wrapped(case),
    } | changes
    return [make_cell(parameterization=name, **given) for name in names]


def ensemble_of(cells):
    sections = json.loads(cells[0].settings)
    return Ensemble(cells, sections["model"], data.load(sections["data"]), CPU)


def module_of(case, ensemble):
    target, settings = parsed(case)
    place, name = target.split(".")
    kind = getattr({"handed": handed, "modules": modules}[place], name)
    given = {
        "width": WIDTH, "depth": 2, "inputs": tuple(ensemble.inputs["probe"].shape[2:]),
        "outputs": ensemble.targets["probe"].shape[2],
    }  # fmt: skip
    taken = {key: value for key, value in given.items() if key in signature(kind).parameters}
    torch.manual_seed(0)  # for what a module draws and does not train
    return kind(**taken, **settings).double()


def naive(case, ensemble, position):
    """Raw parameters in torch's shapes, factors of their learning rates, and the function of both."""
    module, parameterization = module_of(case, ensemble), ensemble.cells[position].parameterization
    roles, raw, rates, scales = dict(flat(ROLES[case])), {}, {}, {}
    names = dict(module.named_parameters(remove_duplicate=False))
    assert roles.keys() == names.keys()
    first = {}  # of two names of one parameter
    for name, role in roles.items():
        held = ensemble.model._leaves.held[name]
        value = ensemble.parameters[held.path][position].detach().clone()
        own = first.setdefault(id(names[name]), name)
        linear = isinstance(held.layer, Linear) and name.endswith("weight")
        raw[own] = value.T if linear else value
        factors = [reference.factor(parameterization, letter, role, 2.0) if role else 1.0 for letter in "ac"]
        scales[name] = (own, factors[0])
        rates.setdefault(own, factors[1])

    def function(raw, x):
        used = {name: factor * raw[own] for name, (own, factor) in scales.items()}
        returned = functional_call(module, used, (x,), tie_weights=False)
        return returned["logits"] if isinstance(returned, dict) else returned

    return raw, rates, function


def close(actual, expected, rel=1e-9):
    assert (actual - expected).norm() <= rel * expected.norm()


@pytest.mark.parametrize("case", ROLES)
def test_roles_and_kernels(case):
    ensemble = ensemble_of(cells_of(case))
    x = ensemble.inputs["probe"][:, :3]
    trace = empirical_ntk(ensemble.model, ensemble.parameters, x)
    full = empirical_ntk_full(ensemble.model, ensemble.parameters, x)
    for position in range(len(ensemble.cells)):
        raw, rates, function = naive(case, ensemble, position)
        close(ensemble.model(x)[position].detach(), function(raw, x[0]))
        with substituted():  # jacrev asks for batching rules
            jacobian = jacrev(function)(raw, x[0])
        expected = sum(
            rates[name] * torch.einsum("ikp,jlp->kilj", block.flatten(2), block.flatten(2))
            for name, block in jacobian.items()
        )
        close(full[position], expected)
        close(trace[position], torch.einsum("kikj->ij", expected) / len(expected))


@pytest.mark.parametrize("case", ROLES)
def test_training_and_packs(case):
    cells = cells_of(case, lr=0.2, steps=4, measure=MEASURE)
    inspect(cells[0])
    rows = train_pack(cells, CPU).cells
    alone = train_pack(cells[-1:], CPU).cells[0]
    for key, value in alone.items():
        if isinstance(value, float) and key != "train_seconds":
            assert rows[-1][key] == pytest.approx(value, rel=1e-8, abs=1e-12), key
    assert all(alone[column] is not None for column in COLUMNS)
    raw, rates, function = naive(case, ensemble_of(cells), len(cells) - 1)
    train = data.load(json.loads(cells[0].settings)["data"]).train
    for _ in range(4):
        leaves = {name: p.clone().requires_grad_() for name, p in raw.items()}
        loss = reference.mse(function(leaves, train.inputs), train.targets)
        gradients = torch.autograd.grad(loss, list(leaves.values()))
        for (name, p), g in zip(raw.items(), gradients, strict=True):
            raw[name] = p - alone["lr_absolute"] * rates[name] * g
    expected = reference.mse(function(raw, train.inputs), train.targets)
    assert alone["train_loss"] == pytest.approx(float(expected), rel=1e-7)


def test_a_measure_that_differentiates_twice_sees_the_same_network():
    functions = {
        name: {"_target_": f"runner.measures.{name}"}
        for name in ("linearization_error", "kernel_gd_error", "sharpness", "cka", "update_size")
    }
    (cell,) = cells_of("handed.FusedAttention", ("mup",), measure={"points": 2, "functions": functions})
    rows = train_pack([cell], CPU)
    assert all(
        rows.cells[0][name] is not None for name in ("linearization_error", "kernel_gd_error", "sharpness")
    )
    ensemble = ensemble_of([cell])
    raw, rates, function = naive("handed.FusedAttention", ensemble, 0)
    train = data.load(json.loads(cell.settings)["data"]).train
    weights = torch.cat([torch.full((p.numel(),), rates[name] ** 0.5).double() for name, p in raw.items()])
    sizes = [p.numel() for p in raw.values()]

    def loss(flat):
        parts = dict(zip(raw, torch.split(flat * weights, sizes), strict=True))
        used = {name: raw[name] + part.view_as(raw[name]) for name, part in parts.items()}
        return reference.mse(function(used, train.inputs), train.targets)

    with substituted():  # torch's fused attention has no second derivative
        hessian = torch.autograd.functional.hessian(loss, torch.zeros(sum(sizes), dtype=torch.float64))
    first = Snapshot(ensemble, 0)
    found = sharpness(first, first).trace["sharpness"][0]
    assert found == pytest.approx(float(torch.linalg.eigvalsh(hessian).amax()), rel=1e-2)


def test_rows_are_in_the_order_of_the_forward_pass():
    (cell,) = cells_of("handed.TorchTransformer", ("mup",))
    names = [layer.name for layer in layers_of(ensemble_of([cell]).model)]
    assert [name.removeprefix("blocks.layers.0.") for name in names[:7]] == [
        "embed", "self_attn.in_proj", "self_attn.out_proj", "norm1", "linear1", "linear2", "norm2",
    ]  # fmt: skip
    assert names[-1] == "head"


@pytest.mark.parametrize(
    ("case", "layer"),
    [("handed.FusedAttention", "out"), ("handed.TorchTransformer", "blocks.layers.0.self_attn.out_proj")],
)
def test_logits_of_attention_are_those_of_queries_and_keys(case, layer):
    (cell,) = cells_of(case, ("mup",))
    ensemble = ensemble_of([cell])
    snapshot = Snapshot(ensemble, 0)
    (found,) = (call.logits for call in snapshot.probed().calls if call.layer.name == layer)
    values = {
        name: held.used(ensemble.parameters[held.path])[0]
        for name, held in ensemble.model._leaves.held.items()
    }
    x = torch.nn.functional.linear(
        ensemble.inputs["probe"][0].reshape(-1, 8, 8), values["embed.weight"], values["embed.bias"]
    )
    if layer == "out":
        x = nn.functional.layer_norm(x, (WIDTH,), values["norm.weight"], values["norm.bias"])
        both = x @ values["qkv.weight"].mT
    else:
        place = "blocks.layers.0.self_attn.in_proj"
        both = x @ values[f"{place}_weight"].mT + values[f"{place}_bias"]
    q, k, _ = (part.unflatten(-1, (4, -1)).transpose(1, 2) for part in both.chunk(3, -1))
    close(found.values[0], (q @ k.mT / (WIDTH / 4) ** 0.5).flatten(1))
    norms = q.norm(dim=-1)[..., None] * k.norm(dim=-1)[..., None, :]
    close(found.bound[0], (norms / (WIDTH / 4) ** 0.5).flatten(1))


def test_parts_of_an_update_are_differences_of_the_module():
    (cell,) = cells_of("handed.TorchTransformer", ("mup",))
    ensemble = ensemble_of([cell])
    start = Snapshot(ensemble, 0, keep=True)
    received(start)
    with torch.no_grad():
        for parameter in ensemble.parameters.values():
            parameter.add_(0.1 * torch.sin(torch.arange(parameter.numel())).view_as(parameter))
    now = Snapshot(ensemble, 1)
    place = "blocks.layers.0.self_attn"
    own, passed = {name: parts for name, *parts in parts_of_update(now, start)}[f"{place}.in_proj"]
    module, heard = module_of("handed.TorchTransformer", ensemble), []
    attention = module.get_submodule(place)
    attention.register_forward_hook(lambda _, args, output: heard.append(args[0]))

    def values(parameters):
        return {
            name: held.used(parameters[held.path])[0] for name, held in ensemble.model._leaves.held.items()
        }

    def given(parameters):
        heard.clear()
        functional_call(module, values(parameters), (ensemble.inputs["probe"][0],))
        return heard[0]

    def returned(parameters, x):
        state = {n.removeprefix(f"{place}."): v for n, v in values(parameters).items() if n.startswith(place)}
        return functional_call(attention, state, (x, x, x), {"need_weights": False})[0]

    after, before = given(now.parameters), given(start.parameters)
    of_layer = {
        path: value for path, value in start.parameters.items() if path.startswith(f"{place}.in_proj")
    }
    assert len(of_layer) == 2
    close(own[0, :, 0], returned(now.parameters, after) - returned(now.parameters | of_layer, after))
    close(passed[0, :, 0], returned(start.parameters, after) - returned(start.parameters, before))


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
@pytest.mark.parametrize("keys", [{}, {"bidirectional": True, "num_layers": 2}, {"bias": False}])
def test_recurrent_networks_have_plain_equivalents(kind, keys):
    torch.manual_seed(0)
    module = getattr(nn, kind)(3, 5, batch_first=True, **keys).double()
    same(module, torch.randn(2, 4, 3, dtype=torch.float64))


def test_other_functions_have_plain_equivalents():
    torch.manual_seed(0)
    x, y = torch.randn(2, 4, 3, dtype=torch.float64), torch.randn(2, 4, 5, dtype=torch.float64)
    same(nn.RNN(3, 5, nonlinearity="relu").double(), x)
    same(nn.LSTM(3, 5, proj_size=2).double(), x)
    same(nn.Bilinear(3, 5, 2).double(), x, y)
    for dim in (0, 1, None):
        same(nn.utils.parametrizations.weight_norm(nn.Linear(3, 4), dim=dim).double(), x)


def same(module, *inputs):
    """Outputs and gradients are torch's own."""
    found = []
    for context in (nullcontext, substituted):
        with context():
            outputs = [value for value in tree_leaves(module(*inputs)) if isinstance(value, torch.Tensor)]
        total = sum((value * torch.linspace(1, 2, value.numel()).view_as(value)).sum() for value in outputs)
        found.append([*outputs, *torch.autograd.grad(total, list(module.parameters()))])
    for one, other in zip(*found, strict=True):
        close(one, other, 1e-12)


def test_a_module_that_torch_cannot_batch_runs_cell_by_cell():
    cells = [
        make_cell(model=wrapped("modules.Branching"), width=8, steps=3, seed=seed, measure=MEASURE)
        for seed in (0, 1)
    ]
    inspect(cells[0])
    ensemble = ensemble_of(cells)
    assert not ensemble.model._batched
    rows = [train_pack(some, CPU).cells[0] for some in (cells, cells[:1])]
    assert rows[0]["ntk_change"] == pytest.approx(rows[1]["ntk_change"], rel=1e-10)
    plain = [make_cell(model=wrapped("modules.Head"), width=8, steps=3, seed=0, measure=MEASURE)]
    assert rows[0]["ntk_change"] == pytest.approx(train_pack(plain, CPU).cells[0]["ntk_change"], rel=1e-10)


def test_large_convolutions_and_recurrences_do_not_run_at_once():
    assert mapped.cells_at_once(2**19, 2**17, 64, CPU)
    assert not mapped.cells_at_once(2**20, 0, 64, CPU)
    assert not mapped.cells_at_once(0, 2**18, 64, CPU)
    assert mapped.cells_at_once(2**20, 2**18, 64, torch.device("cuda"))


@pytest.mark.parametrize(
    "case",
    [
        "handed.GroupNormResNet",
        "modules.Convolutions",
        "modules.Recurrent kind=LSTM",
        "modules.Recurrent kind=GRU",
        "modules.Recurrent kind=Unbiased",
    ],
)
def test_cell_by_cell_they_compute_the_same(case, monkeypatch):
    cells = cells_of(case, steps=3, measure=MEASURE)
    assert ensemble_of(cells).model._batched
    found = []
    for limit in (math.inf, 1):
        monkeypatch.setattr(mapped, "CONVOLVED", limit)
        monkeypatch.setattr(mapped, "RECURRED", limit)
        ensemble = ensemble_of(cells)
        assert ensemble.model._batches(1) == (limit > 1)
        kernel = empirical_ntk(ensemble.model, ensemble.parameters, ensemble.inputs["probe"])
        rows = train_pack(cells, CPU).cells
        found.append((kernel, [[row[column] for column in COLUMNS] for row in rows]))
    close(found[1][0], found[0][0], 1e-12)
    assert found[1][1] == [pytest.approx(row, rel=1e-9) for row in found[0][1]]


def test_what_is_convolved_is_counted():
    width = WIDTH  # stem, both blocks with the second's skip; 64 places, then 16
    kernels = 64 * 9 * width * (1 + 2 * width) + 16 * 2 * width * width * (9 + 2 * 9 + 1)
    for module, convolved in [(handed.GroupNormResNet, kernels), (handed.FixedStem, 0)]:
        assert follow(module(width, 10), torch.zeros(1, 1, 8, 8, dtype=torch.float64)).convolved == convolved


@pytest.mark.parametrize(("kind", "gates"), [("RNN", 1), ("GRU", 3), ("LSTM", 4)])
def test_what_recurs_is_counted(kind, gates):
    module, steps = modules.Recurrent(WIDTH, 10, kind), 8
    seen = follow(module, torch.zeros(1, 1, 8, 8, dtype=torch.float64))
    assert seen.recurred == steps * gates * WIDTH * (8 + WIDTH)
    assert seen.convolved == 0


def test_dropout_of_nothing_and_a_batch_norm_that_rests_are_harmless():
    cell = make_cell(model=wrapped("modules.Harmless"), width=8, steps=2)
    inspect(cell)
    assert train_pack([cell], CPU).cells[0]["status"] == "ok"


def test_roles_can_be_named_and_features_chosen():
    case = wrapped("modules.Cube", roles={"pair.*": "hidden"}, features=["first"])
    cell = make_cell(model=case, width=8, steps=2)
    inspect(cell)
    ensemble = ensemble_of([cell])
    roles = {layer.name: layer.role for layer in layers_of(ensemble.model)}
    assert roles == {"first": "input", "pair": "hidden", "head": "output"}
    features = Snapshot(ensemble, 0).features()
    assert list(features) == ["first"]
    raw = {path: value[0].detach() for path, value in ensemble.parameters.items()}
    close(features["first"][0], ensemble.inputs["probe"][0] @ raw["first.weight"] + raw["first.bias"])
