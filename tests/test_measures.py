"""Every measure against its naive reference, in float64, one cell of a pack at a time."""

import json

import pytest
import reference
import torch
from cells import DIGITS, make_cell
from test_engine import CPU, ensemble_of, train_reference

from runner import data
from runner.data.draws import INPUTS
from runner.errors import UserError
from runner.layers import kernel_memory
from runner.measures import Snapshot, kernel_descent, spectrum, transfer_gain
from runner.measures.kernel import empirical_ntk, empirical_ntk_full
from runner.measures.ridge import kernel_ridge
from runner.training.preflight import inspect
from runner.training.train import train_pack

SUITE = {
    name: {"_target_": f"runner.measures.{name}"}
    for name in (
        "cka", "target_alignment", "linearization_error", "kernel_gd_error", "kernel_regression", "ntk_gain",
        "spectrum", "sharpness", "transfer_gain", "lambda_max",
    )
}  # fmt: skip
WITHOUT_GD = {name: entry for name, entry in SUITE.items() if name not in ("kernel_gd_error", "ntk_gain")}
SMALL_DIGITS = DIGITS | {"train_size": 10}


def suite(functions=SUITE, points=3):
    return {"points": points, "functions": functions}


COLUMNS = (
    "cka", "feature_cka", "target_alignment", "linearization_error", "kernel_gd_error", "ntk_gain",
    "kernel_regression_loss", "lambda_min", "effective_rank", "sharpness", "transfer_gain",
)  # fmt: skip
CASES = {
    "one output": {},
    "one hidden layer, relu": {"depth": 1, "model": {"activation": "relu"}},
    "ten classes": {"data": SMALL_DIGITS, "width": 6},
    "ten classes, centred": {"data": SMALL_DIGITS, "width": 6, "center_output": True},
    "bias": {"model": {"bias": True, "sigma_bias": 0.3}},
    "centred and rich": {"center_output": True, "gamma": 2.0},
    "rich, not centred": {"gamma": 3.0},
    "two classes": {"data": {"linear": 0.0, "standardize": False}},
    "beyond the critical lr": {"lr": 2.1, "steps": 5},
    "cross-entropy": {
        "data": SMALL_DIGITS,
        "width": 6,
        "loss": "cross_entropy",
        "measure": suite(WITHOUT_GD),
    },
}


def close(actual, expected, rel=1e-8):
    assert float(actual) == pytest.approx(float(expected), rel=rel, abs=1e-11)


def expected_measures(cell):
    """Naive values of every measure at the end of training, and those at init that ``cells`` keeps."""
    network = train_reference(cell)
    start = reference.Network(
        cell.parameterization, cell.width / cell.base_width, json.loads(cell.settings)["model"]["activation"],
        network.start[: len(network.roles)], network.start[len(network.roles) :],
    )  # fmt: skip
    dataset = data.load(json.loads(cell.settings)["data"])
    train, test, probe = dataset.train, dataset.test, dataset.probe
    x, other, p = (s.inputs.flatten(1) for s in (train, test, probe))
    both = torch.cat([x, other])
    kernels = network.trace_ntk(p), start.trace_ntk(p)
    features = [n.hidden(n.raw, p)[0][-1] for n in (network, start)]
    on_both = [n.hidden(n.raw, both)[0][-1] for n in (start, network)]
    regressions = [reference.kernel_ridge(n.trace_ntk(both), train.targets) for n in (network, start)]
    losses = [reference.mse(r, test.targets) for r in regressions]
    f = network.f(other, cell.center_output)
    low, condition, rank = reference.spectrum(network, x)
    probes = [reference.probe_error(h, len(x), train.second, test.second) for h in on_both]
    expected = {
        "cka": reference.centered_alignment(*kernels),
        "feature_cka": reference.centered_alignment(*(h @ h.T for h in features)),
        "target_alignment": reference.centered_alignment(kernels[0], probe.targets @ probe.targets.T),
        "linearization_error": reference.linearization_error(network, p),
        "kernel_regression_loss": losses[0],
        "kernel_regression_loss_init": losses[1],
        "kernel_interpolation_loss": reference.mse(
            reference.kernel_ridge(network.trace_ntk(both), train.targets, ridge=1e-10), test.targets
        ),
        "lambda_min": low,
        "condition_number": condition,
        "effective_rank": rank,
        "lambda_min_init": reference.spectrum(start, x)[0],
        "condition_number_init": reference.spectrum(start, x)[1],
        "sharpness": reference.sharpness(network, x, train.targets, cell.loss, cell.center_output),
        "transfer_gain": probes[0] - probes[1],
    }
    if cell.loss == "mse":
        lr = cell.lr / start.lambda_max(x).item()
        expected["kernel_gd_error"] = reference.kernel_gd_error(
            network, start, x, train.targets, p, lr, cell.steps, cell.center_output
        )
        expected["ntk_gain"] = losses[1] - reference.mse(f, test.targets)
    if dataset.task == "classification":
        for name, regression in zip(("", "_init"), regressions, strict=True):
            rate = reference.error_rate(regression, test.targets)
            expected[f"kernel_regression_error{name}"] = rate
    return expected


@pytest.mark.parametrize("name", ["ntk", "mean_field"])
@pytest.mark.parametrize("case", CASES)
def test_measures_equal_reference(case, name):
    settings = {"measure": suite(), "width": 8, **CASES[case]}
    # The cell is one of a pack, and shares its start with another.
    cell = make_cell(parameterization=name, base_width=4, **settings)
    others = [
        make_cell(parameterization="mup", seed=1, **settings),
        make_cell(parameterization=name, base_width=4, **settings | {"lr": 0.1, "gamma": 0.5}),
    ]
    row = train_pack([others[0], cell, others[1]], CPU).cells[1]
    for column, expected in expected_measures(cell).items():
        # Lanczos stops at a relative 1e-6; the smallest eigenvalue of the Gram matrix is exact to its norm.
        close(row[column], expected, {"sharpness": 1e-5}.get(column, 1e-6 if "condition" in column else 1e-7))


def test_nothing_has_moved_at_init():
    tables = train_pack([make_cell(measure=suite())], CPU)
    at_init = {name: values[0] for name, values in tables.trace.items()}
    for name in ("linearization_error", "kernel_gd_error", "transfer_gain"):
        assert at_init[name] == 0
    for name in ("cka", "feature_cka"):
        assert at_init[name] == pytest.approx(1)


def test_a_linear_model_is_its_own_linearization():
    functions = SUITE | {"ntk_change": {"_target_": "runner.measures.ntk_change"}}
    cell = make_cell(model={"_target_": "cells.LinearModel"}, measure=suite(functions), steps=100)
    row = train_pack([cell], CPU).cells[0]
    assert row["train_loss"] < 0.9 * row["initial_train_loss"]
    for name in ("linearization_error", "kernel_gd_error", "ntk_change"):
        assert abs(row[name]) < 1e-12
    assert row["cka"] == pytest.approx(1)
    assert "feature_cka" not in row
    assert "transfer_gain" not in row


@pytest.mark.parametrize("name", ["ntk", "mup"])
def test_a_deep_linear_network_errs_by_the_product_of_its_movements(name):
    """f = a x V W: the linearization misses a x dV dW, and nothing else."""
    cell = make_cell(parameterization=name, depth=1, model={"activation": "linear"}, measure=suite())
    network = train_reference(cell)
    x = data.load(json.loads(cell.settings)["data"]).probe.inputs
    first, second = (now - start for now, start in zip(network.raw, network.start, strict=True))
    scale = torch.tensor(network.scales("a")).prod()
    change = network.raw_outputs(x) - network.raw_outputs(x, network.start)
    row = train_pack([cell], CPU).cells[0]
    close(row["linearization_error"], (scale * x @ first @ second).norm() / change.norm())


def test_a_lazy_network_does_gradient_descent_in_its_kernel():
    """At tiny gamma the kernel stays, so every measure of what changed vanishes with gamma."""
    errors = {}
    for gamma in (1e-3, 1e-4):
        cell = make_cell(gamma=gamma, center_output=True, measure=suite(), steps=50)
        row = train_pack([cell], CPU).cells[0]
        errors[gamma] = row["linearization_error"], row["kernel_gd_error"]
    for coarse, fine in zip(errors[1e-3], errors[1e-4], strict=True):
        assert coarse < 0.01
        assert fine == pytest.approx(coarse / 10, rel=0.05)


def test_sharpness_of_a_linear_model_is_lambda_max():
    cell = make_cell(model={"_target_": "cells.LinearModel"}, measure=suite(), gamma=2.0)
    row = train_pack([cell], CPU).cells[0]
    close(row["sharpness"], row["lambda_max_init"], 1e-5)


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize("settings", [{"linear": 0.0, "standardize": False}, SMALL_DIGITS])
def test_the_critical_lr_is_that_of_the_full_spectrum(settings, loss):
    """The estimate behind lr_unit=sharpness, for one output and for ten."""
    for name in ("sp", "mup"):
        cell = make_cell(parameterization=name, data=settings, loss=loss, measure=suite(WITHOUT_GD), steps=1)
        row = train_pack([cell], CPU).cells[0]
        close(row["lambda_min_init"] * row["condition_number_init"], row["lambda_max_init"], 1e-6)
        close(row["lr_sharpness"], cell.lr)


@pytest.mark.parametrize("name", ["mup", "ntk"])
def test_the_suite_does_not_depend_on_the_pack(name):
    cells = [
        make_cell(parameterization=p, lr=lr, gamma=gamma, seed=seed, measure=suite(), width=8)
        for p in (name, "sp") for lr in (0.2, 0.6) for gamma in (0.5, 2.0) for seed in (0, 1)
    ]  # fmt: skip
    together = train_pack(cells, CPU).cells
    for place in (0, 3, 6):
        alone = train_pack([cells[place]], CPU).cells[0]
        for column in COLUMNS:
            rel = 1e-5 if column in ("sharpness", "condition_number", "lambda_min") else 1e-8
            close(together[place][column], alone[column], rel)


def test_parts_of_a_pack_give_what_the_pack_gives():
    ensemble = ensemble_of([make_cell(seed=seed) for seed in range(5)])
    whole = spectrum(*(Snapshot(ensemble, 0),) * 2).trace
    with kernel_memory(0.03):
        parts = spectrum(*(Snapshot(ensemble, 0),) * 2).trace
    for column, value in whole.items():
        torch.testing.assert_close(parts[column], value)


@pytest.mark.parametrize("settings", [{}, SMALL_DIGITS])
def test_the_spectrum_of_the_trace_is_that_of_the_mean_over_outputs(settings):
    trace = {"spectrum": {"_target_": "runner.measures.spectrum", "kernel": "trace"}}
    cell = make_cell(data=settings, width=6, measure=suite(trace))
    row = train_pack([cell], CPU).cells[0]
    network = train_reference(cell)
    x = data.load(json.loads(cell.settings)["data"]).train.inputs.flatten(1)
    values = torch.linalg.eigvalsh(network.trace_ntk(x)) / len(x)
    share = values / values.sum()
    close(row["lambda_min"], values[0], 1e-7)
    close(row["condition_number"], values[-1] / values[0], 1e-6)
    close(row["effective_rank"], torch.exp(-(share * share.log()).sum()))
    full = train_pack([make_cell(data=settings, width=6, measure=suite())], CPU).cells[0]
    assert full["lambda_min"] <= row["lambda_min"] * (1 + 1e-9)
    assert (full["lambda_min"] < 0.999 * row["lambda_min"]) == bool(settings)  # the same for one output alone


def test_an_ill_conditioned_spectrum_survives_float32():
    """Samples that nearly coincide: the kernel in float32 has lost the eigenvalue by which they differ."""
    ensemble = ensemble_of([make_cell(dtype="float32", width=32, model={"activation": "tanh"})])
    x = ensemble.inputs["train"]
    x[:, 1] = x[:, 0] + 1e-3 * x[:, 1]
    start = Snapshot(ensemble, 0)
    found = spectrum(start, start, kernel="trace").trace
    parameters = {path: value.double() for path, value in start.parameters.items()}
    exact = torch.linalg.eigvalsh(empirical_ntk(ensemble.model, parameters, x.double())) / x.shape[1]
    single = torch.linalg.eigvalsh(empirical_ntk(ensemble.model, start.parameters, x)) / x.shape[1]
    condition = float(exact[0, -1] / exact[0, 0])
    assert condition > 1e6
    close(found["lambda_min"][0], exact[0, 0], 4 * torch.finfo(torch.float32).eps * condition**0.5)
    assert abs(single[0, 0] / exact[0, 0] - 1) > 0.01


def test_sharpness_at_init_is_taken_once_for_cells_that_start_alike():
    grid = [(seed, lr, gamma) for seed in (0, 1) for lr in (0.2, 0.6) for gamma in (0.5, 2.0)]
    cells = [make_cell(seed=seed, lr=lr, gamma=gamma, measure=suite()) for seed, lr, gamma in grid]
    trace = train_pack(cells, CPU).trace
    at_init = [value for value, step in zip(trace["sharpness"], trace["step"], strict=True) if step == 0]
    for place in (0, 1, 3, 6):
        close(at_init[place], train_pack([cells[place]], CPU).trace["sharpness"][0])
    assert at_init[0] != pytest.approx(at_init[1], rel=1e-3)  # of another gamma


@pytest.mark.parametrize("what", ["targets", "outputs"])
@pytest.mark.parametrize("data", [{}, SMALL_DIGITS])
@pytest.mark.parametrize("megabytes", [256, 0.01])
def test_descent_under_the_kernel_is_that_of_its_eigenbasis(what, data, megabytes):
    """Thousands of steps need every mode; parts of a pack may need different numbers of them."""
    start = Snapshot(ensemble_of([make_cell(seed=seed, data=data, steps=4000) for seed in (0, 1, 2)]), 0)
    inputs = start.ensemble.inputs
    count, x = inputs["train"].shape[1], torch.cat([inputs["train"], inputs["probe"]], 1)
    with kernel_memory(megabytes):
        values, components, pushed = kernel_descent.kernel_modes(start, what)
    full = empirical_ntk_full(start.ensemble.model, start.parameters, x, count) / count
    full = full.permute(0, 2, 1, 4, 3)  # samples before outputs
    outputs = full.shape[2]
    train, probe = (part.reshape(3, -1, count * outputs) for part in (full[:, :count], full[:, count:]))
    vector = (
        start.ensemble.targets["train"].expand(3, -1, -1) if what == "targets" else start.raw_outputs("train")
    )
    for cell in range(3):
        eigenvalues, basis = torch.linalg.eigh(train[cell])
        lr = 0.5 / eigenvalues[-1:]
        for step in (1, 20, 4000):
            factor = (1 - (1 - lr * eigenvalues) ** step) / eigenvalues
            expected = probe[cell] @ (basis @ (factor * (basis.T @ vector[cell].flatten())))
            found = pushed[cell] @ (
                components[cell] * kernel_descent.geometric_sum(values[cell], lr, step)[0]
            )
            torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)


def test_measures_survive_a_neighbour_that_diverges():
    wild, tame = make_cell(lr=500.0, measure=suite()), make_cell(measure=suite())
    gone, row = train_pack([wild, tame], CPU).cells
    alone = train_pack([tame], CPU).cells[0]
    close(row["kernel_gd_error"], alone["kernel_gd_error"])
    assert gone["status"] == "diverged"
    assert "kernel_gd_error" not in gone
    close(gone["lambda_min_init"], row["lambda_min_init"])
    close(gone["kernel_regression_loss_init"], row["kernel_regression_loss_init"])


def test_schedules():
    functions = {
        "cka": {"_target_": "runner.measures.cka"},
        "spectrum": {"_target_": "runner.measures.spectrum", "at": "ends"},
        "ntk_limit_distance": {"_target_": "runner.measures.ntk_limit_distance", "at": "init"},
    }
    cell = make_cell(model={"activation": "erf"}, measure=suite(functions, points=5))
    tables = train_pack([cell], CPU)
    measured = {name: [v is not None for v in values] for name, values in tables.trace.items()}
    count = len(tables.trace["step"])
    assert count > 3
    assert measured["cka"] == [True] * count
    assert measured["lambda_min"] == [True, *[False] * (count - 2), True]
    assert measured["ntk_limit_distance"] == [True, *[False] * (count - 1)]
    row = tables.cells[0]
    assert row["ntk_limit_distance"] == tables.trace["ntk_limit_distance"][0]
    assert row["lambda_min"] == tables.trace["lambda_min"][-1]
    assert row["lambda_min_init"] == tables.trace["lambda_min"][0]


def test_float32_agrees_with_float64():
    low, high = (
        train_pack([make_cell(dtype=d, measure=suite())], CPU).cells[0] for d in ("float32", "float64")
    )
    for name in (
        "cka", "feature_cka", "target_alignment", "linearization_error", "kernel_gd_error", "sharpness",
        "kernel_regression_loss", "lambda_min", "condition_number", "effective_rank",
    ):  # fmt: skip
        assert low[name] == pytest.approx(high[name], rel=1e-2), name


TASKS = [
    (name, inputs) for name in ("xor", "single_index", "staircase", "parity", "teacher") for inputs in INPUTS
]


@pytest.mark.parametrize(("name", "inputs"), [*TASKS, ("digits", None)])
def test_every_task_has_a_second_labelling_of_both_signs(name, inputs):
    given = {"inputs": inputs} if inputs else {}
    dataset = data.load({"_target_": f"runner.data.{name}", "train_size": 300, "test_size": 200, **given})
    for split in (dataset.train, dataset.test):
        assert set(split.second.flatten().tolist()) == {-1.0, 1.0}
        assert abs(split.second.mean()) < 0.5
        if dataset.task == "classification":
            assert not torch.equal(split.second, split.targets)


def test_transfer_needs_second_labels():
    ensemble = ensemble_of([make_cell()])
    ensemble.second = {}
    start = Snapshot(ensemble, 0)
    assert not transfer_gain(start, start).trace


@pytest.mark.parametrize(
    ("measure", "changes", "message"),
    [
        (
            "kernel_gd_error",
            {"batch_size": 8},
            "batch_size must be null for the measure kernel_gd_error, got 8",
        ),
        (
            "kernel_gd_error",
            {"data": DIGITS, "loss": "cross_entropy"},
            "loss must be mse for the measure kernel_gd_error",
        ),
        ("ntk_gain", {"data": DIGITS, "loss": "cross_entropy"}, "loss must be mse for the measure ntk_gain"),
        (
            "kernel_gd_error",
            {"optimizer": {"_target_": "runner.optim.Other"}},
            "optimizer._target_ must be importable",
        ),
        (
            "cka",
            {"data": DIGITS | {"probe_size": 9}},
            "data.probe_size must be at least 10 .* 10 outputs, got 9",
        ),
        ("linearization_error", {"data": {"probe_size": 1}}, "data.probe_size must be at least 2"),
        ("spectrum", {"data": DIGITS | {"train_size": 500}}, "data.train_size must be at most 409"),
        (
            "spectrum",
            {"kernel": "ful"},
            "measure.functions.spectrum.kernel .*full, trace.*did you mean 'full'",
        ),
        ("kernel_regression", {"data": {"train_size": 4}}, "data.train_size must be at least 5"),
    ],
)
def test_measures_without_a_meaning_are_refused(measure, changes, message):
    functions = {measure: {"_target_": f"runner.measures.{measure}"}}
    if kernel := changes.get("kernel"):
        functions[measure]["kernel"], changes = kernel, {}
    with pytest.raises(UserError, match=message):
        inspect(make_cell(measure=suite(functions), **changes))


def test_the_trace_of_many_outputs_may_have_more_samples():
    trace = {"spectrum": {"_target_": "runner.measures.spectrum", "kernel": "trace"}}
    inspect(make_cell(data=DIGITS | {"train_size": 500}, measure=suite(trace)))


def test_a_kernel_that_rounding_made_indefinite_is_regressed_on_as_its_positive_part():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 30, 3, generator=generator, dtype=torch.float64)
    targets = x[:, :20, :1] + 2 * x[:, :20, 1:2]
    kernel = (x @ x[:, :20].mT).float()  # of rank 3
    square = kernel[:, :20].double()
    assert (torch.linalg.eigvalsh((square + square.mT) / 2)[:, 0] < 0).all()
    predicted = kernel_ridge(kernel, targets)
    torch.testing.assert_close(predicted, x[:, 20:, :1] + 2 * x[:, 20:, 1:2], rtol=1e-4, atol=1e-4)


def test_a_schedule_must_exist():
    functions = {"cka": {"_target_": "runner.measures.cka", "at": "end"}}
    with pytest.raises(UserError, match=r"measure.functions.cka.at must be one of .*did you mean 'ends'"):
        inspect(make_cell(measure=suite(functions)))


def test_networks_that_explode_or_die_do_not_end_their_pack():
    for sigma in (1e6, 1e-20):
        model = {"activation": "relu", "sigma_weight": sigma}
        cell = make_cell(model=model, measure=suite(), depth=8, steps=2, dtype="float32")
        row = train_pack([cell], CPU).cells[0]
        assert row["status"] in ("ok", "diverged")
