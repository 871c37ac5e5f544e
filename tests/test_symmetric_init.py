"""Init in pairs that cancel: f = 0 at init for any depth and model, and what training makes of a pair."""

import dataclasses
import math

import pytest
import torch
from cells import DIGITS, make_cell
from test_engine import CPU, close, ensemble_of, train_reference
from test_models import PAIRS
from test_torch_module import XOR, wrapped

from runner.commands import sweep
from runner.errors import UserError
from runner.grid.cell import canonical_json
from runner.measures import Measurement, declare, empirical_ntk
from runner.measures.limit import limit_kernels
from runner.training.preflight import inspect
from runner.training.train import train_pack

SMALL = DIGITS | {"train_size": 12, "test_size": 6, "probe_size": 5}

TEXT = {
    "_target_": "runner.data.text", "context": 4, "size": 400, "train_size": 12, "test_size": 6,
    "probe_size": 5,
}  # fmt: skip


def model(name, **keys):
    return {"_target_": f"runner.models.{name}", **keys}


BIASES = {"bias": True, "sigma_bias": 0.3}
MODELS = {
    "linear": (model("MLP", activation="linear"), {}, 2),
    "mlp, 1": (model("MLP", activation="relu", **BIASES), {}, 1),
    "mlp, 2": (model("MLP", activation="relu", **BIASES), {}, 2),
    "mlp, 4": (model("MLP", activation="tanh"), {}, 4),
    "cnn, 1": (model("CNN", **BIASES), SMALL, 1),
    "cnn, 3": (model("CNN", pool=2, **BIASES), SMALL, 3),
    "resmlp": (model("ResidualMLP", **BIASES), {}, 3),
    "resnet": (model("ResNet", stages=2, **BIASES), SMALL, 2),
    "transformer": (model("Transformer", heads=2, patch_size=4, **BIASES), SMALL, 2),
    "transformer, a head": (model("Transformer", heads=1, causal=True, readout="last"), PAIRS, 1),
    "torch, by role": (wrapped("Perceptron", slope=1.5), XOR, 1),
    "torch, its own": (wrapped("Convolutional") | {"init": "own"}, SMALL, 1),
}


def cell_of(case, **changes):
    settings, dataset, depth = MODELS[case]
    keys = {"width": 8, "base_width": 2, "depth": depth, "model": settings, "data": dataset}
    return dataclasses.replace(make_cell(**keys | changes), symmetric_init=True)


@pytest.mark.parametrize("parameterization", ["ntk", "mup"])
@pytest.mark.parametrize("case", MODELS)
def test_outputs_are_zero_at_init(case, parameterization):
    cell = cell_of(case, parameterization=parameterization)
    inspect(cell)
    ensemble = ensemble_of([cell, dataclasses.replace(cell, symmetric_init=None)])
    paired, other = ensemble.model(ensemble.inputs["train"]).detach().abs().flatten(1).amax(1)
    assert paired < 1e-12
    assert other > 1e-2


def test_what_the_draws_are():
    """Halves of independent draws, those of the same seed without the symmetry, as large and as many."""
    cell = cell_of("mlp, 2", width=6, base_width=6)
    ensemble = ensemble_of([dataclasses.replace(cell, symmetric_init=None), cell])
    drawn, paired = ({path: p[place].detach() for path, p in ensemble.parameters.items()} for place in (0, 1))
    first, middle, last = (drawn[f"{name}.weight"] for name in ("hidden.0", "hidden.1", "output"))
    assert torch.equal(paired["hidden.0.weight"], torch.cat([first[:, :3], first[:, :3]], 1))
    a, b = middle[:3, :3], middle[:3, 3:]
    assert torch.equal(paired["hidden.1.weight"], torch.cat([torch.cat([a, b], 1), torch.cat([b, a], 1)]))
    assert torch.equal(paired["output.weight"], torch.cat([last[:3], -last[:3]]))
    bias = drawn["hidden.0.bias"]
    assert torch.equal(paired["hidden.0.bias"], torch.cat([bias[:3], bias[:3]]))
    assert not paired["output.bias"].any()


@pytest.mark.parametrize("depth", [1, 3])
def test_the_kernel_at_init_has_the_limit_of_independent_draws(depth):
    """Every layer's part of it; its scatter is that of a network of half the width."""
    errors = {}
    for width in (128, 512):
        cells = [
            make_cell(
                width=width, depth=depth, seed=seed, model={"activation": "relu"}, data={"probe_size": 4}
            )
            for seed in range(8)
        ]
        networks = ensemble_of([dataclasses.replace(cell, symmetric_init=True) for cell in cells])
        x = networks.inputs["probe"]
        kernel = empirical_ntk(networks.model, networks.parameters, x)
        expected = limit_kernels(networks, x).ntk
        errors[width] = float((kernel.mean(0) - expected[0]).norm() / expected[0].norm())
    assert errors[128] < 0.2
    assert errors[512] < 0.1


def test_the_kernel_scatters_as_that_of_half_the_width():
    def scatter(width, pairs):
        cells = [
            dataclasses.replace(
                make_cell(width=width, seed=seed, model={"activation": "relu"}, data={"probe_size": 4}),
                symmetric_init=pairs,
            )
            for seed in range(300)
        ]
        networks = ensemble_of(cells)
        kernels = empirical_ntk(networks.model, networks.parameters, networks.inputs["probe"])
        return float((kernels - kernels.mean(0)).square().sum().sqrt() / kernels.mean(0).norm())

    assert scatter(64, True) == pytest.approx(scatter(32, None), rel=0.15)
    assert scatter(64, True) > 1.25 * scatter(64, None)


def test_training_equals_naive_gradient_descent():
    for case in ("mlp, 1", "mlp, 2"):
        cell = cell_of(case, lr=0.5, steps=8)
        cells = [
            dataclasses.replace(cell, symmetric_init=None),
            cell,
            cell_of(case, lr=0.5, steps=8, seed=1),
        ]
        for one, row in zip(cells, train_pack(cells, CPU).cells, strict=True):
            network, ensemble = train_reference(one), ensemble_of([one])
            f = network.f(ensemble.inputs["train"][0])
            loss = (f - ensemble.scores["train"][0]).square().sum() / 2 / len(f)
            assert row["train_loss"] == pytest.approx(loss.item(), rel=1e-9)


# -- what is conserved --------------------------------------------------------------------------------


@declare(trace={"imbalance": ("1", "Largest change of what gradient flow conserves")})
def conserved(now, start):
    """Largest change of a^2 / lr_a - |w|^2 / lr_w over hidden units, over what its terms change by."""
    terms = []
    for snapshot in (now, start):
        w, a = (snapshot.parameters[f"{name}.weight"].square() for name in ("hidden.0", "output"))
        rates = [per_cell_rates(now.ensemble.cells, role) for role in ("input", "output")]
        terms.append((a.sum(2) / rates[1], w.sum(1) / rates[0]))
    (a, w), (a_0, w_0) = terms
    moved = (a - a_0).abs().sum(1) + (w - w_0).abs().sum(1)
    units = ((a - w) - (a_0 - w_0)).abs().sum(1)
    layers = ((a - w) - (a_0 - w_0)).sum(1).abs()
    return Measurement(trace={"imbalance": torch.maximum(units, layers) / moved.clamp(min=1e-30)})


def per_cell_rates(cells, role):
    """Learning rates by role at ratio r, from the tables of tests/reference.py, ``[cell, 1]``."""
    import reference

    ratios = [(cell.parameterization, cell.width / cell.base_width) for cell in cells]
    return torch.tensor([[reference.factor(name, "c", role, ratio)] for name, ratio in ratios])


CONSERVED = {"points": 2, "functions": {"conserved": {"_target_": "test_symmetric_init.conserved"}}}


@pytest.mark.parametrize("activation", ["linear", "relu"])
@pytest.mark.parametrize("symmetric", [None, True])
def test_gradient_flow_conserves_the_imbalance_of_two_layers(activation, symmetric):
    """Of every unit of a relu network, and of the layers of a linear one (Kunin et al.)."""
    cells = [
        dataclasses.replace(
            make_cell(
                depth=1, width=16, base_width=4, parameterization=name, lr=0.004, steps=1500, gamma=gamma,
                model={"activation": activation}, measure=CONSERVED, data={"linear": 3.0},
            ),
            symmetric_init=symmetric, sigma=sigma,
        )
        for name in ("ntk", "mean_field", "mup")
        for gamma in (1.0, 4.0)
        for sigma in (None, '{"hidden":1,"input":0.25,"output":4}')
    ]  # fmt: skip
    tables = train_pack(cells, CPU)
    assert all(row["train_loss"] < 0.7 * row["initial_train_loss"] for row in tables.cells)
    changes = [row["imbalance"] for row in tables.cells]
    assert max(changes) < 1e-3


def test_a_pair_moves_apart_as_the_equations_say():
    """Neuron by neuron: dw = -lr a phi'(w x) x dL/df, da = -lr phi(w x) dL/df; nothing holds the pairs."""
    cell = cell_of(
        "mlp, 1", model={"activation": "relu"}, lr=0.3, lr_unit="absolute", width=4, base_width=4, steps=8,
        depth=1, measure={"points": 2, "functions": {"w": {"_target_": "test_symmetric_init.weights"}}},
    )  # fmt: skip
    ensemble = ensemble_of([cell])
    x, y = ensemble.inputs["train"][0], ensemble.scores["train"][0][:, 0]
    neurons = [(w.clone(), a.clone()) for w, a in zip(*started(ensemble), strict=True)]
    for (w, a), (other_w, other_a) in zip(neurons[:2], neurons[2:], strict=True):
        assert torch.equal(w, other_w)
        assert torch.equal(a, -other_a)
    for _ in range(cell.steps):
        f = sum(a * math.sqrt(2) * (x @ w).clamp(min=0) for w, a in neurons)
        slope = (f - y) / len(y)
        neurons = [
            (
                w - 0.3 * a * math.sqrt(2) * (slope * (x @ w > 0)) @ x,
                a - 0.3 * math.sqrt(2) * (slope * (x @ w).clamp(min=0)).sum(),
            )
            for w, a in neurons
        ]
    row = train_pack([cell], CPU).cells[0]
    close(row["first"], sum(w.sum() for w, _ in neurons))
    close(row["second"], sum(a for _, a in neurons))
    close(row["product"], sum(a * w.sum() for w, a in neurons))
    assert abs(row["second"]) > 0.1  # a pair starts with a sum of zero, and moves together


def started(ensemble):
    return ensemble.parameters["hidden.0.weight"][0].detach().T, ensemble.parameters["output.weight"][
        0
    ].detach()[:, 0]


@declare(trace=dict.fromkeys(("first", "second", "product"), ("1", "Sum over weights")))
def weights(now, start):
    w, a = now.parameters["hidden.0.weight"], now.parameters["output.weight"][:, :, 0]
    return Measurement(trace={"first": w.sum((1, 2)), "second": a.sum(1), "product": (w.sum(1) * a).sum(1)})


def test_the_kernel_moves_most_at_small_scale_and_with_a_small_first_layer():
    """The order of Kunin et al. at four corners of +experiment=layer_imbalance."""
    teacher = {
        "_target_": "runner.data.teacher", "seed": 0, "dim": 8, "teacher_width": 3, "inputs": "sphere",
        "train_size": 24, "test_size": 8, "probe_size": 16,
    }  # fmt: skip
    corners = [(scale, imbalance) for scale in (0.5, 2.0) for imbalance in (0.5, 2.0)]
    cells = [
        dataclasses.replace(
            make_cell(
                depth=1, width=32, lr=0.02, lr_unit="absolute", steps=2500, data=teacher,
                model={"activation": "relu"}, stop={"train_loss": 0.05}, measure={"points": 2},
            ),
            symmetric_init=True,
            sigma=canonical_json({"hidden": 1, "input": scale * i, "output": scale / i}),
        )
        for scale, i in corners
    ]  # fmt: skip
    rows = train_pack(cells, CPU).cells
    assert all(row["stopped_by"] == "train_loss" for row in rows)
    found = {corner: row["kernel_distance"] for corner, row in zip(corners, rows, strict=True)}
    assert found[0.5, 0.5] > found[0.5, 2.0] > found[2.0, 0.5] > found[2.0, 2.0]


# -- what it cannot do --------------------------------------------------------------------------------

REFUSED = {
    "odd width": (make_cell(width=7), "width must be even with symmetric_init=true, got 7"),
    "three heads": (
        make_cell(width=12, model=model("Transformer", heads=3, patch_size=4), data=SMALL),
        "symmetric_init must make the outputs 0 at init, got",
    ),
    "opaque": (
        make_cell(width=8, model=wrapped("Recurrent", kind="GRU"), data=SMALL),
        "symmetric_init must be false where layers are not Linear, Conv2d, Embedding or LayerNorm, got",
    ),
    "tied": (
        make_cell(
            width=8,
            loss="cross_entropy",
            data=TEXT,
            model=model("Transformer", heads=2, causal=True, readout="every", tied=True),
        ),
        "and no readout be tied",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_paired_is_refused_in_one_line(case):
    cell, message = REFUSED[case]
    cell = dataclasses.replace(cell, symmetric_init=True)
    with pytest.raises(UserError) as caught:
        inspect(cell)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_it_is_an_axis_and_no_id_of_before_has_it(tmp_path, monkeypatch, capsys):
    from sweeping import TINY, cells_of

    from runner import cli, load

    monkeypatch.chdir(tmp_path)
    (plain,) = cells_of(monkeypatch, *TINY, "width=8", "lr=1")
    both = cells_of(monkeypatch, *TINY, "width=8", "lr=1", "symmetric_init=false,true")
    assert plain.cell_id in {cell.cell_id for cell in both}
    assert len({cell.pack_key for cell in both}) == 1
    line = [
        *TINY,
        "width=8",
        "lr=0.1,0.2",
        "store=out",
        "workers=1",
        "measure.points=2",
        "hydra.sweeper.summary=false",
    ]
    assert sweep.main([*line, "symmetric_init=false,true", "model.activation=tanh"]) == 0
    cells = load("out").cells
    assert cells["symmetric_init"].value_counts(dropna=False).to_list() == [2, 2]
    assert cli.main(["phase", "out", "--facet", "symmetric_init"]) == 0
    assert sweep.main([*TINY, "width=8", "lr=1", "symmetric_init=maybe"]) == 2
    assert "symmetric_init must be true or false, got maybe" in capsys.readouterr().err
