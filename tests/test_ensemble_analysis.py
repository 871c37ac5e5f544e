"""Ensembles over seeds: each number against loops, what was planted found again, what is said without."""

import itertools
import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from stores import write_cells, write_outputs
from sweeping import TINY, run_in
from synthetic import cell, exponents
from vega import compared_with_schema

import runner
from runner import cli
from runner.analysis import losses
from runner.analysis.ensemble import Kept, ensembles, predictions_of
from runner.analysis.theory import predicted_variance
from runner.commands import sweep
from runner.errors import UserError
from runner.numerics import losses as exact

WIDTHS = (16, 32, 64, 128)
SAMPLES, OUTPUTS = 5, 3


def drawn(seeds=6, widths=WIDTHS, spread=1.0, stream=0, outputs=OUTPUTS):
    """Cells and their predictions: a mean that no width moves, a variance of spread^2 / width."""
    rng = np.random.default_rng(stream)
    targets = rng.standard_normal((SAMPLES, outputs))
    mean = targets + 0.3 * rng.standard_normal((SAMPLES, outputs))
    table, kept = [], {}
    for width, seed in itertools.product(widths, range(seeds)):
        name = f"{width}-{seed}"
        table.append({"cell_id": name, "width": width, "seed": seed, "status": "ok", "loss": "mse"})
        values = mean + spread * rng.standard_normal((SAMPLES, outputs)) / math.sqrt(width)
        kept[name] = Kept(values, targets, 4)
    theory = {"optimizer": "sgd", "depth": 2, "lr_unit": "absolute", "center_output": False}
    return pd.DataFrame(table).assign(**theory, exponents=exponents("mup")), kept


def by_loops(kept):
    """Variance, mean loss, loss of the average and bias of one ensemble, number by number."""
    f, y = [one.values.tolist() for one in kept], kept[0].targets.tolist()
    count, samples, outputs = len(f), len(y), len(y[0])
    variance = mean_loss = average_loss = square = 0.0
    for i in range(samples):
        for k in range(outputs):
            values = [network[i][k] for network in f]
            mean = sum(values) / count
            variance += sum((value - mean) ** 2 for value in values) / (count - 1) / samples
            mean_loss += sum((value - y[i][k]) ** 2 for value in values) / count / (2 * samples)
            average_loss += (mean - y[i][k]) ** 2 / (2 * samples)
            square += mean**2 / samples
    relative = variance / (square - variance / count)
    return {
        "variance": variance, "mean_loss": mean_loss, "ensemble_loss": average_loss,
        "bias": average_loss - variance / (2 * count), "relative_variance": relative,
    }  # fmt: skip


def test_every_number_by_loops():
    cells, kept = drawn()
    table, _ = ensembles(cells, kept, ())
    for row in table.to_dict("records"):
        naive = by_loops([kept[name] for name in cells.loc[cells["width"] == row["width"], "cell_id"]])
        for name, value in naive.items():
            assert row[name] == pytest.approx(value, rel=1e-12), name
        assert row["mean_loss"] == pytest.approx(row["bias"] + row["variance"] / 2, rel=1e-12)
        assert (row["seeds"], row["left_out"], row["samples"], row["outputs"]) == (6, 0, SAMPLES, OUTPUTS)


@pytest.mark.parametrize("name", ["variance", "mean_loss", "ensemble_loss", "bias"])
def test_intervals_leave_out_one_seed_after_the_other(name):
    cells, kept = drawn(widths=(16,))
    (row,) = ensembles(cells, kept, ())[0].to_dict("records")
    ids = list(cells["cell_id"])
    logs = [math.log(by_loops([kept[two] for two in ids if two != one])[name]) for one in ids]
    count, mean = len(logs), sum(logs) / len(logs)
    error = math.sqrt((count - 1) / count * sum((log - mean) ** 2 for log in logs))
    student = 2.570581835636314  # 97.5 % at 5 degrees of freedom
    assert row[f"{name}_low"] == pytest.approx(row[name] * math.exp(-student * error), rel=1e-9)
    assert row[f"{name}_high"] == pytest.approx(row[name] * math.exp(student * error), rel=1e-9)


def test_what_was_planted_is_found():
    """The bias that no width moves, and the slope -1, which is in its interval as often as that says."""
    hits, slopes, biases = 0, [], []
    for stream in range(80):
        cells, kept = drawn(seeds=4, stream=stream)
        table, fits = ensembles(cells, kept, ())
        (line,) = fits.to_dict("records")
        hits += line["low"] <= -1 <= line["high"]
        slopes.append(line["slope"])
        y = kept["16-0"].targets
        rng = np.random.default_rng(stream)
        mean = rng.standard_normal(y.shape) + 0.3 * rng.standard_normal(y.shape)
        biases.append(table["bias"].mean() - 0.5 * ((mean - y) ** 2).sum() / SAMPLES)
    assert hits >= 0.92 * len(slopes)
    for found, planted in ((slopes, -1.0), (biases, 0.0)):
        assert abs(np.mean(found) - planted) < 3 * np.std(found) / math.sqrt(len(found))


@pytest.mark.parametrize("shared", [True, False])
def test_few_directions_and_heavy_tails_widen_the_interval(shared):
    """A variance that is one number of each seed, alike on all samples, is known far worse."""
    hits = 0
    for stream in range(50):
        rng = np.random.default_rng(stream)
        cells, kept = drawn(seeds=8, stream=stream)
        for name, one in kept.items():
            noise = rng.standard_normal((1, 1)) * np.exp(0.5 * rng.standard_normal()) ** (not shared)
            noise = np.broadcast_to(noise, one.values.shape) / math.sqrt(int(name.split("-")[0]))
            kept[name] = Kept(one.targets + noise, one.targets, 4)
        line = ensembles(cells, kept, ())[1].iloc[0]
        hits += line["low"] <= -1 <= line["high"]
    assert hits >= 0.88 * 50


def test_slopes_need_values_and_intervals_seeds():
    line = ensembles(*drawn(widths=(16, 32)), ())[1].iloc[0]
    assert math.isnan(line["slope"])
    table, fits = ensembles(*drawn(seeds=2), ())
    assert fits["slope"].notna().all()
    assert fits["low"].isna().all()
    assert table["variance"].notna().all()
    assert table["variance_low"].isna().all()


def test_cells_that_did_not_train_are_left_out():
    cells, kept = drawn()
    cells.loc[cells["cell_id"] == "16-0", "status"] = "diverged"
    del kept["16-1"]
    table, _ = ensembles(cells, kept, ())
    assert table["seeds"].tolist() == [4, 6, 6, 6]
    assert table["left_out"].tolist() == [2, 0, 0, 0]


def test_one_seed_at_a_width_has_a_loss_and_no_variance():
    cells, kept = drawn()
    cells = cells[(cells["width"] > 16) | (cells["seed"] == 0)]
    first = ensembles(cells, kept, ())[0].iloc[0]
    assert first["seeds"] == 1
    assert math.isnan(first["variance"])
    assert first["mean_loss"] == first["ensemble_loss"]
    with pytest.raises(UserError, match="seed must have at least 2 values for an ensemble"):
        ensembles(cells[cells["seed"] == 0], kept, ())


def test_without_targets_there_is_a_variance_and_no_bias():
    cells, kept = drawn()
    bare = {name: Kept(one.values, None, one.step) for name, one in kept.items()}
    table, fits = ensembles(cells, bare, ())
    whole, whole_fits = ensembles(cells, kept, ())
    pd.testing.assert_series_equal(table["variance"], whole["variance"])
    assert fits["slope"].equals(whole_fits["slope"])
    assert table[["mean_loss", "ensemble_loss", "bias"]].isna().all(axis=None)


@pytest.mark.parametrize("outputs", [1, 4])
def test_losses_are_those_of_training(outputs):
    rng = np.random.default_rng(outputs)
    f, y = rng.standard_normal((3, 7, outputs)), rng.standard_normal((7, outputs))
    one_hot = np.eye(outputs)[y.argmax(1)] if outputs > 1 else np.sign(y)
    for name, targets in (("mse", y), ("cross_entropy", one_hot)):
        tensors = torch.from_numpy(f), torch.from_numpy(targets)[None]
        np.testing.assert_allclose(losses.LOSSES[name](f, targets), exact.LOSSES[name](*tensors), rtol=1e-12)
        np.testing.assert_allclose(losses.error_rate(f, targets, name), exact.error_rate(*tensors))


def test_losses_of_symbols_are_those_of_training():
    rng = np.random.default_rng(0)
    f, symbols = rng.standard_normal((2, 5, 3 * 4)), rng.integers(0, 4, (5, 3))
    targets = np.eye(4)[symbols].reshape(5, -1)
    tensors = torch.from_numpy(f), torch.from_numpy(symbols)[None]
    np.testing.assert_allclose(losses.cross_entropy(f, targets), exact.cross_entropy(*tensors), rtol=1e-12)
    np.testing.assert_allclose(
        losses.error_rate(f, targets, "cross_entropy"), exact.error_rate(*tensors), rtol=1e-12
    )


@pytest.mark.parametrize(
    ("name", "changes", "slope"),
    [
        ("mup", {}, -1),
        ("mean_field", {}, -1),
        ("ntk", {}, -1),
        ("ntk", {"center_output": False}, 0),  # outputs at init, of order one, are not forgotten
        ("ntk", {"center_output": False, "symmetric_init": True}, -1),
        ("mup", {"center_output": False}, -1),
        ("sp", {"lr_unit": "absolute"}, None),  # no limit in which outputs change by O(1)
        ("sp", {}, -1),
        ("mup", {"optimizer": "adam", "lr_unit": "absolute"}, None),
        ("mup", {"batch_size": 8}, None),  # the order of the batches is of the seed, too
    ],
)
def test_theory(name, changes, slope):
    start = {"optimizer": "sgd", "depth": 2, "lr_unit": "sharpness", "center_output": True}
    cell_of = start | {"exponents": exponents(name), "model.activation": "relu"} | changes
    assert predicted_variance(cell_of) == slope


def test_a_split_and_a_step_are_chosen():
    rows = [
        {"cell_id": "a", "step": step, "split": split, "sample": sample, "output": 0}
        | {"value": float(step + sample), "target": 1.0}
        for step in (0, 4) for split in ("probe", "test") for sample in (1, 0)
    ]  # fmt: skip
    outputs = pd.DataFrame(rows)
    assert predictions_of(outputs, "test")["a"].values.tolist() == [[4.0], [5.0]]
    assert predictions_of(outputs, "test", 0)["a"].values.tolist() == [[0.0], [1.0]]
    with pytest.raises(UserError, match="got those of steps 0, 4; sweep with "):
        predictions_of(outputs, "test", 3)


LINE = [
    "sweep", *TINY, "width=8,16,32", "seed=0,1,2", "measure=[basic,predictions]", "measure.points=3",
    "measure.functions.predictions.splits=[test,train]", "store=out", "workers=1", "parameterization=mup",
    "dtype=float64",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("ensemble")
    assert run_in(path, *LINE) == 0
    return path / "out"


def test_of_a_sweep(folder):
    """The mean loss is that of the cells, classified or not; so it is at init and at a level."""
    store = runner.load(folder)
    for split, column in (("test", "test"), ("train", "train")):
        table = store.ensemble(split=split).table
        cells = store.cells.groupby("width")
        for name, of in (("mean_loss", "loss"), ("mean_error", "error")):
            expected = cells[f"{column}_{of}"].mean()
            np.testing.assert_allclose(table.set_index("width")[name], expected, rtol=1e-10)
    assert (store.ensemble(step=0).table["variance"] == 0).all()  # centred
    for silent in (store.ensemble(step=0), store.ensemble(split="train")):
        assert silent.more["slopes"]["theory"].isna().all()
    level = store.trace.loc[store.trace["step"] == 4, "train_loss"].max()
    ended = store.ensemble(at=f"train_loss={level + 0.01}", split="train").table
    # Outputs between two steps lie on the line, of which the loss is convex.
    assert (ended["mean_loss"] <= level + 0.01 + 1e-9).all()
    assert (ended["mean_loss"] > level).all()


def test_command_method_and_page_say_the_same(folder, tmp_path, capsys):
    store = runner.load(folder)
    assert cli.main(["ensemble", str(folder), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["x"], said["split"], said["facets"]) == ("width", "test", ["parameterization"])
    assert [row["variance"] for row in said["rows"]] == pytest.approx(
        list(store.ensemble().table["variance"])
    )
    assert said["slopes"][0]["theory"] == -1
    assert said["slopes"][0]["verdict"] in ("agrees", "within 0.1", "disagrees", "cannot tell")
    with compared_with_schema():
        assert cli.main(["ensemble", str(folder), "--out", str(tmp_path / "ensemble.svg")]) == 0
    text = capsys.readouterr().out
    assert "slope of log variance against log width, 95 %:" in text
    assert "variance over seeds" in (tmp_path / "ensemble.svg").read_text("utf-8")
    caption = (tmp_path / "ensemble.caption.txt").read_text("utf-8")
    assert "the variance over 3 seeds of the outputs f" in caption
    assert "jackknife over seeds" in caption
    page = store.report(tmp_path / "page.html")
    html = page.path.read_text("utf-8")
    assert 'id="ensemble"' in html
    assert "runner ensemble " in html


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--split", "probe"], "--split must be one that was kept, test, train, got probe; sweep with "
         "measure.functions.predictions.splits=[train,test,probe]"),
        (["--split", "tset"], "--split must be one of test, train, got 'tset'"),
        (["--step", "3"], "outputs must be kept at the steps looked at, got those of steps 0, "),
        (["--step", "0", "--at", "train_loss=0.1"], "--step must be left out where --at says where to look"),
        (["--facet", "width"], "--facet must not be width"),
        (["--where", "seed=0"], "seed must have at least 2 values for an ensemble, got 0"),
        (["--x", "parameterization"], "--x must name numbers"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(folder, capsys, words, message):
    assert cli.main(["ensemble", str(folder), *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_a_store_without_outputs_names_the_measure(tmp_path, capsys):
    write_cells(tmp_path / "out", [cell(width=width, seed=seed) for width in (8, 16) for seed in (0, 1)])
    assert cli.main(["ensemble", str(tmp_path / "out")]) == 2
    assert "sweep with measure=[basic,predictions], which keeps them" in capsys.readouterr().err
    html = runner.load(tmp_path / "out").report().path.read_text("utf-8")
    assert 'id="ensemble"' not in html


def test_an_old_store_has_a_variance_and_says_what_it_lacks(tmp_path, capsys):
    """Before there was a column target."""
    cells = [cell(width=width, seed=seed) for width in (8, 16) for seed in (0, 1)]
    write_cells(tmp_path / "out", cells)
    write_outputs(tmp_path / "out", cells, lambda one, sample: one.seed * one.width + sample)
    view = runner.load(tmp_path / "out").ensemble()
    assert view.table["variance"].tolist() == [8**2 / 2, 16**2 / 2]
    assert view.table["mean_loss"].isna().all()
    assert cli.main(["ensemble", str(tmp_path / "out")]) == 0
    assert "no losses: the outputs of this store were kept without their targets" in capsys.readouterr().out


def test_cross_entropy_is_of_the_average_of_f(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert sweep.main([*LINE[1:], "loss=cross_entropy"]) == 0
    store = runner.load("out")
    table = store.ensemble().table.set_index("width")
    np.testing.assert_allclose(
        table["mean_loss"], store.cells.groupby("width")["test_loss"].mean(), rtol=1e-10
    )
    assert (table["ensemble_loss"] < table["mean_loss"]).all()  # it is convex
    assert table["bias"].isna().all()
