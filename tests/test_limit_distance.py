"""Finite networks beside infinite width: the measure, the limits in a store, the slopes and the picture."""

import json

import numpy as np
import pytest
import torch
from cells import make_cell
from reference import ABC
from safetensors import safe_open
from sweeping import TINY, run_in

import runner
from runner import data
from runner.analysis.agreement import beside_theory
from runner.analysis.columns import plain
from runner.analysis.limit import adjusted, approach, left_of_kernel, mean_slope, spread_slope
from runner.errors import UserError
from runner.launching.limits import solve_limits
from runner.launching.progress import Progress
from runner.limits import Sampling, limits_from, problem_of, solve
from runner.measures import Snapshot
from runner.measures.infinite_width import limit_distance, problem_for, wanted_limit
from runner.models.ensemble import Ensemble
from runner.preemption import Stopped
from runner.store.limits import stored_limit
from runner.training import preflight

CPU = torch.device("cpu")
MEASURE = {"every": 2, "functions": {"limit_distance": {"_target_": "runner.measures.limit_distance"}}}
WORDS = (
    *TINY, "width=8,16,32", "seed=range(4)", "depth=2", "gamma=2", "lr=0.1", "parameterization=mup",
    "model.activation=linear", "measure=[limit_distance]", "measure.every=2", "dtype=float64", "name=wide",
    "facet=[gamma]",
)  # fmt: skip


def small(**changes):
    keys = {"parameterization": "mup", "center_output": True, "measure": MEASURE, "lr": 0.1, "steps": 4}
    model = {"activation": "linear", **changes.pop("model", {})}
    return make_cell(**{**keys, "model": model, **changes})


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A store of linear networks of three widths, and its folder."""
    folder = tmp_path_factory.mktemp("wide")
    assert run_in(folder, "sweep", *WORDS) == 0
    return folder / "outputs/wide"


def test_the_measure_is_what_it_says():
    """Function and kernel of a network of random weights beside the solved limit, by loops."""
    cell = small(width=12)
    sections = json.loads(cell.settings)
    dataset = data.load(sections["data"])
    ensemble = Ensemble([cell], sections["model"], dataset, CPU)
    start = Snapshot(ensemble, 0, keep=True)
    ensemble.center({split: start.raw_outputs(split) for split in ensemble.inputs})
    with torch.no_grad():
        for parameter in ensemble.parameters.values():
            parameter += 0.1
    now = Snapshot(ensemble, 2)
    found = limit_distance(now, start).trace
    limit = solve(problem_of(cell, dataset, (0, 2, 4)))
    f, f_inf = now.outputs("probe")[0, :, 0], limit.mean_outputs[1, 24:]
    theta, theta_inf = now.cached("ntk", lambda: None)[0], limit.mean_kernel[1]
    square, size, along = 0.0, 0.0, 0.0
    for i in range(12):
        for j in range(12):
            square += float(theta[i, j] - theta_inf[i, j]) ** 2
            size += float(theta_inf[i, j]) ** 2
            along += float(theta[i, j] - theta_inf[i, j]) * float(theta_inf[i, j])
    apart = sum(float(a - b) ** 2 for a, b in zip(f, f_inf, strict=True))
    expected = {
        "limit_function_distance": (apart / sum(float(b) ** 2 for b in f_inf)) ** 0.5,
        "limit_kernel_distance": (square / size) ** 0.5, "limit_kernel_gap": along / size,
        "limit_train_loss": float(limit.loss[1]), "limit_error": 0.0,
    }  # fmt: skip
    assert {name: float(found[name]) for name in expected} == pytest.approx(expected, rel=1e-9)
    assert limit_distance(Snapshot(ensemble, 1), start).trace == {}, "a step that the config does not name"


def test_all_widths_and_seeds_have_one_limit():
    assert problem_for(small(width=8, seed=1)) is problem_for(small(width=64, seed=2))
    assert problem_for(small(gamma=3.0)) is not problem_for(small())
    assert wanted_limit(make_cell()) is None


def test_the_store_keeps_the_limit_and_the_networks_come_to_it(wide):
    (file,) = (wide / "limits").glob("*.safetensors")
    with safe_open(file, "pt") as kept:
        assert kept.get_tensor("outputs").shape == (1, 3, 24)
        assert json.loads(kept.metadata()["problem"])["gamma"] == 2
    trace = runner.load(wide).trace
    assert (trace["limit_error"] == 0).all()
    assert trace["limit_train_loss"].groupby(trace["step"]).nunique().eq(1).all()
    start, end = trace[trace["step"] == 0], trace[trace["step"] == 4]
    assert start["limit_function_distance"].isna().all()
    assert (end["limit_train_loss"] != end["lazy_train_loss"]).all()
    assert end["limit_function_distance"].lt(1).all()


def test_the_view(wide, tmp_path, capsys):
    view = runner.load(wide).limit()
    assert list(view.table["width"]) == [8, 16, 32]
    trace = runner.load(wide).trace.merge(runner.load(wide).cells[["cell_id", "width"]], on="cell_id")
    mean = trace.groupby(["width", "step"])[["train_loss", "limit_train_loss"]].mean()
    worst = (mean["train_loss"] / mean["limit_train_loss"] - 1).abs().groupby("width").max()
    assert list(view.table["loss_worst"]) == pytest.approx(list(worst))
    assert set(view.more["slopes"]["of"]) == {"mean", "spread"}
    for row in view.more["slopes"].to_dict("records"):
        others = {0.0, -1.0, -0.5} - {row["theory"]}
        assert tuple(map(plain, (row["verdict"], row["because"]))) == beside_theory(row, others)
    view.save(tmp_path / "limit.svg")
    assert "infinite width" in (tmp_path / "limit.caption.txt").read_text("utf-8")
    assert run_in(wide.parents[1], "limit", "outputs/wide") == 0
    assert "limit: exact" in capsys.readouterr().out


@pytest.mark.parametrize("size", [0.5, 12.0, 1e30])
def test_a_table_of_large_deviations_fits_into_80_columns(wide, monkeypatch, capsys, size):
    def far(*args):
        table, fits = approach(*args)
        gaps = [name for name in table if name.startswith(("loss", "kernel"))]
        signs = [-1 if name.endswith("_adjusted") else 1 for name in gaps]
        rows = np.tile(size * np.array(signs), (len(table), 1))
        return table.assign(width=16384, seeds=1536, **dict(zip(gaps, rows.T, strict=True))), fits

    monkeypatch.setattr("runner.views.limit.approach", far)
    assert run_in(wide.parents[1], "limit", "outputs/wide") == 0
    lines = capsys.readouterr().out.splitlines()
    top = next(place for place, line in enumerate(lines) if "seeds" in line)
    assert " ".join(lines[top].split()) == "width loss adj +- spread worst adj +- spread apart seeds"
    assert [len(line.split()) for line in lines[top + 1 : top + 4]] == [11] * 3
    assert max(map(len, lines)) <= 80


def test_a_store_without_it_is_told_how(wide):
    store = runner.load(wide)
    with pytest.raises(UserError, match=r"sweep with measure=\[basic,limit_distance\]"):
        approach(store.cells, store.trace.drop(columns="limit_train_loss"), ("gamma",))


def test_networks_that_diverged_are_not_set_beside_it(wide):
    store = runner.load(wide)
    with pytest.raises(
        UserError, match="must hold networks that trained beside a finite limit, got none of 12"
    ):
        approach(store.cells.assign(status="diverged"), store.trace, ("gamma",))


def test_a_limit_goes_on_where_it_was_left(tmp_path):
    problem = problem_for(small(model={"activation": "tanh"}, depth=1))
    sampling = Sampling(units=64, replicas=3, error=1e-9)

    def stop(replica, step):
        if replica == 2:
            raise Stopped

    with pytest.raises(Stopped):
        stored_limit(tmp_path, problem, sampling, stop)
    seen = set()
    limit = stored_limit(tmp_path, problem, sampling, lambda replica, step: seen.add(replica))
    assert seen == {2}
    assert torch.equal(limit.outputs, solve(problem, sampling).outputs)
    (file,) = (tmp_path / "limits").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:100])
    assert torch.equal(stored_limit(tmp_path, problem, sampling).outputs, limit.outputs), "damage is mended"


def test_what_packs_need_is_solved_before_they_train(tmp_path):
    packs = [type("Pack", (), {"cells": [small(width=8, gamma=g), make_cell()]}) for g in (1.0, 2.0)]
    said, watching = [], Progress()
    watching.preparing = said.append
    solve_limits(packs, tmp_path, watching, bool)
    assert said[0] == "limit 1/2: linear, depth 2, gamma 1, sample 1, step 0/4"
    assert said[-1] == ""
    assert len([*(tmp_path / "limits").glob("*.safetensors")]) == 2
    with pytest.raises(Stopped):
        solve_limits(packs[:1], tmp_path / "other", watching, lambda: True)


def test_limits_come_from_the_source_that_is_set():
    asked = []
    with limits_from(lambda problem, sampling: asked.append(problem) or solve(problem, sampling)):
        from runner.limits import limit_of

        problem = problem_for(small(gamma=7.0))
        assert limit_of(problem, Sampling()) is limit_of(problem, Sampling())
    assert asked == [problem]


@pytest.mark.parametrize(("changes", "message"), [
    ({"parameterization": "sp"}, "parameterization must have an infinite-width limit"),
    ({"parameterization": "ntk", "center_output": False}, "center_output must be true"),
    ({"model": {"bias": True}}, "model.bias must be false"),
    ({"loss": "cross_entropy"}, "loss must be mse"),
    ({"batch_size": 4}, "batch_size must be null"),
    ({"optimizer": {"_target_": "runner.optim.SGD", "momentum": 0.9}}, "optimizer must be plain"),
    ({"data": {"_target_": "runner.data.digits", "seed": 0, "train_size": 20, "test_size": 20,
               "probe_size": 10}}, "data must have one output"),
    ({"measure": {"functions": {"limit_distance": {
        "_target_": "runner.measures.limit_distance", "units": 3}}}}, "units must be an integer >= 64"),
    ({"measure": {"functions": {"limit_distance": {
        "_target_": "runner.measures.limit_distance", "error": 2}}}}, "error must lie between 0 and 1"),
])  # fmt: skip
def test_what_is_not_covered_is_said_before_training(changes, message):
    with pytest.raises(UserError, match=message):
        preflight.inspect(small(**changes))


@pytest.mark.parametrize("name", sorted(set(ABC) - {"sp"}))
def test_what_is_covered_passes(name):
    preflight.inspect(small(parameterization=name))


def test_a_mean_deviation_is_fitted_with_its_errors():
    width = np.array([64.0, 128, 256, 512, 1024])
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(100):
        error = 0.3 / width**0.5 / 4
        slope, low, high = mean_slope(width, 3 / width + error * rng.normal(size=5), error)
        inside += low <= -1 <= high
    assert inside >= 88
    assert low < slope < high
    both = mean_slope(np.tile(width, 2), np.tile(3 / width, 2), np.tile(error, 2), np.repeat([0, 1], 5))
    assert both[0] == pytest.approx(-1)


def test_a_spread_is_fitted_over_lines():
    import pandas as pd

    rows = [
        {"width": n, "seed": seed, "gamma": gamma, "gap": gamma * seed * n**-0.5 + 1}
        for n in (16, 64, 256) for seed in range(3) for gamma in (1.0, 5.0)
    ]  # fmt: skip
    assert spread_slope(pd.DataFrame(rows), "gap", ("gamma",)) == pytest.approx(-0.5)
    assert np.isnan(spread_slope(pd.DataFrame(rows[:12]), "gap", ("gamma",)))


def test_a_limit_that_was_not_reached_says_so(tmp_path, capsys):
    """In a sweep itself: Hydra had switched off what was said through a logger."""
    words = [word for word in WORDS if not word.startswith(("width", "seed", "model", "name"))]
    options = {"units": 64, "replicas": 2, "error": 1e-6, "tolerance": 1e-6}
    words += [f"measure.functions.limit_distance.{name}={value}" for name, value in options.items()]
    assert run_in(tmp_path, "sweep", *words, "width=8", "model.activation=tanh", "workers=1") == 0
    (said,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("note:"))
    assert said.startswith("note: limit of tanh, depth 2, gamma 2: standard error ")
    assert "> 1e-06 after 2 samples, " in said
    assert "of a field left out at 64 units; raise units or replicas" in said


def gapped(rng, width=(16, 64, 256), seeds=40):
    """Networks whose gaps are what the start explains, a rest and 3 / width; and distances of kernels."""
    import pandas as pd

    n = np.repeat(np.array(width, float), seeds)
    start, rest, apart = (rng.normal(size=len(n)) / n**0.5 for _ in range(3))
    gap = 1.5 * start + 0.05 * rest + 3 / n
    square = 0.03**2 + 4 / n * np.abs(1 + 0.3 * apart * n**0.5)
    return pd.DataFrame({
        "width": n, "seed": np.tile(np.arange(seeds), len(width)), "loss_gap": gap, "kernel_gap": gap,
        "loss_start": start, "kernel_start": rng.normal(size=len(n)) / n**0.5, "kernel_apart": square**0.5,
    })  # fmt: skip


def test_what_the_start_explains_is_taken_out_of_a_mean():
    table = gapped(np.random.default_rng(0))
    found = adjusted(table).groupby("width")["loss_adjusted"].agg(["mean", "std"])
    width = found.index.to_numpy()
    assert (abs(found["mean"] - 3 / width) < 0.05 / width**0.5).all()
    np.testing.assert_allclose(found["std"], 0.05 / width**0.5, rtol=0.5)
    few = adjusted(table[table["seed"] < 3])
    assert (few["loss_adjusted"] == few["loss_gap"]).all(), "too few for a regression"


def test_what_is_left_of_a_kernel_distance_at_any_width():
    table = gapped(np.random.default_rng(1))
    assert left_of_kernel(table) == pytest.approx(0.03, rel=0.5)
    assert np.isnan(left_of_kernel(table[table["width"] < 100]))
