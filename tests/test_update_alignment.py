"""Log-alignment ratios of what changed, against the formula, layer by layer, in float64."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from cells import make_cell
from test_engine import CPU, train_reference
from test_torch_module import wrapped
from test_update_parts import BUILT_IN, KEYS, PAIRS, moments

from runner import cli, data
from runner.analysis.beside import beside_assumed
from runner.analysis.predictions import predictions
from runner.commands import sweep
from runner.measures import update_alignment
from runner.scaling.alignment import ASSUMED, assumed_alignment
from runner.training.train import train_pack

MEASURE = {"points": 3, "functions": {"alignment": {"_target_": "runner.measures.update_alignment"}}}
COLUMNS = ("alignment_alpha", "alignment_omega", "alignment_u")


def rows_of(cells):
    table = train_pack(cells, CPU).layers
    keys = zip(table["cell_id"], table["step"], table["layer"], strict=True)
    values = zip(*(table.get(name, [None] * len(table["step"])) for name in COLUMNS), strict=True)
    return dict(zip(keys, values, strict=True))


def rms(values):
    return math.sqrt(sum(float(value) ** 2 for value in values.flatten()) / values.numel())


def naive(weight, x):
    """log(RMS(x W) / (RMS(W) RMS(x))) / log(fan_in), sums written out."""
    products = torch.tensor(
        [[sum(a * b for a, b in zip(row, column, strict=True)) for column in weight.T] for row in x]
    )
    return math.log(rms(products) / (rms(weight) * rms(x))) / math.log(weight.shape[0])


@pytest.mark.parametrize("name", ["ntk", "mup"])
def test_equals_the_formula(name):
    cell = make_cell(
        **KEYS | {"measure": MEASURE}, parameterization=name, depth=2, gamma=2.0, center_output=True,
        model={"bias": True, "sigma_bias": 0.3},
    )  # fmt: skip
    network = train_reference(cell)
    x = data.load(json.loads(cell.settings)["data"]).probe.inputs
    inputs = [[x, *network.hidden(raw, x)[0]] for raw in (network.start, network.raw)]
    found = rows_of([dataclasses.replace(cell, lr=0.1, seed=1), cell])
    for layer, path in enumerate(("hidden.0", "hidden.1", "output")):
        first, now = (raw[layer] for raw in (network.start, network.raw))
        x_0, x_t = (values[layer] for values in inputs)
        alpha, omega, u = found[cell.cell_id, cell.steps, path]
        assert alpha == pytest.approx(naive(now - first, x_0), rel=1e-9)
        assert found[cell.cell_id, 0, path] == (None, None, None)
        if layer == 0:  # the samples do not change
            assert omega is None
            assert u is None
            continue
        assert omega == pytest.approx(naive(first, x_t - x_0), rel=1e-9)
        assert u == pytest.approx(naive(now - first, x_t - x_0), rel=1e-9)


def test_of_a_convolution_inputs_are_patches():
    settings, dataset = BUILT_IN["cnn"]
    start, now = moments_of(settings, dataset)
    found = update_alignment(now, start).layers["alignment_omega"]["hidden.1"]
    before, after = (
        next(call for call in snapshot.probed().calls if call.layer.name == "hidden.1")
        for snapshot in (start, now)
    )
    for place in range(2):
        change = (after.inputs - before.inputs)[place].detach()
        kernel = start.parameters["hidden.1.weight"][place]
        patches = torch.nn.functional.unfold(change, 3, padding=1, stride=2).transpose(1, 2).flatten(0, 1)
        expected = naive(kernel.flatten(1).T, patches)
        assert found[place].item() == pytest.approx(expected, rel=1e-9)


def moments_of(settings, dataset):
    from test_handed import ensemble_of

    return moments(
        ensemble_of([make_cell(**KEYS, seed=seed, model=settings, data=dataset) for seed in (0, 1)])
    )


@pytest.mark.parametrize("case", [*BUILT_IN, "torch"])
def test_layers_that_sum_over_their_inputs_have_it_and_no_others(case):
    settings, dataset = BUILT_IN.get(case) or (wrapped("Tokens"), PAIRS)
    start, now = moments_of(settings, dataset)
    found = update_alignment(now, start).layers
    sums = [call.layer.name for call in now.probed().calls if call.layer.specs["weight"].fan_in > 1]
    assert list(found["alignment_alpha"]) == list(dict.fromkeys(sums))
    assert not any("norm" in name or "position" in name for name in found["alignment_alpha"])
    for values in found.values():
        assert all(bool(value.isfinite().all()) for value in values.values())
    assert update_alignment(start, start).layers == {}


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_measured_exponents_are_those_that_theory_assumes(optimizer):
    """As slopes against the width of n^A, which constants leave alone: of full-batch training under mup."""
    widths = (64, 128, 256, 512)
    sizes = {}
    lr = {"lr": 0.5} if optimizer == "SGD" else {"lr": 0.02, "lr_unit": "absolute"}
    for width in widths:
        cells = [
            make_cell(
                parameterization="mup", width=width, depth=2, steps=5, seed=seed, center_output=True, **lr,
                measure=MEASURE | {"points": 2}, optimizer={"_target_": f"runner.optim.{optimizer}"},
            )
            for seed in range(4)
        ]  # fmt: skip
        for (_, step, layer), row in rows_of(cells).items():
            for name, value in zip(COLUMNS, row, strict=True):
                if step and value is not None and layer != "hidden.0":
                    sizes.setdefault((name, layer), {}).setdefault(width, []).append(value * math.log(width))
    roles = {"hidden.1": "hidden", "output": "output"}
    for (name, layer), found in sizes.items():
        slope = np.polyfit(np.log(widths), [np.mean(found[width]) for width in widths], 1)[0]
        if (assumed := assumed_alignment(name, roles[layer])) is not None:
            assert slope == pytest.approx(assumed, abs=0.15), (name, layer)


def test_what_theory_assumes_stands_beside_what_is_measured(tmp_path, monkeypatch, capsys):
    cell = {"exponents": make_cell().exponents, "depth": 3, "optimizer": "sgd", "lr_unit": "sharpness"}
    found = {(one.quantity, one.of): one.slope for one in predictions(cell | {"model.activation": "relu"})}
    assert found["alignment_omega", "hidden 1"] == found["alignment_omega", "hidden 2"] == 0.5
    assert found["alignment_omega", "output 3"] == found["alignment_alpha", "hidden 1"] == 1
    row = {"metric": "alignment_omega", "layer": "output", "role": "output", "largest": 0.934}
    assert beside_assumed([row, row | {"metric": "update_size"}, row | {"largest": 0.9}]) == [
        "alignment_omega of output comes to 0.90 to 0.93, theory assumes 1 where fan_in is large"
    ]
    monkeypatch.chdir(tmp_path)
    line = [
        "data=xor",
        "data.train_size=16",
        "data.test_size=8",
        "data.probe_size=8",
        "data.dim=4",
        "steps=4",
    ]
    more = ["width=8,16,32", "lr=0.1", "workers=1", "store=out", "measure=update_alignment"]
    more.append("hydra.sweeper.summary=false")
    assert sweep.main([*line, *more]) == 0
    capsys.readouterr()
    assert cli.main(["fit", "out", "--metric", "alignment_alpha,alignment_omega,alignment_u"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert out.count("theory assumes") == len(ASSUMED)
    assert cli.main(["theory", "mup"]) == 0
    assert "alignment_omega, output 2" in capsys.readouterr().out
