"""A store that version 0.1.0 wrote (tests/old_store): it loads, shows and extends."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from runner import cli, load
from runner.commands import sweep
from runner.store.verify import verify

OLD = Path(__file__).parent / "old_store"
LINE = [
    "data=xor", "data.dim=4", "data.train_size=16", "data.test_size=8", "data.probe_size=8", "width=8,16,32",
    "lr=0.1,1,300", "steps=4", "workers=1", "measure.points=3", "store=old",
]  # fmt: skip
SINCE = (
    "base_depth",
    "loss_limit",
    "sigma",
    "symmetric_init",
    "precision",
    "pattern_change",
    "best_ntk_gain",
    "loss_barrier",
    "ntk_sketch_error",
    "controlled_divergence",
    "max_logit",
    "margin",
    "wrong_margin",
    "peak_logit",
    "worst_wrong_margin",
    "peak_feature_movement",
)
"""Columns that came later: null in it."""


@pytest.fixture
def old(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(OLD, tmp_path / "old")
    return load("old")


def test_it_loads(old):
    assert old.cells["status"].value_counts().to_dict() == {"ok": 12, "diverged": 6}
    assert old.cells[list(SINCE)].isna().all(axis=None)
    assert len(old.trace) == 36 + 6
    assert verify(Path("old")).problems == []


@pytest.mark.parametrize(
    "command",
    [
        "phase",
        "fit --where lr=1",
        "curves --where lr=1",
        "transfer",
        "status",
        "profile --where lr=1 --metric movement_frobenius",
        "report",
    ],
)
def test_it_shows(old, capsys, command):
    word, *options = command.split()
    assert cli.main([word, "old", *options]) == 0
    assert capsys.readouterr().out


def test_the_same_command_trains_nothing_and_more_seeds_are_added(old, capsys):
    assert sweep.main([*LINE, "seed=0,1"]) == 0
    assert "all 18 cells are finished already" in capsys.readouterr().err
    assert sweep.main([*LINE, "seed=0,1,2"]) == 0
    assert "18 of 27 cells are finished already" in capsys.readouterr().err
    now = load("old").cells
    assert len(now) == 27
    before = old.cells.set_index("cell_id")
    kept = now.set_index("cell_id").loc[before.index]
    shared = [name for name in before if name not in SINCE]
    pd.testing.assert_frame_equal(kept[shared], before[shared])
