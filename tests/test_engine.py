"""The ensemble against the naive reference: function, kernel, training, measures, one cell at a time."""

import json
from dataclasses import replace

import pytest
import reference
import torch
from cells import DIGITS, make_cell
from tolerance import TOLERANCE

from runner import data, layers
from runner.data.order import BatchOrder
from runner.errors import UserError
from runner.measures import Snapshot, empirical_ntk, lambda_max
from runner.measures.kernel import empirical_ntk_full
from runner.measures.schedule import measuring_steps
from runner.models.ensemble import Ensemble
from runner.training.preflight import inspect
from runner.training.train import train_pack

CPU = torch.device("cpu")
EXACT = TOLERANCE["cpu", "float64"]
NAMES = ["sp", "ntk", "mean_field", "mup"]


def ensemble_of(cells):
    sections = json.loads(cells[0].settings)
    return Ensemble(cells, sections["model"], data.load(sections["data"]), CPU)


def reference_of(ensemble, position):
    """The reference network with the raw parameters of one cell of an ensemble."""
    cell = ensemble.cells[position]
    by_kind = {"weight": [], "bias": []}
    for path, parameter in ensemble.parameters.items():
        by_kind[path.rpartition(".")[2]].append(parameter[position].detach())
    activation = json.loads(cell.settings)["model"]["activation"]
    return reference.Network(
        cell.parameterization,
        cell.width / cell.base_width,
        activation,
        by_kind["weight"],
        by_kind["bias"],
        cell.gamma,
    )


def train_reference(cell, split_steps=None):
    """Train one cell naively: the network before and after."""
    ensemble = ensemble_of([cell])
    network = reference_of(ensemble, 0)
    sections = json.loads(cell.settings)
    train = data.load(sections["data"]).train
    lr = cell.lr
    if cell.lr_unit == "sharpness":
        lr = lr / network.lambda_max(train.inputs.flatten(1)).item()
    batches = None
    if cell.batch_size:
        order = BatchOrder([cell.seed], len(train), cell.batch_size, CPU)
        batches = [order.next().places[0] for _ in range(cell.steps)]
    network.train(
        train.inputs.flatten(1), train.targets, lr, cell.steps, cell.loss, cell.center_output, batches
    )
    return network


def close(actual, expected, rel=EXACT):
    torch.testing.assert_close(
        torch.as_tensor(actual, dtype=torch.float64),
        torch.as_tensor(expected, dtype=torch.float64),
        rtol=rel,
        atol=rel,
    )


CASES = {
    "one output": {},
    "ten outputs": {"data": DIGITS},
    "bias": {"model": {"bias": True, "sigma_bias": 0.3}},
    "bias, ten outputs": {"data": DIGITS, "model": {"bias": True, "sigma_bias": 0.3}},
    "one hidden layer": {"depth": 1},
    "three hidden layers, relu": {"depth": 3, "model": {"activation": "relu"}},
    "erf": {"model": {"activation": "erf"}},
    "linear": {"model": {"activation": "linear"}},
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", CASES)
def test_function_and_kernels_equal_full_jacobian(case, name):
    cells = [make_cell(parameterization=name, seed=seed, base_width=4, **CASES[case]) for seed in (0, 1)]
    ensemble = ensemble_of(cells)
    x = ensemble.inputs["probe"]
    trace = empirical_ntk(ensemble.model, ensemble.parameters, x)
    full = empirical_ntk_full(ensemble.model, ensemble.parameters, x)
    top = lambda_max(*(Snapshot(ensemble, 0),) * 2).trace["lambda_max"]
    for position in range(2):
        network = reference_of(ensemble, position)
        flat = x[0].flatten(1)
        close(ensemble.model(x)[position].detach(), network.raw_outputs(flat))
        close(trace[position], network.trace_ntk(flat))
        close(full[position].permute(1, 0, 3, 2), network.full_ntk(flat))
        close(top[position], network.lambda_max(ensemble.inputs["train"][0].flatten(1)), rel=1e-7)


TRAINED = {
    "full batch": {},
    "minibatches": {"batch_size": 8, "lr": 0.2},
    "centred and rich": {"center_output": True, "gamma": 2.0},
    "cross-entropy, ten classes": {"data": DIGITS, "loss": "cross_entropy"},
    "cross-entropy, one output": {
        "data": {"linear": 0.0, "standardize": False},
        "loss": "cross_entropy",
        "gamma": 0.5,
    },
    "bias": {"model": {"bias": True}},
    "absolute lr": {"lr_unit": "absolute", "lr": 0.01},
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", TRAINED)
def test_training_and_measures_equal_reference(case, name):
    cell = make_cell(parameterization=name, base_width=4, **TRAINED[case])
    tables = train_pack([cell], CPU)
    row = tables.cells[0]
    network = train_reference(cell)
    dataset = data.load(json.loads(cell.settings)["data"])
    loss = reference.LOSSES[cell.loss]
    for split in ("train", "test"):
        samples = getattr(dataset, split)
        f = network.f(samples.inputs.flatten(1), cell.center_output)
        close(row[f"{split}_loss"], loss(f, samples.targets), rel=1e-8)
    probe = dataset.probe.inputs.flatten(1)
    start = reference.Network(
        cell.parameterization, cell.width / cell.base_width, json.loads(cell.settings)["model"]["activation"],
        network.start[: len(network.roles)], network.start[len(network.roles) :],
    )  # fmt: skip
    now_kernel, start_kernel = network.trace_ntk(probe), start.trace_ntk(probe)
    now_features, start_features = network.hidden(network.raw, probe)[0], start.hidden(start.raw, probe)[0]
    close(row["param_movement"], reference.movement(network.raw, network.start), rel=1e-8)
    close(row["ntk_change"], reference.ntk_change(now_kernel, start_kernel), rel=1e-8)
    close(row["kernel_distance"], reference.kernel_distance(now_kernel, start_kernel), rel=1e-8)
    close(row["feature_movement"], reference.feature_movement(now_features[-1], start_features[-1]), rel=1e-8)
    last = [i for i, step in enumerate(tables.layers["step"]) if step == cell.steps]
    for layer, i in enumerate(last):
        weight, origin = network.raw[layer], network.start[layer]
        close(tables.layers["movement_frobenius"][i], reference.movement([weight], [origin]), rel=1e-8)
        close(tables.layers["movement_spectral"][i], reference.spectral_movement(weight, origin), rel=1e-7)
        if layer < cell.depth:
            moved = reference.feature_movement(now_features[layer], start_features[layer])
            close(tables.layers["feature_movement"][i], moved, rel=1e-8)
        else:
            assert tables.layers["feature_movement"][i] is None


def results(cells):
    """cell_id -> final measures of a pack."""
    rows = train_pack(cells, CPU).cells
    skip = {"train_seconds", "device"}
    return {
        c.cell_id: {k: v for k, v in row.items() if k not in skip} for c, row in zip(cells, rows, strict=True)
    }


def assert_same_results(actual, expected, rel):
    assert actual.keys() == expected.keys()
    for key, value in expected.items():
        assert actual[key] == (
            pytest.approx(value, rel=rel, abs=1e-12) if isinstance(value, float) else value
        ), key


@pytest.mark.parametrize("batch_size", [None, 8])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_a_cell_does_not_depend_on_its_pack(activation, batch_size):
    cells = [
        make_cell(
            parameterization=name, lr=lr, seed=seed, gamma=gamma, steps=40, batch_size=batch_size,
            center_output=True, model={"activation": activation},
        )
        for name in NAMES for lr in (0.1, 0.5) for seed in (0, 3) for gamma in (1.0, 2.0)
    ]  # fmt: skip
    together = results(cells)
    reordered = results(cells[::-1])
    for cell in cells[::5]:
        alone = results([cell])
        assert_same_results(together[cell.cell_id], alone[cell.cell_id], 1e-9)
        assert_same_results(reordered[cell.cell_id], alone[cell.cell_id], 1e-9)


@pytest.mark.parametrize("bias", [False, True])
def test_parameterizations_coincide_at_base_width(bias):
    cells = [
        make_cell(
            parameterization=name, width=16, base_width=16, steps=100, model={"bias": bias, "sigma_bias": 0.5}
        )
        for name in NAMES
    ]
    rows = list(results(cells).values())
    for row in rows[1:]:
        assert_same_results(row, rows[0], 1e-9)


@pytest.mark.parametrize("width", [8, 16, 64])
@pytest.mark.parametrize("base_width", [1, 16])
def test_mup_and_mean_field_coincide_at_every_width(width, base_width):
    mup, mean_field = (
        make_cell(parameterization=name, width=width, base_width=base_width, steps=100)
        for name in ("mup", "mean_field")
    )
    both = results([mup, mean_field])
    a, b = both[mup.cell_id], both[mean_field.cell_id]
    # Raw parameters differ by a factor per layer: only the norm over all layers may differ.
    assert_same_results(
        {k: v for k, v in a.items() if k != "param_movement"},
        {k: v for k, v in b.items() if k != "param_movement"},
        1e-9,
    )


def test_shift_symmetry_of_the_exponents():
    """a + t, b - t, c - 2t on one layer leaves the trajectory unchanged (Yang & Hu, arXiv 2011.14522)."""
    cell = make_cell(parameterization="mup", width=32, base_width=2, steps=50)
    table = json.loads(cell.exponents)
    for role, t in (("input", 0.3), ("hidden", -0.7), ("output", 0.25)):
        table["a"][role] += t
        table["b"][role] -= t
        table["c"]["sgd"][role] -= 2 * t
    shifted = replace(cell, exponents=json.dumps(table))
    both = results([cell, shifted])
    a, b = both[cell.cell_id], both[shifted.cell_id]
    for key in ("train_loss", "test_loss", "ntk_change", "feature_movement", "lambda_max_init"):
        assert b[key] == pytest.approx(a[key], rel=1e-9)


def test_gamma_leaves_the_kernel_at_init_alone():
    """f / gamma with lr gamma^2: the first step changes f * gamma by the same amount at any gamma."""
    cells = [make_cell(gamma=gamma, center_output=True, steps=1, lr=1e-6) for gamma in (1.0, 8.0)]
    rows = list(results(cells).values())
    assert rows[0]["lambda_max_init"] == rows[1]["lambda_max_init"]
    assert rows[0]["lr_absolute"] == rows[1]["lr_absolute"]


def test_normalized_input_is_the_same_function_with_a_slower_input_layer():
    plain, normalized = (ensemble_of([make_cell(model={"normalize_input": flag})]) for flag in (False, True))
    x = plain.inputs["probe"]
    close(normalized.model(x).detach(), plain.model(x).detach())
    kernels = []
    for ensemble in (plain, normalized):
        network = reference_of(ensemble, 0)
        if ensemble is normalized:
            x = x / x.shape[2] ** 0.5
        kernels.append(network.trace_ntk(x[0]))
        close(empirical_ntk(ensemble.model, ensemble.parameters, ensemble.inputs["probe"])[0], kernels[-1])
    assert kernels[1].trace() < kernels[0].trace()


def test_both_learning_rates_are_stored():
    absolute, sharpness = make_cell(lr=0.01, lr_unit="absolute"), make_cell(lr=0.5)
    rows = results([absolute, sharpness])
    a, s = rows[absolute.cell_id], rows[sharpness.cell_id]
    assert a["lr_absolute"] == 0.01
    assert a["lr_sharpness"] == pytest.approx(0.01 * a["lambda_max_init"])
    assert s["lr_sharpness"] == pytest.approx(0.5)
    assert s["lr_absolute"] == pytest.approx(0.5 / s["lambda_max_init"])


def test_divergence_is_data_and_its_neighbours_go_on():
    stable, wild = make_cell(lr=0.5), make_cell(lr=500.0)
    tables = train_pack([wild, stable], CPU)
    rows = dict(zip((wild.cell_id, stable.cell_id), tables.cells, strict=True))
    gone = rows[wild.cell_id]
    assert gone["status"] == "diverged"
    assert 0 < gone["diverged_step"] < 20
    assert gone["peak_loss_ratio"] > 1e6
    assert "train_loss" not in gone
    measured = [
        s for c, s in zip(tables.trace["cell_id"], tables.trace["step"], strict=True) if c == wild.cell_id
    ]
    assert measured
    assert max(measured) < gone["diverged_step"]
    alone = results([stable])[stable.cell_id]
    kept = {k: v for k, v in rows[stable.cell_id].items() if k in alone}
    assert_same_results(kept, alone, 1e-9)


def test_a_pack_of_diverged_cells_ends():
    tables = train_pack([make_cell(lr=1e30, lr_unit="absolute", seed=s) for s in (0, 1)], CPU)
    assert [row["status"] for row in tables.cells] == ["diverged", "diverged"]
    assert all(row["diverged_step"] <= 2 for row in tables.cells)


def test_float32_agrees_with_float64():
    low, high = (next(iter(results([make_cell(dtype=d)]).values())) for d in ("float32", "float64"))
    for key in (
        "train_loss",
        "test_loss",
        "ntk_change",
        "feature_movement",
        "param_movement",
        "lambda_max_init",
    ):
        assert low[key] == pytest.approx(high[key], rel=20 * TOLERANCE["cpu", "float32"])


@pytest.mark.gpu
def test_cuda_agrees_with_cpu():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    for dtype in ("float32", "float64"):
        cells = [make_cell(dtype=dtype, parameterization=name) for name in NAMES]
        on_cpu, on_cuda = (train_pack(cells, torch.device(d)).cells for d in ("cpu", "cuda"))
        for a, b in zip(on_cpu, on_cuda, strict=True):
            for key in ("train_loss", "ntk_change", "feature_movement", "param_movement"):
                assert b[key] == pytest.approx(a[key], rel=20 * TOLERANCE["cuda", dtype])


def test_same_plan_is_bit_identical():
    cells = [make_cell(parameterization=name, batch_size=8, dtype="float32") for name in NAMES]
    assert results(cells) == results(cells)


def test_trace_holds_every_measuring_step_of_every_cell():
    cells = [make_cell(seed=s) for s in (0, 1)]
    tables = train_pack(cells, CPU)
    steps = measuring_steps(20, {"points": 4})
    assert steps[0] == 0
    assert steps[-1] == 20
    seen = sorted(zip(tables.trace["cell_id"], tables.trace["step"], strict=True))
    assert seen == sorted((c.cell_id, s) for c in cells for s in steps)
    assert len(tables.layers["step"]) == len(seen) * 3
    first = [v for v, s in zip(tables.trace["ntk_change"], tables.trace["step"], strict=True) if s == 0]
    assert first == [0, 0]


@pytest.mark.parametrize(("steps", "points"), [(1, 2), (1, 12), (200, 2), (200, 12), (10, 50), (10**6, 30)])
def test_measuring_steps_are_log_spaced_within_the_run(steps, points):
    spaced = measuring_steps(steps, {"points": points})
    assert spaced == sorted(set(spaced))
    assert spaced[0] == 0
    assert spaced[-1] == steps
    assert len(spaced) <= max(points, 2)


def test_init_does_not_depend_on_dtype_or_pack():
    double = ensemble_of([make_cell(seed=7)])
    single = ensemble_of([make_cell(seed=1, dtype="float32"), make_cell(seed=7, dtype="float32")])
    for path, parameter in double.parameters.items():
        assert torch.equal(parameter[0].float(), single.parameters[path][1])


def test_init_has_the_asked_variance():
    ensemble = ensemble_of([make_cell(width=512, parameterization="sp", model={"sigma_weight": 1.5})])
    hidden = ensemble.parameters["hidden.1.weight"]
    assert hidden.std().item() * 512**0.5 == pytest.approx(1.5, rel=0.01)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"activation": "relo"}}, "model.activation must be one of .*relu.*did you mean 'relu'"),
        ({"model": {"activaton": "relu"}}, "model.activaton must be one of .*did you mean 'activation'"),
        ({"data": {"dim": 2}}, "data.dim must be an integer >= 3"),
        ({"data": {"inputs": "cube"}}, "data.inputs must be one of"),
        ({"data": DIGITS | {"train_size": 5000}}, "must be at most 1797"),
        ({"data": {"seed": -1}}, "data.seed must be an integer >= 0"),
        ({"batch_size": 25}, "batch_size must be at most data.train_size = 24"),
        ({"loss": "cross_entropy"}, "loss must be mse for a regression task"),
        ({"optimizer": {"_target_": "runner.optim.SGDD"}}, "optimizer._target_ must be importable"),
        ({"measure": {"points": 1}}, "measure.points must be a whole number >= 2"),
        (
            {"measure": {"functions": {"x": {"_target_": "nowhere.x"}}}},
            "measure.functions.x._target_ must be importable",
        ),
    ],
)
def test_bad_settings_are_refused_before_training(changes, message):
    with pytest.raises(UserError, match=message):
        inspect(make_cell(**changes))


def test_inspect_tells_the_size():
    shape = inspect(make_cell(width=16, depth=2))
    weights = 6 * 16 + 16 * 16 + 16
    assert (shape.parameters, shape.train_size, shape.inputs, shape.outputs) == (weights, 24, 6, 1)
    assert (shape.activations, shape.flops_per_step) == (16 + 16 + 1, 6 * weights * 24)


def test_convolutions_cost_their_positions():
    model = {"_target_": "runner.models.CNN", "activation": "relu"}
    shape = inspect(make_cell(width=16, depth=1, data=DIGITS, model=model))
    assert shape.parameters == 9 * 16 + 16 * 10
    assert shape.activations == 64 * 16 + 10
    assert shape.flops_per_step == 6 * 40 * (64 * 9 * 16 + 16 * 10)


def test_layers_are_found_in_order():
    names = [layer.name for layer in layers.layers_of(ensemble_of([make_cell()]).model)]
    assert names == ["hidden.0", "hidden.1", "output"]


def test_shapes_are_checked_here():
    with pytest.raises(TypeError):
        layers.Activation("relu")(torch.zeros(2))
