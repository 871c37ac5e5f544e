"""Code of the user's that was edited after a sweep, and cells that are trained again to compare."""

import sys
from pathlib import Path

import pandas as pd
import pytest
from sweeping import TINY

from runner import cli, store
from runner.commands import sweep
from runner.launching import rerun as rerun_module
from runner.store import launches
from runner.training import train
from runner.views import summary

MEASURE = """import torch
from runner.measures import Measurement

def size(now, start):
    return Measurement(trace={{"size": torch.full((len(now.ensemble.cells),), {value})}})
"""
LINE = [
    *TINY,
    "width=8",
    "seed=0,1",
    "store=out",
    "workers=1",
    "+measure.functions.size._target_=edited.size",
]


def write(value):
    Path("edited.py").write_text(MEASURE.format(value=value))
    sys.modules.pop("edited", None)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(summary, "print_launch_summary", lambda *_: None)  # tested with the report
    yield
    sys.modules.pop("edited", None)


def sizes():
    return sorted(pd.read_parquet("out/cells")["size"])


def test_an_edited_measure_is_named_and_trained_again_when_asked(capsys):
    write(1.0)
    assert sweep.main(LINE) == 0
    capsys.readouterr()
    assert sweep.main(LINE) == 0
    assert "has changed" not in capsys.readouterr().err
    write(2.0)
    assert sweep.main(LINE) == 0
    said = capsys.readouterr().err
    assert "edited.py has changed since launch" in said
    assert "trained 2 of these cells, which stay as they are; retry=all trains them again" in said
    assert sizes() == [1.0, 1.0]
    assert sweep.main([*LINE, "retry=all"]) == 0
    assert sizes() == [2.0, 2.0]
    capsys.readouterr()
    assert sweep.main(LINE) == 0
    said = capsys.readouterr().err
    assert "has changed" not in said
    assert "all 2 cells are finished already" in said


def test_the_record_has_the_digest():
    write(1.0)
    assert sweep.main(LINE) == 0
    opened = store.load("out")
    (source,) = launches.read_launch(opened.path, opened.launches[-1])["sources"].items()
    assert source[0] == "edited.size"
    assert source[1]["file"].endswith("edited.py")
    assert len(source[1]["digest"]) == 64


def test_retry_all_of_this_packages_own(capsys):
    assert sweep.main([*TINY, "width=8,16", "store=out", "workers=1"]) == 0
    before = pd.read_parquet("out/cells").set_index("cell_id")
    assert sweep.main([*TINY, "width=8,16", "store=out", "workers=1", "retry=all"]) == 0
    after = pd.read_parquet("out/cells").set_index("cell_id")
    assert set(after.index) == set(before.index)
    assert (after["launch"] != before["launch"]).all()
    assert sweep.main([*TINY, "width=8", "store=out", "retry=some"]) == 2
    assert "retry must be one of all, failed, or null, got some" in capsys.readouterr().err


def test_verify_finds_modules_that_sweep_finds(capsys, monkeypatch):
    write(1.0)
    assert sweep.main(LINE) == 0
    here = sys.path.pop()
    sys.modules.pop("edited", None)
    assert cli.main(["verify", "out", "--rerun", "1"]) == 2
    assert "add --trust if the store is yours" in capsys.readouterr().err
    assert cli.main(["verify", "out", "--rerun", "1", "--trust"]) == 0, here
    assert "cells trained again and compared\nsound" in capsys.readouterr().out


def test_two_cells_are_two_cells(monkeypatch, capsys):
    """`--rerun 2` trained all cells of their packs."""
    assert sweep.main([*TINY, "width=8", "seed=range(0,40)", "store=out", "workers=1"]) == 0
    trained = []
    train_pack = train.train_pack
    monkeypatch.setattr(
        train, "train_pack", lambda cells, *more: trained.append(len(cells)) or train_pack(cells, *more)
    )
    compared, problems = rerun_module.rerun(store.load("out").path, 2)
    assert problems == []
    assert compared >= 2
    assert trained[0] == 2
