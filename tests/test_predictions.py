"""Outputs of networks, kept in a table of their own."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from cells import DIGITS, make_cell
from sweeping import TINY

import runner
from runner import cli, data
from runner.commands import sweep
from runner.preemption import Stopped
from runner.store.verify import verify
from runner.training.checkpoint import Checkpoint
from runner.training.train import train_pack

CPU = torch.device("cpu")


def measure(**options):
    return {"points": 3, "functions": {"predictions": {"_target_": "runner.measures.predictions", **options}}}


def pack(**options):
    return [make_cell(seed=seed, data=DIGITS, measure=measure(**options)) for seed in (0, 1)]


def test_losses_follow_from_the_kept_outputs():
    cells = pack(splits=["probe", "test", "train"])
    tables = train_pack(cells, CPU)
    kept, trace = pd.DataFrame(tables.outputs), pd.DataFrame(tables.trace)
    dataset = data.load(json.loads(cells[0].settings)["data"])
    for _, row in trace.iterrows():
        for split, column in (("train", "train_loss"), ("test", "test_loss")):
            same = kept[(kept["cell_id"] == row["cell_id"]) & (kept["step"] == row["step"])]
            f = (
                same[same["split"] == split]
                .pivot(index="sample", columns="output", values="value")
                .to_numpy()
            )
            y = getattr(dataset, split).targets.numpy()
            kept_targets = same[same["split"] == split].pivot(
                index="sample", columns="output", values="target"
            )
            np.testing.assert_array_equal(kept_targets, y)
            assert ((f - y) ** 2).sum() / (2 * len(y)) == pytest.approx(row[column], rel=1e-12)
    assert len(kept) == 2 * 3 * 10 * (10 + 20 + 40)


def test_only_at_the_ends_and_only_on_probes():
    kept = pd.DataFrame(train_pack(pack(at="ends"), CPU).outputs)
    assert set(kept["step"]) == {0, 20}
    assert set(kept["split"]) == {"probe"}


def test_they_are_gone_on_with(tmp_path):
    cells = pack()
    asked = iter([False, False, False, True])
    with pytest.raises(Stopped):
        train_pack(cells, CPU, checkpoint=Checkpoint(tmp_path, cells, CPU, stop=lambda: next(asked)))
    again = train_pack(cells, CPU, checkpoint=Checkpoint(tmp_path, cells, CPU))
    pd.testing.assert_frame_equal(
        pd.DataFrame(again.outputs), pd.DataFrame(train_pack(cells, CPU).outputs), check_exact=True
    )


def test_in_a_store(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    line = [
        *TINY,
        "width=8,16",
        "seed=0,1",
        "measure=[basic,predictions]",
        "measure.points=3",
        "store=out",
        "workers=1",
    ]
    assert sweep.main([*line, "--dry-run"]) == 0
    assert "outputs 96 rows, about" in capsys.readouterr().out
    assert sweep.main(line) == 0
    assert "outputs are kept: 96 rows, about" in capsys.readouterr().err
    store = runner.load("out")
    assert len(store.outputs) == 4 * 3 * 8
    assert set(store.cells["output_rows"]) == {24}
    assert pd.read_parquet("out/outputs")["value"].dtype == np.float64
    assert verify(store.path).problems == []
    assert cli.main(["verify", "out", "--rerun", "4"]) == 0
    assert cli.main(["export", "out", "--to", "csv", "--out", "tables"]) == 0
    assert len(pd.read_csv("tables/outputs.csv")) == 96
    ensemble = store.outputs.merge(store.cells[["cell_id", "width", "seed"]]).query("step == 4")
    spread = ensemble.groupby(["width", "sample"])["value"].std()
    assert (spread > 0).all()


def test_a_store_without_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert sweep.main([*TINY, "width=8", "store=out", "workers=1"]) == 0
    store = runner.load("out")
    assert store.outputs.empty
    assert not (tmp_path / "out" / "outputs").exists()
    assert store.cells["output_rows"].isna().all()


def test_a_split_that_is_none(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = ["measure=[basic,predictions]", "measure.functions.predictions.splits=[probes]", "store=out"]
    assert sweep.main([*TINY, "width=8", *arguments]) == 2
    error = capsys.readouterr().err
    assert "splits must be one of probe, test, train, got 'probes'; did you mean 'probe'?" in error
    assert not (tmp_path / "out").exists()
