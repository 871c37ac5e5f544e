"""Gradient flow against scipy and closed forms, and how far gradient descent is from it, in float64."""

import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from cells import DIGITS, make_cell
from scipy.integrate import solve_ivp
from test_checkpoint import StopAt, values
from test_lr_factors import FACTORS
from torch.func import functional_call, grad

from runner import cli, data
from runner.errors import UserError
from runner.layers import parameters_of
from runner.models import descent
from runner.models.descent import AutogradDescent, ChainDescent, FlowDescent
from runner.models.ensemble import Ensemble
from runner.numerics import losses
from runner.numerics.runge_kutta import DormandPrince, Pace
from runner.optim import Flow
from runner.planning.costs import Costs
from runner.planning.machine import USUAL
from runner.preemption import Stopped
from runner.scaling.parameterization import Scaling
from runner.training.checkpoint import Checkpoint
from runner.training.preflight import inspect
from runner.training.run import Run
from runner.training.train import train_pack

CPU = torch.device("cpu")
SMALL = {"lr_unit": "absolute", "steps": 8, "width": 8, "base_width": 4}
DISTANCE = {"points": 4, "functions": {"flow_distance": {"_target_": "runner.measures.flow_distance"}}}


def flow(**keys):
    return {"_target_": "runner.optim.Flow", **keys}


def run_of(cells):
    sections = json.loads(cells[0].settings)
    return Run(cells, sections, data.load(sections["data"]), CPU)


def followed(cells, steps=None):
    """Follow the flow of a pack; returns the run."""
    run = run_of(cells)
    for step in range(cells[0].steps if steps is None else steps):
        run.advance(step)
    return run


def naive(cell, lr):
    """Weights of one cell after its steps along the flow, by scipy: every weight at its own rate."""
    sections = json.loads(cell.settings)
    ensemble = Ensemble([cell], sections["model"], data.load(sections["data"]), CPU)
    if cell.center_output:
        ensemble.center({"train": ensemble.model(ensemble.inputs["train"]).detach()})
    start = {path: parameter.detach().clone() for path, parameter in ensemble.parameters.items()}
    scaling, decay = Scaling([cell]), sections["optimizer"].get("weight_decay", 0.0)
    rates = {p: scaling.lr(spec.role, "sgd").item() for p, spec, _, _ in parameters_of(ensemble.model)}

    def loss(weights):
        f = ensemble.function(functional_call(ensemble.model, weights, (ensemble.inputs["train"],)), "train")
        ridge = sum((w**2).sum() / rates[path] for path, w in weights.items())
        return losses.LOSSES[cell.loss](f, ensemble.targets["train"]).sum() + decay / 2 * ridge

    def parts(flat):
        pieces = torch.from_numpy(flat.copy()).split([value.numel() for value in start.values()])
        return {path: piece.view_as(start[path]) for path, piece in zip(start, pieces, strict=True)}

    def slope(time, flat):
        gradients = grad(loss)(parts(flat))
        return np.concatenate([-(cell.gamma**2) * rates[path] * gradients[path].flatten() for path in start])

    flat = torch.cat([value.flatten() for value in start.values()]).numpy()
    found = solve_ivp(slope, (0, lr * cell.steps), flat, "DOP853", rtol=1e-9, atol=1e-12)
    return start, parts(found.y[:, -1])


def relative(actual, expected, start):
    """Distance of two points over that which the second has come."""
    paths = list(expected)
    error, way = (
        torch.cat([(point[path] - expected[path]).detach().flatten() for path in paths]).norm()
        for point in (actual, start)
    )
    return float(error / way)


CASES = {
    "sp": {"parameterization": "sp"},
    "ntk, rich, centred": {"gamma": 2.0, "center_output": True},
    "mup": {"parameterization": "mup"},
    "mean_field, factors, decay": {
        "parameterization": "mean_field", "optimizer": flow(weight_decay=0.3, **FACTORS),
    },
    "cross-entropy, ten classes, bias": {
        "data": DIGITS, "loss": "cross_entropy", "model": {"bias": True, "sigma_bias": 0.3},
    },
    "resmlp": {"model": {"_target_": "runner.models.ResidualMLP", "activation": "gelu"}},
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_flow_is_scipys(case):
    changes = SMALL | {"optimizer": flow()} | CASES[case]
    cells = [make_cell(lr=lr, seed=seed, **changes) for lr, seed in ((0.3, 0), (0.05, 1))]
    run = followed(cells)
    for place, cell in enumerate(cells):
        start, expected = naive(cell, cell.lr)
        actual = {path: value[place : place + 1].detach() for path, value in run.ensemble.parameters.items()}
        assert relative(actual, expected, start) < 1e-5
    assert (run.optimizer.reported()["flow_error"] < 1e-4).all()


def test_a_tighter_tolerance_is_nearer():
    start, expected = naive(make_cell(**SMALL, lr=1.0, optimizer=flow()), 1.0)
    errors = []
    for tolerance in (1e-3, 1e-5, 1e-7):
        run = followed([make_cell(**SMALL, lr=1.0, optimizer=flow(tolerance=tolerance, max_substeps=1000))])
        errors.append(relative(dict(run.ensemble.parameters), expected, start))
        # The estimate is that of the solution of lower order.
        assert errors[-1] < 3 * run.optimizer.reported()["flow_error"].item()
    assert errors[0] > 10 * errors[1] > 100 * errors[2]


@pytest.mark.parametrize("gamma", [1.0, 3.0])
def test_a_linear_model_decays_as_its_kernel(gamma):
    """f(t) - y = exp(-Theta t / N) (f_0 - y), at each step and whatever gamma."""
    keys = {"model": {"_target_": "cells.LinearModel"}, "lr": 0.7, "lr_unit": "sharpness", "gamma": gamma}
    run = followed([make_cell(optimizer=flow(), steps=12, **keys)], steps=0)
    ensemble = run.ensemble
    x = ensemble.inputs["train"][0].flatten(1)
    y = ensemble.targets["train"][0]
    kernel = x @ x.T * (ensemble.model.output.weight_multiplier**2).item()  # the factor of f and of lr cancel
    values, vectors = torch.linalg.eigh(kernel / len(x))
    residual = ensemble.function(ensemble.model(ensemble.inputs["train"]), "train").detach()[0] - y
    for step in range(12):
        run.advance(step)
        decay = torch.exp(-values * run.ensemble.lr.item() * (step + 1))
        expected = vectors @ (decay[:, None] * (vectors.T @ residual))
        found = ensemble.function(ensemble.model(ensemble.inputs["train"]), "train").detach()[0] - y
        assert (found - expected).norm() < 1e-6 * residual.norm()


def test_the_loss_is_right_to_a_millionth_by_default():
    for keys in ({"lr": 0.5}, {"lr": 2.0}, {"lr": 0.5, "data": DIGITS}):
        exact, ours = (
            followed([make_cell(optimizer=flow(tolerance=tolerance), steps=10, **keys)])
            for tolerance in (1e-8, 1e-5)
        )
        found = [
            float(run.loss(run._now(10).outputs("train"), run.ensemble.targets["train"]))
            for run in (exact, ours)
        ]
        assert found[1] == pytest.approx(found[0], abs=2e-6 * float(exact.initial_loss))


def test_single_precision_is_bounded():
    keys = {"lr": 0.5, "steps": 60, "data": DIGITS}
    exact, single = (
        train_pack([make_cell(dtype=dtype, optimizer=flow(), **keys)], CPU).cells[0]
        for dtype in ("float64", "float32")
    )
    assert single["train_loss"] == pytest.approx(exact["train_loss"], abs=1e-5 * exact["initial_train_loss"])


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_a_cell_does_not_depend_on_its_pack(activation):
    """Others take from one to dozens of substeps."""
    keys = {"optimizer": flow(), "steps": 3, "model": {"activation": activation}, "measure": {"points": 3}}
    cells = [make_cell(lr=lr, seed=seed, **keys) for lr in (0.01, 3.0) for seed in (0, 1)]
    together = train_pack(cells, CPU).cells
    for cell, row in list(zip(cells, together, strict=True))[::2]:
        alone = train_pack([cell], CPU).cells[0]
        for column in ("train_loss", "test_loss", "flow_error", "param_movement", "peak_loss_ratio"):
            # What a relu decides at its kink is decided in the last digit.
            assert row[column] == pytest.approx(alone[column], rel=1e-9 if activation == "tanh" else 1e-5)


def test_autograd_and_the_chain_are_one_flow():
    cells = [make_cell(lr=lr, optimizer=flow(weight_decay=0.1)) for lr in (0.1, 2.0)]
    runs = followed(cells, 0), followed(cells, 0)
    ensemble, optimizer = runs[1].ensemble, runs[1].optimizer
    inner = AutogradDescent(ensemble, optimizer, ensemble.origin)
    runs[1].descent = FlowDescent(ensemble, optimizer, inner)
    for step in range(10):
        for run in runs:
            run.advance(step)
    assert isinstance(runs[0].descent, FlowDescent)
    assert isinstance(runs[0].descent._descent, ChainDescent)
    for path, value in runs[0].ensemble.parameters.items():
        torch.testing.assert_close(runs[1].ensemble.parameters[path], value, rtol=1e-9, atol=1e-11)


def test_steps_of_the_flow_stand_beside_those_of_descent():
    """Small steps of both are the same; the loss of the flow falls at any lr."""
    rows = {
        name: train_pack([make_cell(lr=1e-3, optimizer=section)], CPU).cells[0]
        for name, section in (("flow", flow()), ("sgd", {"_target_": "runner.optim.SGD"}))
    }
    assert rows["flow"]["lr_absolute"] == rows["sgd"]["lr_absolute"]
    moved = [row["initial_train_loss"] - row["train_loss"] for row in rows.values()]
    assert moved[0] == pytest.approx(moved[1], rel=1e-2)
    assert "flow_error" not in rows["sgd"]
    wide = train_pack([make_cell(lr=20.0, optimizer=flow())], CPU).cells[0]
    assert wide["peak_loss_ratio"] == pytest.approx(1.0, rel=1e-12)  # the steps may sum in another order


def test_a_flow_too_stiff_is_diverged_and_its_pack_goes_on():
    cells = [make_cell(lr=lr, optimizer=flow(max_substeps=20)) for lr in (0.1, 1e5)]
    rows = train_pack(cells, CPU).cells
    assert [row["status"] for row in rows] == ["ok", "diverged"]
    assert rows[1]["diverged_step"] == 1
    assert rows[0]["train_loss"] == pytest.approx(train_pack(cells[:1], CPU).cells[0]["train_loss"])
    # The same of the flow that descent is compared with: descent itself is not to diverge.
    stiff = DISTANCE | {
        "functions": {"flow_distance": DISTANCE["functions"]["flow_distance"] | {"max_substeps": 1}}
    }
    row = train_pack([make_cell(lr=1.9, measure=stiff)], CPU).cells[0]
    assert row["status"] == "ok"
    assert row["flow_distance"] > 0


def test_a_jump_of_the_slope_is_passed():
    """y' = 1 before y = 0.5 and -1 beyond: the flow stays there, and the error says that it is uncertain."""
    state, slope = torch.zeros(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    pace = Pace.begin(torch.zeros(1))
    solver = DormandPrince(
        [state], [slope], pace, lambda parts: next(iter(parts)).flatten(1).norm(dim=1),
        tolerance=1e-6, least=0.01, rounding=1e-16,
    )  # fmt: skip

    def evaluate():
        slope.copy_(torch.where(state < 0.5, 1.0, -1.0))
        return torch.zeros(1)

    solver.advance(evaluate)
    assert state.item() == pytest.approx(0.5, abs=0.01)
    assert 0.001 < pace.error.item() < 0.16


def test_a_stopped_flow_goes_on_bit_for_bit(tmp_path, monkeypatch):
    monkeypatch.setattr(descent, "AT_ONCE", 1)  # stopped between any two steps
    for name, section, measure in (
        ("flow", flow(), {"points": 6}),
        ("distance", {"_target_": "runner.optim.SGD"}, DISTANCE | {"points": 6}),
    ):
        cells = [
            make_cell(lr=lr, seed=seed, optimizer=section, measure=measure)
            for lr in (0.1, 1.5)
            for seed in (0, 1)
        ]
        expected = values(train_pack(cells, CPU))
        before = 0
        for step in (3, 9):
            checkpoint = Checkpoint(tmp_path / name, cells, CPU, stop=StopAt(step - before))
            with pytest.raises(Stopped):
                train_pack(cells, CPU, checkpoint=checkpoint)
            before = step
        assert values(train_pack(cells, CPU, checkpoint=Checkpoint(tmp_path / name, cells, CPU))) == expected


def test_a_stop_rule_and_fewer_cells():
    """A cell ends at its level, with its own numbers, and the others go on."""
    keys = {"stop": {"train_loss": 0.3}, "steps": 40}
    for section, measure in ((flow(), {"points": 6}), ({"_target_": "runner.optim.SGD"}, DISTANCE)):
        cells = [make_cell(lr=lr, optimizer=section, measure=measure, **keys) for lr in (1.0, 0.05, 0.3)]
        rows = train_pack(cells, CPU).cells
        assert [row.get("stopped_step") is not None for row in rows] == [True, False, True]
        for cell, row in zip(cells, rows, strict=True):
            alone = train_pack([cell], CPU).cells[0]
            assert row["flow_error"] == pytest.approx(alone["flow_error"], rel=1e-6)
            assert row["train_loss"] == pytest.approx(alone["train_loss"])


def test_the_distance_is_that_of_two_runs():
    """From what the optimizers sgd and flow reach, and not from the steps that are measured."""
    keys = {"lr": 0.8, "gamma": 2.0, "center_output": True, "steps": 20, "parameterization": "mup"}
    runs = [followed([make_cell(**keys, optimizer=o)]) for o in (flow(), {"_target_": "runner.optim.SGD"})]
    start = runs[0].start
    f = [run._now(20).raw_outputs("probe") for run in runs]
    expected = ((f[1] - f[0]).norm() / (f[0] - start.raw_outputs("probe")).norm()).item()
    weights = [dict(run.ensemble.parameters) for run in runs]
    for points in (2, 9):
        row = train_pack([make_cell(**keys, measure=DISTANCE | {"points": points})], CPU)
        assert row.trace["flow_distance"][0] == row.trace["flow_weight_distance"][0] == 0
        assert row.cells[0]["flow_distance"] == pytest.approx(expected, rel=1e-9)
        assert row.cells[0]["flow_weight_distance"] == pytest.approx(
            relative(weights[1], weights[0], start.parameters), rel=1e-9
        )
        assert 0 < row.cells[0]["flow_error"] < 1e-4


def test_the_distance_falls_with_lr_and_grows_beyond_the_edge():
    distances = []
    for lr in (0.4, 0.2, 0.1, 0.05):
        cell = make_cell(lr=lr, steps=round(4 / lr), measure=DISTANCE)
        distances.append(train_pack([cell], CPU).cells[0]["flow_distance"])
    ratios = [a / b for a, b in pairwise(distances)]
    assert ratios == pytest.approx([2.0] * 3, rel=0.05)
    assert distances[-1] < 0.01
    below, beyond = (
        train_pack([make_cell(lr=lr, steps=30, measure=DISTANCE)], CPU).trace["flow_distance"][-1]
        for lr in (0.5, 2.3)
    )
    assert beyond > 10 * below


NETS = {
    "cnn": {"_target_": "runner.models.CNN", "activation": "tanh", "stride": 2},
    "transformer": {
        "_target_": "runner.models.Transformer",
        "activation": "gelu",
        "heads": 2,
        "patch_size": 4,
    },
}


@pytest.mark.parametrize("net", NETS)
def test_other_networks(net):
    keys = {"model": NETS[net], "data": DIGITS, "steps": 6, "width": 8, "lr": 0.3}
    followed_flow = train_pack([make_cell(**keys, optimizer=flow())], CPU).cells[0]
    distance = train_pack([make_cell(**keys, measure=DISTANCE)], CPU).cells[0]
    assert followed_flow["train_loss"] < followed_flow["initial_train_loss"]
    assert 0 < distance["flow_distance"] < 0.5
    assert followed_flow["flow_error"] == pytest.approx(distance["flow_error"], rel=1e-6)


REFUSED = {
    "optimizer.clip must be null for gradient flow, got 1": {"optimizer": flow(clip=1.0)},
    "optimizer.schedule must be constant": {"optimizer": flow(schedule="cosine")},
    "optimizer.warmup must be 0": {"optimizer": flow(warmup=3)},
    "batch_size must be null for gradient flow, got 8": {"optimizer": flow(), "batch_size": 8},
    "data.online must be false for gradient flow": {
        "optimizer": flow(), "batch_size": 8, "data": {"online": True},
    },
    "optimizer.tolerance must be a number > 0": {"optimizer": flow(tolerance=0)},
    "optimizer.tolerance must be at most 0.1": {"optimizer": flow(tolerance=1)},
    "optimizer.max_substeps must be an integer >= 1, got 0": {"optimizer": flow(max_substeps=0)},
    "optimizer.momentum must be one of": {"optimizer": flow(momentum=0.9)},
    "optimizer must be plain gradient descent for the measure flow_distance": {
        "measure": DISTANCE, "optimizer": {"_target_": "runner.optim.SGD", "momentum": 0.9},
    },
    "optimizer must be plain gradient descent for the measure flow_distance, got runner.optim.Flow": {
        "measure": DISTANCE, "optimizer": flow(),
    },
    "batch_size must be null for the measure flow_distance": {"measure": DISTANCE, "batch_size": 8},
    "measure.functions.flow_distance.tolerance must be a number > 0": {
        "measure": {
            "functions": {"flow_distance": {"_target_": "runner.measures.flow_distance", "tolerance": -1}}
        },
    },
}  # fmt: skip


@pytest.mark.parametrize("message", REFUSED)
def test_what_has_no_flow_is_refused_before_training(message):
    with pytest.raises(UserError) as error:
        inspect(make_cell(**REFUSED[message]))
    assert str(error.value).startswith(message)


def test_the_planner_counts_evaluations():
    plain, along, beside = (
        (cell, inspect(cell))
        for cell in (make_cell(), make_cell(optimizer=flow()), make_cell(measure=DISTANCE))
    )
    assert plain[1].evaluations == 1
    assert along[1].evaluations == Flow.evaluations > 6
    costs = [float(Costs(*pair, USUAL).seconds(50)) for pair in (plain, along, beside)]
    assert costs[1] > costs[0]
    few = make_cell(measure={"points": 4, "functions": {}})
    assert costs[2] > float(Costs(few, inspect(few), USUAL).seconds(50))


def test_from_the_shell(tmp_path, capfd):
    common = ["width=8", "depth=1", "lr_unit=sharpness", "steps=5", "model.activation=tanh", "workers=1"]
    data_keys = ["data=xor", "data.train_size=16", "data.test_size=8", "data.probe_size=8"]
    for name, keys in (("flow", ["optimizer=flow"]), ("gd", ["measure=[basic,flow_distance,sharpness]"])):
        store = tmp_path / name
        assert cli.main(["sweep", *common, *data_keys, *keys, f"store={store}", "lr=0.1,1"]) == 0
    capfd.readouterr()
