"""Factors on the init of the weights of a role, ``model.sigma``: of any model, in one pack, with old ids."""

import dataclasses
import json

import pytest
import torch
from cells import DIGITS, LinearModel, make_cell
from sweeping import TINY, cells_of
from test_engine import CPU, close, ensemble_of, train_reference
from test_torch_module import XOR, wrapped

from runner import baselines, cli, load
from runner.commands import sweep
from runner.errors import UserError
from runner.grid.cell import canonical_json
from runner.grid.cells import Cells
from runner.grid.config import cell_from_config, config_of_cell
from runner.launching import refine
from runner.layers import parameters_of
from runner.measures.limit import limit_kernels
from runner.training.train import train_pack

FACTORS = {"input": 2.0, "hidden": 0.5, "output": 4.0}  # powers of two, which round nothing
SMALL = DIGITS | {"train_size": 12, "test_size": 6, "probe_size": 5}


def with_sigma(cell, **factors):
    return dataclasses.replace(cell, sigma=canonical_json(dict.fromkeys(FACTORS, 1) | factors))


MODELS = {
    **{name: {"_target_": f"runner.models.{name}", "bias": True, "sigma_bias": 0.3}
       for name in ("MLP", "ResidualMLP", "CNN", "ResNet")},
    "Transformer": {"_target_": "runner.models.Transformer", "heads": 2, "patch_size": 4},
    "torch, by role": wrapped("Perceptron", slope=1.5),
    "torch, its own": wrapped("Perceptron", slope=1.5) | {"init": "own"},
    "own": {"_target_": "cells.TiedModel"},
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("parameterization", ["ntk", "mup"])
def test_weights_of_a_role_are_larger_and_nothing_else(name, parameterization):
    images = name in ("CNN", "ResNet", "Transformer")
    cell = make_cell(
        model=MODELS[name], data=SMALL if images else XOR, width=8, parameterization=parameterization
    )
    ensemble = ensemble_of([cell, with_sigma(cell, **FACTORS)])
    for path, spec, parameter, _ in parameters_of(ensemble.model):
        plain, other = parameter.detach()
        assert torch.equal(other, FACTORS.get(spec.role, 1) * plain), path
    roles = {spec.role for _, spec, _, _ in parameters_of(ensemble.model)}
    assert roles >= FACTORS.keys()


def test_one_factor_for_all_is_a_sigma_weight():
    cell = make_cell(depth=3, model={"activation": "relu", "sigma_weight": 1.0})
    scaled = ensemble_of([with_sigma(cell, **dict.fromkeys(FACTORS, 0.25))])
    other = ensemble_of([make_cell(depth=3, model={"activation": "relu", "sigma_weight": 0.25})])
    for path, parameter in scaled.parameters.items():
        assert torch.equal(parameter, other.parameters[path])
    x = scaled.inputs["probe"]
    for kernel, expected in zip(limit_kernels(scaled, x), limit_kernels(other, x), strict=True):
        close(kernel, expected)


@pytest.mark.parametrize("model", [{}, {"bias": True, "sigma_bias": 0.3}])
def test_training_in_a_pack_equals_naive_gradient_descent(model):
    cell = make_cell(model=model, gamma=2.0, center_output=True, base_width=4)
    cells = [cell, with_sigma(cell, input=3.0, output=0.25), with_sigma(cell, hidden=2)]
    for one, row in zip(cells, train_pack(cells, CPU).cells, strict=True):
        network, ensemble = train_reference(one), ensemble_of([one])
        f = network.f(ensemble.inputs["train"][0], centered=True)
        loss = (f - ensemble.scores["train"][0]).square().sum() / 2 / len(f)
        assert row["train_loss"] == pytest.approx(loss.item(), rel=1e-9)


def test_ids_are_those_of_before_where_all_factors_are_one(monkeypatch):
    (plain,) = cells_of(monkeypatch, *TINY, "width=8", "lr=1")
    (ones,) = cells_of(monkeypatch, *TINY, "width=8", "lr=1", "model.sigma.input=1", "model.sigma.output=1.0")
    assert plain.cell_id == ones.cell_id
    assert 'sigma"' not in plain.settings
    cells = cells_of(
        monkeypatch, *TINY, "width=8", "lr=1", "model.sigma.input=0.5,1", "model.sigma.output=1,2"
    )
    assert plain in cells
    assert {cell.sigma and tuple(json.loads(cell.sigma).values()) for cell in cells} == {
        (1, 0.5, 1), (1, 0.5, 2), None, (1, 1, 2),
    }  # fmt: skip
    assert len({cell.pack_key for cell in cells}) == 1
    assert len({cell.start_key for cell in cells}) == 4
    for cell in cells:
        assert cell_from_config(config_of_cell(cell)) == cell


def test_a_refinement_may_go_along_it(monkeypatch):
    """Also from cells whose factors are all one, which do not hold them."""
    cells = cells_of(monkeypatch, *TINY, "width=8", "lr=1", "model.sigma.input=1,2,4", "measure=ntk_change")
    refine.check(refine.Refinement("model.sigma.input", "ntk_change=0.1", 0.1, None), Cells.of(cells), [])


class Sigma(LinearModel):
    """A model of one's own that takes a sigma."""

    def __init__(self, width, depth, inputs, outputs, sigma):
        assert sigma == {"input": 1, "own": 3}
        super().__init__(width, depth, inputs, outputs)


class Keys(LinearModel):
    def __init__(self, width, depth, inputs, outputs, **keys):
        assert keys == {"sigma": {"input": 1}}
        super().__init__(width, depth, inputs, outputs)


@pytest.mark.parametrize(("name", "sigma"), [("Sigma", {"input": 1, "own": 3}), ("Keys", {"input": 1})])
def test_a_model_of_ones_own_keeps_a_sigma_that_it_takes(name, sigma):
    config = config_of_cell(make_cell())
    cell = cell_from_config(
        config | {"model": {"name": "own", "_target_": f"test_sigma.{name}", "sigma": sigma}}
    )
    assert cell.sigma is None
    assert json.loads(cell.settings)["model"]["sigma"] == sigma
    assert cell_from_config(config_of_cell(cell)) == cell
    ensemble_of([cell])


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("model.sigma.input=0", "model.sigma.input must be a finite number > 0, got 0; e.g. model."),
        ("model.sigma.output=1,two", "model.sigma.output must be a finite number > 0, got two"),
        ("model.sigma.inputs=2", "did you mean model.sigma.input?"),
        ("+model.sigma.vector=2", "model.sigma.vector must be a known config key (model.sigma.hidden, "),
        ("+model.sigma=2", "model.sigma must be factors of input, hidden, output, got 2"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(argument, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert sweep.main([*TINY, "width=8", "lr=1", argument]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_factors_are_columns_also_of_cells_from_before(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = [
        *TINY,
        "width=8",
        "lr=0.1",
        "store=out",
        "workers=1",
        "measure.points=2",
        "hydra.sweeper.summary=false",
    ]
    assert sweep.main(line) == 0
    assert "model.sigma.input" not in load("out").cells
    assert sweep.main([*line, "model.sigma.input=0.5,1", "model.sigma.output=1,2"]) == 0
    cells = load("out").cells
    found = set(zip(cells["model.sigma.input"], cells["model.sigma.output"], strict=True))
    assert found == {(0.5, 1), (0.5, 2), (1, 1), (1, 2)}
    assert (cells["model.sigma.hidden"] == 1).all()
    axes = ["--x", "model.sigma.input", "--y", "model.sigma.output", "--color", "ntk_change"]
    assert cli.main(["phase", "out", *axes]) == 0


def test_a_baseline_has_the_kernel_of_that_init():
    keys = {"activation": "relu", "bias": False, "sigma_bias": 0.0, "normalize_input": False}
    target = {"_target_": "runner.baselines.RidgeNTK", "sigma_weight": 1.0, **keys}
    cell = make_cell(model=target)
    cells = [cell, with_sigma(cell, input=0.1), with_sigma(cell, input=0.1)]
    losses = [row["test_loss"] for row in baselines.fit_cells(cells, CPU)]
    assert losses[0] != losses[1] == losses[2]


def test_a_factor_is_refused_where_it_is_text():
    config = config_of_cell(make_cell())
    with pytest.raises(UserError, match=r"model\.sigma\.hidden must be a finite number > 0, got true"):
        cell_from_config(config | {"model": config["model"] | {"sigma": {"hidden": True}}})
