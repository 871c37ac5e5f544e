"""Stop rules: a cell ends where its loss, error or margin is at a level; and tables at a matched level."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from cells import DIGITS, make_cell
from sweeping import TINY, cells_of

import runner
from runner import cli
from runner.analysis.moment import at_level
from runner.commands import sweep
from runner.errors import UserError
from runner.numerics import losses
from runner.training import preflight
from runner.training.train import train_pack

CPU = torch.device("cpu")
EVERY = {
    "every": 1,
    "functions": {"param_movement": {"_target_": "runner.measures.param_movement"}},
}


def table(tables):
    return pd.DataFrame(tables.cells).drop(columns="train_seconds"), pd.DataFrame(tables.trace)


def pack(stop=None, **changes):
    changes = {"measure": EVERY, "steps": 40} | changes
    more = {"stop": stop} if stop else {}
    return [make_cell(lr=lr, seed=seed, **more, **changes) for lr in (0.2, 0.5, 1.0) for seed in (0, 1)]


def test_each_cell_ends_at_the_first_step_at_its_level_and_no_other_is_disturbed():
    _, free = table(train_pack(pack(), CPU))
    cells, trace = table(train_pack(pack({"train_loss": 0.3}), CPU))
    free = [part.reset_index(drop=True) for _, part in free.groupby("cell_id", sort=False)]
    ended = [part.reset_index(drop=True) for _, part in trace.groupby("cell_id", sort=False)]
    steps = []
    for row, undisturbed, mine in zip(cells.to_dict("records"), free, ended, strict=True):
        below = undisturbed.index[undisturbed["train_loss"] <= 0.3]
        step = int(below[0]) if len(below) else 40
        whole, mine = undisturbed.drop(columns="cell_id").iloc[: step + 1], mine.drop(columns="cell_id")
        # Where it ends it is measured with fewer others, which may round otherwise.
        pd.testing.assert_frame_equal(mine, whole, rtol=1e-12)
        pd.testing.assert_frame_equal(mine[:-1], whole[:-1], check_exact=True)
        assert row["status"] == "ok"
        assert row["train_loss"] == mine["train_loss"].iloc[-1]
        if len(below):
            assert (row["stopped_step"], row["stopped_by"]) == (step, "train_loss")
        else:
            assert np.isnan(row["stopped_step"])
        steps.append(step)
    assert len(set(steps)) > 2


def test_what_is_taken_at_the_ends_is_taken_where_a_cell_ends():
    ends = {"functions": {"param_movement": {"_target_": "runner.measures.param_movement", "at": "ends"}}}
    _, trace = table(train_pack(pack({"train_loss": 0.3}, measure={"points": 3} | ends), CPU))
    last = trace.groupby("cell_id").last()
    assert (trace.groupby("cell_id")["param_movement"].count() == 2).all()
    assert last["param_movement"].notna().all()


def test_errors_and_margins_of_classes():
    digits = {"data": DIGITS, "loss": "cross_entropy", "lr_unit": "absolute", "dtype": "float32"}
    _, free = table(train_pack(pack(**digits), CPU))
    for stop, column in (({"train_error": 0.21}, "train_error"), ({"margin": -0.5}, None)):
        cells, _ = table(train_pack(pack(stop, **digits), CPU))
        assert set(cells["stopped_by"].dropna()) <= {*stop}
        assert cells["stopped_by"].notna().any()
        if column:
            first = free[free[column] <= 0.21].groupby("cell_id")["step"].first()
            expected = first.reindex([cell.cell_id for cell in pack(**digits)])
            np.testing.assert_array_equal(cells["stopped_step"], expected)


@pytest.mark.parametrize("outputs", [1, 3])
def test_margin(outputs):
    generator = torch.Generator().manual_seed(0)
    f = torch.randn(2, 5, outputs, generator=generator, dtype=torch.float64)
    y = torch.randn(1, 5, outputs, generator=generator, dtype=torch.float64)
    naive = []
    for cell in f:
        margins = []
        for sample, target in zip(cell, y[0], strict=True):
            if outputs == 1:
                margins.append(float(sample[0] * target[0].sign()))
            else:
                label = int(target.argmax())
                margins.append(float(sample[label] - max(v for k, v in enumerate(sample) if k != label)))
        naive.append(min(margins))
    assert losses.margin(f, y).tolist() == pytest.approx(naive)


def test_mini_batches_are_looked_at_once_per_epoch():
    cells, trace = table(train_pack(pack({"train_loss": 0.4}, batch_size=8, steps=60), CPU))
    assert (cells["stopped_step"].dropna() % 3 == 0).all()  # 24 samples in batches of 8
    assert cells["stopped_step"].notna().any()
    assert (trace[trace["step"] == 0]["train_loss"] > 0.4).all()


def test_a_level_that_is_met_at_init_ends_there():
    cells, trace = table(train_pack(pack({"train_loss": 100.0}), CPU))
    assert set(cells["stopped_step"]) == {0}
    assert set(trace["step"]) == {0}


# -- keys --------------------------------------------------------------------------------------------


def test_a_rule_is_part_of_a_cell_only_where_it_is_set(monkeypatch):
    plain, null, set_ = (
        cells_of(monkeypatch, *TINY, "width=8", *more)[0]
        for more in ((), ("stop.train_loss=null", "stop.every=5"), ("stop.train_loss=0.1", "stop.every=5"))
    )
    assert plain.cell_id == null.cell_id != set_.cell_id
    assert "stop" not in json.loads(plain.settings)
    assert json.loads(set_.settings)["stop"] == {"train_loss": 0.1, "every": 5}


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("stop.train_loss=0", "stop.train_loss must be a finite number > 0, or null, got 0"),
        ("stop.train_error=1", "stop.train_error must be a number >= 0 and < 1, or null, got 1"),
        ("stop.margin=high", "stop.margin must be a finite number, or null, got high"),
        ("stop.train_los=0,1", "stop.train_los must be a known config key"),
        ("stop=1", "stop must be a group of levels, got 1"),
    ],
)
def test_bad_levels(argument, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert sweep.main([*TINY, "width=8", argument]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_regression_has_no_classes():
    sizes = {"seed": 0, "dim": 6, "degree": 2, "inputs": "sphere"} | dict.fromkeys(
        ("train_size", "test_size", "probe_size"), 12
    )
    cell = make_cell(stop={"margin": 1.0}, data={"_target_": "runner.data.single_index"} | sizes)
    with pytest.raises(UserError, match=r"^stop\.margin must be null for a regression task"):
        preflight.inspect(cell)


# -- matched levels ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stop")
    line = ["data=xor", "data.dim=6", "width=8,16,32", "lr=0.3,0.5,1", "steps=60", "workers=1"]
    assert sweep.main([*line, f"store={folder}/free", "measure.every=2"]) == 0
    assert sweep.main([*line, f"store={folder}/stopped", "stop.train_loss=0.4"]) == 0
    return folder


@pytest.fixture
def swept(both, monkeypatch):
    monkeypatch.chdir(both)
    return runner.load("free"), runner.load("stopped")


def test_a_store_at_a_level_is_one_whose_cells_stopped_there(swept):
    free, stopped = swept
    cells = at_level(free, "train_loss=0.4").cells.set_index(["width", "lr", "seed"])
    ended = stopped.cells[stopped.cells["stopped_step"].notna()].set_index(["width", "lr", "seed"])
    assert len(ended) > 4
    assert set(cells.index) == set(ended.index)
    assert cells["train_loss"].to_numpy() == pytest.approx(0.4)
    for name in (
        "param_movement",
        "ntk_change",
        "feature_movement",
    ):  # a step is at most so far from the level
        assert cells.loc[ended.index, name].to_numpy(float) == pytest.approx(
            ended[name].to_numpy(float), rel=0.2
        )


def test_measures_are_interpolated_between_measured_steps(swept):
    free, _ = swept
    found = at_level(free, "train_loss=0.4")
    for cell_id in found.cells["cell_id"]:
        trace = free.trace[free.trace["cell_id"] == cell_id].sort_values("step").reset_index()
        place = next(i for i, loss in enumerate(trace["train_loss"]) if loss <= 0.4)
        low, high = trace.loc[place - 1], trace.loc[place]
        share = np.log(0.4 / low["train_loss"]) / np.log(high["train_loss"] / low["train_loss"])
        expected = low["param_movement"] + share * (high["param_movement"] - low["param_movement"])
        row = found.cells.set_index("cell_id").loc[cell_id]
        assert row["param_movement"] == pytest.approx(expected)
        rows = found.trace[found.trace["cell_id"] == cell_id]
        assert rows["step"].tolist() == trace["step"].tolist()[: place + 1]
        layer = found.layers[found.layers["cell_id"] == cell_id]
        assert layer.groupby("step").size().nunique() == 1
        assert layer["step"].max() == high["step"]


@pytest.mark.parametrize("command", ["phase --color ntk_change", "fit --where lr=1", "curves --where lr=1",
                                     "transfer --metric test_loss", "profile --where lr=1"])  # fmt: skip
def test_commands_compare_at_a_level(swept, capsys, command):
    word, *options = command.split()
    assert cli.main([word, "free", *options, "--at", "train_loss=0.4"]) == 0
    assert "at train_loss = 0.4, between measured steps; 9 of 9 cells came to it" in " ".join(
        capsys.readouterr().out.split()
    )
    assert cli.main([word, "free", *options, "--at", "train_loss=0.4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["at"].startswith("at train_loss = 0.4")


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("train_loss", "--at must be MEASURE=NUMBER, got train_loss"),
        ("train_loss=low", "--at must be MEASURE=NUMBER, got train_loss=low"),
        ("train_los=1", "--at must be one of .*did you mean 'train_loss'"),
        ("train_loss=1e-9", "--at must be a level that some cell came to, got train_loss=1e-9"),
    ],
)
def test_bad_levels_of_a_comparison(swept, condition, message):
    with pytest.raises(UserError, match="^" + message):
        at_level(swept[0], condition)
