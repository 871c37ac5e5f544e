"""Fresh samples at every step: which they are, that seed and step alone decide, and what cannot have them."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from cells import make_cell
from sweeping import TINY, cells_of
from test_engine import CPU, EXACT, assert_same_results, ensemble_of, reference_of
from test_stop import EVERY

import runner
from runner import cli, data
from runner.commands import sweep
from runner.data import Dataset, Split, online
from runner.data.online import AHEAD, DRAWN, FreshBatches
from runner.errors import UserError
from runner.grid.config import conf_dir
from runner.numerics.generators import generator
from runner.training.preflight import inspect
from runner.training.run import Run
from runner.training.train import train_pack

SIZES = {"train_size": 50, "test_size": 30, "probe_size": 20}
CLASSES = {"linear": 0.0, "standardize": False}


def fresh_cell(batch_size=8, **changes):
    changes["data"] = {"online": True} | changes.get("data", {})
    return make_cell(batch_size=batch_size, **changes)


def run_of(cells):
    sections = json.loads(cells[0].settings)
    return Run(cells, sections, data.load(sections["data"]), CPU)


def values(cells):
    """Result rows by cell, without what a clock says."""
    rows = train_pack(cells, CPU).cells
    return {
        cell.cell_id: {key: value for key, value in row.items() if key != "train_seconds"}
        for cell, row in zip(cells, rows, strict=True)
    }


# -- which samples -----------------------------------------------------------------------------------


def test_fresh_windows_are_of_the_text_that_is_trained_on():
    dataset = data.text(context=4, size=400, train_size=8, test_size=4, probe_size=4)
    again = dataset.fresh(8, generator(0, "text/train"))
    assert torch.equal(again.inputs, dataset.train.inputs)
    assert torch.equal(again.targets, dataset.train.targets)
    every = {tuple(row.tolist()) for row in dataset.fresh(4000, generator(0, "all")).inputs}
    assert len(every) <= 320 - 4  # of the first four fifths
    batch = FreshBatches([0, 1], dataset.fresh, 8, CPU, torch.float32).next()
    assert batch.inputs.dtype == batch.scores.dtype == torch.int64
    model = {
        "_target_": "runner.models.Transformer", "causal": True, "readout": "every", "heads": 1,
    }  # fmt: skip
    settings = {"_target_": "runner.data.text", "context": 4, "size": 400, "online": True, **SIZES}
    cells = [
        make_cell(
            data=settings, model=model, loss="cross_entropy", batch_size=4, steps=3, seed=seed, width=4,
            depth=1, lr_unit="absolute", lr=0.1,
        )
        for seed in (0, 1)
    ]  # fmt: skip
    assert inspect(cells[0])
    alone, together = (train_pack(some, CPU).cells[0] for some in (cells[:1], cells))
    assert together["train_loss"] == pytest.approx(alone["train_loss"], rel=1e-12)


@pytest.mark.parametrize("name", [name for name in DRAWN if name != "text"])
def test_fresh_samples_are_of_the_task(name):
    """From the stream of the training set they are the training set: inputs, function and standardisation."""
    dataset = getattr(data, name)(seed=3, **SIZES)
    again = dataset.fresh(50, generator(3, "inputs/train"))
    assert torch.equal(again.inputs, dataset.train.inputs)
    assert torch.equal(again.targets, dataset.train.targets)
    more = dataset.fresh(200, generator(3, "another"))
    both = torch.cat([more.inputs, dataset.train.inputs, dataset.test.inputs, dataset.probe.inputs])
    assert len(torch.unique(both, dim=0)) == 300


def test_a_batch_is_drawn_from_the_stream_of_seed_and_steps(monkeypatch):
    monkeypatch.setattr(online, "AHEAD", 25)  # three steps of 8 samples
    dataset = data.teacher(dim=5, **SIZES)
    batches = FreshBatches([4], dataset.fresh, 8, CPU, torch.float32)
    for block in range(3):
        drawn = dataset.fresh(24, generator(4, f"online/{block}"))
        for start in (0, 8, 16):
            batch = batches.next()
            assert torch.equal(batch.inputs[0], drawn.inputs[start : start + 8].float())
            assert torch.equal(batch.scores[0], drawn.targets[start : start + 8].float())
            assert batch.places is None


def test_draws_are_pinned():
    """Other numbers here are other results of the same cells: they need another `ID_VERSION`."""
    batches = FreshBatches([0], data.staircase(dim=3, **SIZES).fresh, 4, CPU, torch.float64)
    signs = [["".join("-+"[int(v > 0)] for v in row) for row in batches.next().inputs[0]] for _ in range(2)]
    assert signs == PINNED
    assert AHEAD == 1024


PINNED = [["+--", "+++", "-++", "+--"], ["+-+", "---", "++-", "---"]]


def test_no_sample_comes_twice_and_seeds_are_independent():
    dataset = data.single_index(dim=4, **SIZES)
    batches = FreshBatches([0, 1], dataset.fresh, 100, CPU, torch.float64)
    seen = torch.cat([batches.next().inputs.flatten(0, 1) for _ in range(30)])  # ten steps at a time
    assert len(torch.unique(seen, dim=0)) == 6000


def test_cells_of_one_seed_see_the_same_whatever_is_beside_them(monkeypatch):
    monkeypatch.setattr(online, "AHEAD", 12)
    dataset = data.xor(dim=4, **SIZES)
    pack = FreshBatches([3, 5, 3], dataset.fresh, 4, CPU, torch.float64)
    alone = FreshBatches([5], dataset.fresh, 4, CPU, torch.float64)
    for step in range(10):
        if step == 5:  # in the middle of what was drawn ahead
            pack.select(torch.tensor([2, 1]))
        both, one = pack.next(), alone.next()
        if step < 5:
            assert torch.equal(both.inputs[0], both.inputs[2])
        assert torch.equal(both.inputs[1], one.inputs[0])
        assert torch.equal(both.scores[1], one.scores[0])
    later = FreshBatches([5], dataset.fresh, 4, CPU, torch.float64)
    later.load_state_dict(alone.state_dict())
    assert torch.equal(later.next().inputs, alone.next().inputs)


# -- training ----------------------------------------------------------------------------------------

NAIVE = {
    "raw": {},
    "centred": {"center_output": True, "gamma": 2.0},
    "cross-entropy": {"loss": "cross_entropy", "data": CLASSES, "center_output": True},
    "by autograd": {"optimizer": {"_target_": "runner.optim.SGD", "clip": 1e9}, "center_output": True},
    "mup, bias": {"parameterization": "mup", "base_width": 4, "model": {"bias": True, "sigma_bias": 0.3}},
}


@pytest.mark.parametrize("case", NAIVE)
def test_weights_are_those_of_a_naive_loop_on_the_same_samples(case, monkeypatch):
    monkeypatch.setattr(online, "AHEAD", 24)
    lr, steps = 0.3, 10
    cells = [
        fresh_cell(seed=seed, lr=scale * lr, lr_unit="absolute", steps=steps, **NAIVE[case])
        for scale in (1, 2)
        for seed in (1, 0)
    ]
    networks = [reference_of(ensemble_of(cells), place) for place in range(4)]
    run = run_of(cells)
    for step in range(steps):
        run.advance(step)
    dataset = data.load(json.loads(cells[0].settings)["data"])
    for place, (cell, network) in enumerate(zip(cells, networks, strict=True)):
        drawn = [dataset.fresh(24, generator(cell.seed, f"online/{block}")) for block in range(4)]
        x, y = (torch.cat([getattr(one, part) for one in drawn]) for part in ("inputs", "targets"))
        rows = [slice(8 * step, 8 * step + 8) for step in range(steps)]
        network.train(x, y, cell.lr, steps, cell.loss, cell.center_output, rows)
        moved = 0.0
        found = [value[place] for value in run.ensemble.parameters.values()]
        weights = [w for w in found if w.dim() == 2] + [b for b in found if b.dim() == 1]
        for actual, expected, start in zip(weights, network.raw, network.start, strict=True):
            torch.testing.assert_close(actual.detach(), expected, rtol=EXACT, atol=EXACT)
            moved = max(moved, (expected - start).abs().max().item())
        assert moved > 1e-2


def test_a_cell_does_not_depend_on_its_pack_nor_on_who_diverges():
    cells = [
        fresh_cell(lr=lr, seed=seed, gamma=gamma, steps=40, lr_unit="absolute", center_output=True)
        for lr in (0.1, 1.0, 1e3)
        for seed in (0, 3)
        for gamma in (1.0, 2.0)
    ]
    together, reordered = values(cells), values(cells[::-1])
    assert {row["status"] for row in together.values()} == {"ok", "diverged"}
    for cell in cells[::3]:
        alone = values([cell])[cell.cell_id]
        for other in (together, reordered):
            assert_same_results(other[cell.cell_id], alone, 1e-9)


def test_cells_that_start_alike_share_their_outputs_at_init():
    cells = [
        fresh_cell(lr=lr, gamma=gamma, seed=seed) for seed in (5, 2) for gamma in (1.0, 2.0) for lr in (1, 2)
    ]
    start = run_of(cells).start
    places, which = start.distinct(gamma=False)
    assert places[which].tolist() == [0] * 4 + [4] * 4
    assert len(places) == 2
    assert len(start.distinct()[0]) == 4


def test_the_training_set_is_measured_and_not_fitted():
    task = {"linear": 2.0, "standardize": False, "dim": 3, "inputs": "gaussian"}
    changes = {"data": task | {"train_size": 4, "test_size": 400}, "lr": 0.3, "width": 32, "steps": 400}
    changes["measure"] = EVERY | {"every": 400}
    (offline,) = values([make_cell(batch_size=4, **changes)]).values()
    (one_pass,) = values([fresh_cell(batch_size=16, **changes)]).values()
    assert offline["train_loss"] < 1e-3
    assert one_pass["test_loss"] < 0.5 * one_pass["initial_train_loss"] < 0.5 * offline["test_loss"]
    assert one_pass["train_loss"] == pytest.approx(one_pass["test_loss"], rel=0.3)
    assert one_pass["initial_train_loss"] == offline["initial_train_loss"]


def test_a_level_is_looked_for_on_the_training_set_once_every_so_many_samples():
    stop = {"train_loss": 0.535}
    cells = [fresh_cell(lr=lr, steps=60, stop=stop, measure=EVERY) for lr in (0.3, 0.6)]
    tables = train_pack(cells, CPU)
    trace = pd.DataFrame(tables.trace)
    for cell, row in zip(cells, tables.cells, strict=True):
        mine = trace[trace["cell_id"] == cell.cell_id].set_index("step")["train_loss"]
        looked = mine[mine.index % 3 == 0]  # 24 samples in batches of 8
        assert row["stopped_step"] == looked.index[looked <= 0.535][0]
        assert mine[row["stopped_step"]] == row["train_loss"]
    assert [row["stopped_step"] for row in tables.cells] == [12, 9]


# -- what cannot -------------------------------------------------------------------------------------


def test_those_that_can_are_named():
    named = set()
    for path in (conf_dir() / "data").glob("*.yaml"):
        if "online" in (settings := yaml.safe_load(path.read_text("utf-8"))):
            named.add(path.stem)
            assert settings["online"] is False
            assert getattr(data, path.stem)(**SIZES).fresh is not None
    assert sorted(named) == list(DRAWN)
    assert data.digits(**SIZES).fresh is data.modular_addition().fresh is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["data=digits", "batch_size=8"],
            "data.online must be false for a data set without fresh samples, got true with runner.data."
            "digits; choose one of parity, polynomial, single_index, staircase, teacher, text, xor or give",
        ),
        (["data=modular_addition", "batch_size=8"], "got true with runner.data.modular_addition"),
        (["data=xor,digits", "batch_size=8"], "got true with runner.data.digits"),
        (["data=xor"], "batch_size must be a whole number >= 1 with data.online=true, got null"),
        (["data=xor", "batch_size=8,null"], "batch_size must be a whole number >= 1 with data.online=true"),
        (
            ["data=xor", "batch_size=8", "measure=kernel_gd_error"],
            "data.online must be false for the measure kernel_gd_error, which needs full batch, got true",
        ),
    ],
)
def test_refused_in_a_line_before_anything_is_written(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sizes = [] if "modular" in arguments[0] else [argument for argument in TINY if "_size" in argument]
    assert sweep.main([*arguments, *sizes, "data.online=true", "width=8", "steps=2"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_what_is_neither_true_nor_false_is_refused(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert sweep.main([*TINY, "width=8", "batch_size=8", "data.online=yes_please"]) == 2
    assert "error: data.online must be true or false, got yes_please" in capsys.readouterr().err


def test_a_batch_may_be_larger_than_the_training_set():
    assert inspect(fresh_cell(batch_size=25)).train_size == 24
    with pytest.raises(UserError, match=r"^batch_size must be at most data\.train_size = 24"):
        inspect(make_cell(batch_size=25))


MISTAKES = {
    "none": (None, "must be false for a data set without fresh samples, got true with test_online.own"),
    "no split": (
        lambda count, stream: torch.ones(count, 3),
        "a runner.data.Split of fresh samples, got Tensor",
    ),
    "too few": (lambda count, stream: of(torch.rand(5, 3, generator=stream)), "got 5 of 64"),
    "its own randomness": (lambda count, stream: of(torch.rand(count, 3)), "got others from the same one"),
    "none at all": (lambda count, stream: of(torch.ones(count, 3)), "got the same from another one"),
    "another shape": (
        lambda count, stream: of(torch.rand(count, 4, generator=stream)),
        r"of one shape, got \(3,\) in the train split and \(4,\) in the fresh split",
    ),
}


def of(inputs):
    return Split(inputs.double(), torch.ones(len(inputs), 1).double())


def own(mistake):
    return Dataset(*(of(torch.ones(30, 3)) for _ in range(3)), task="regression", fresh=MISTAKES[mistake][0])


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_in_a_data_set_of_ones_own_are_named(mistake):
    settings = {"_target_": "test_online.own", "mistake": mistake, "online": True}
    with pytest.raises(UserError, match=MISTAKES[mistake][1]) as caught:
        online.check(settings, data.load(settings), 8)
    assert "\n" not in str(caught.value)


# -- the sweep ---------------------------------------------------------------------------------------


def test_it_is_part_of_a_cell_only_where_it_is_true(monkeypatch):
    plain, off, on = (
        cells_of(monkeypatch, *TINY, "width=8", *more)
        for more in ((), ("data.online=false",), ("data.online=false,true", "batch_size=8"))
    )
    assert [cell.cell_id for cell in plain] == [cell.cell_id for cell in off]
    assert "online" not in plain[0].settings
    assert [json.loads(cell.settings)["data"].get("online") for cell in on] == [None, True]
    assert on[0].cell_id != on[1].cell_id
    digits = cells_of(monkeypatch, "data=digits", "data.online=false", "width=8")
    assert "online" not in digits[0].settings


def test_no_file_need_name_the_key(tmp_path, monkeypatch, capsys):
    assert sweep.main(["--cfg", "job", "data=digits", "data.online=true", "measure.every=2"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert (shown["data"]["online"], shown["measure"]["every"]) == (True, 2)
    (tmp_path / "experiment").mkdir()
    params = {"width": "8,16", "data.online": False, "data": "digits", "measure.every": 2}
    content = yaml.safe_dump({"hydra": {"sweeper": {"params": params}}})
    (tmp_path / "experiment" / "mine.yaml").write_text(f"# @package _global_\n{content}", encoding="utf-8")
    off, on = (
        cells_of(monkeypatch, "--config-dir", str(tmp_path), "+experiment=mine", *more)
        for more in ((), ("data.online=true",))
    )
    assert [json.loads(cells[0].settings)["data"].get("online") for cells in (off, on)] == [None, True]
    assert json.loads(on[1].settings)["measure"]["every"] == 2


def test_a_sweep_in_parts_equals_a_whole_one_and_trains_again_to_the_same(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    line = [*TINY, "data.online=true", "batch_size=6", "seed=0,1", "lr=0.1,0.5", "workers=1"]
    line.append("measure=param_movement")
    assert sweep.main([*line, "width=8,16", "--dry-run"]) == 0
    assert "8 to train of 8" in capsys.readouterr().out
    assert sweep.main([*line, "width=8,16", "store=whole"]) == 0
    assert sweep.main([*line, "width=8,16", "store=parts", "shards=2"]) == 0
    whole, parts = (runner.load(name).cells.set_index("cell_id").sort_index() for name in ("whole", "parts"))
    assert (whole["data.online"] == True).all()  # noqa: E712 (a column)
    assert (whole["status"] == "ok").all()
    for name in ("train_loss", "test_loss", "peak_loss_ratio", "param_movement"):
        np.testing.assert_array_equal(whole[name], parts[name])
    assert cli.main(["verify", "whole", "--rerun", "3"]) == 0
