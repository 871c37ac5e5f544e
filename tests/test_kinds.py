"""What a user ran into, one example of each kind."""

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import pytest
from pages import copy_examples
from sweeping import TINY

import runner
from runner import cli, store
from runner.analysis.selection import select
from runner.commands import sweep
from runner.store.leases import Leases

ONE = [*TINY, "workers=1", "store=out"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


# -- the command line --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("measure=[basic,1]", "a group must be given names, got a list with something else"),
        ("name=w${width}", "name must be one for all cells, got w${width}, and width has several values"),
        (
            "store=at/${width}",
            "store must be one for all cells, got at/${width}, and width has several values",
        ),
        ("name='q_\udcc3\udcbc'", "arguments must be in the encoding of the locale, got name='q_"),
    ],
)
def test_mistakes_are_one_line(argument, message, capsys, tmp_path):
    assert sweep.main([*TINY, "width=8,16", argument]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_name_may_refer_to_a_key_with_one_value(tmp_path):
    assert sweep.main([*TINY, "width=8", "name=w${width}", "workers=1"]) == 0
    assert (tmp_path / "outputs" / "w8" / "cells").is_dir()


# -- analysis ----------------------------------------------------------------------------------------


def test_lists_are_selected_by_where_and_names_are_shown_under_an_ascii_locale(capsys):
    assert sweep.main([*TINY, "workers=1", "store='qü'", "width=8,16,32", "measure.steps=[0,1],[0,2,3]"]) == 0
    results = runner.load("qü")
    for text, count in (("[0,1]", 3), ("[0, 2, 3]", 3), ("[0,1],[0,2,3]", 6)):
        assert len(select(results.cells, [f"measure.steps={text}"])) == count
    assert cli.main(["phase", "qü", "--where", "measure.steps=[0,1]"]) == 0
    assert cli.main(["phase", "qü", "--where", "measure.steps=[0,9]"]) == 2
    assert "must be one of [0, 1], [0, 2, 3], got [0,9]" in capsys.readouterr().err
    # Measures are called in Python as their options are.
    chosen = {"where": "measure.steps=[0,1]"}
    assert set(results.fit(metric="ntk_change", **chosen).table["metric"]) == {"ntk_change"}
    assert set(results.curves(metric=["train_loss"], **chosen).table["metric"]) == {"train_loss"}
    run = subprocess.run(
        [sys.executable, "-m", "runner", "status", "qü"], capture_output=True, check=False,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert b"q\\xfc" in run.stdout


# -- work that must not be lost ----------------------------------------------------------------------


def test_a_network_that_no_memory_holds_costs_no_other(capsys):
    assert sweep.main([*ONE, "width=8,200000"]) == 1
    cells = pd.read_parquet("out/cells").set_index("width")
    assert cells.loc[8, "status"] == "ok"
    assert cells.loc[200000, "status"] == "failed"
    assert "memory" in cells.loc[200000, "error"]
    assert "Traceback" not in capsys.readouterr().err


def test_waiting_for_the_cells_of_another_process_is_said(capsys):
    assert sweep.main([*ONE, "width=8", "seed=0"]) == 0
    opened = store.load("out")
    (cell_id,) = opened.cells["cell_id"]
    held = Leases(opened.path, opened.launches[-1], 0)

    def hold():
        with held.take({cell_id}):
            time.sleep(4)

    other = threading.Thread(target=hold)
    other.start()
    time.sleep(0.5)
    capsys.readouterr()
    assert sweep.main([*ONE, "width=8", "seed=0", "retry=all"]) == 0
    other.join()
    said = capsys.readouterr().err
    assert said.count("are being trained by another process, which holds their lease") == 1


def test_a_store_that_is_removed_while_it_is_written(tmp_path):
    line = [sys.executable, "-m", "runner", "sweep", *ONE, "width=8,16", "lr=0.1,0.2", "steps=2000"]
    running = subprocess.Popen(line, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("out/launches/*/leases/*.cells")) and time.monotonic() < deadline:
        time.sleep(0.1)
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    _, error = running.communicate(timeout=120)
    assert running.returncode in (0, 2), error
    assert "Traceback" not in error
    if running.returncode:
        assert "store must" in error


# -- the examples of the docs ------------------------------------------------------------------------


def test_the_examples_of_the_docs_show_something(tmp_path, monkeypatch):
    copy_examples(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    stripes = (
        "--config-dir my_conf data=stripes data.frequency=2.0 model.bias=true model.sigma_bias=1 width=64"
    )
    try:
        assert (
            sweep.main(
                [*stripes.split(), *["lr=1", "lr_unit=sharpness", "steps=1000", "store=stripes", "workers=1"]]
            )
            == 0
        )
        gated = "model=own model._target_=my_model.GatedMLP +model.activation=gelu,tanh width=32"
        more = "parameterization=ntk,mup lr=0.5 lr_unit=sharpness steps=50 store=gated workers=1"
        assert sweep.main([*gated.split(), *more.split()]) == 0
    finally:
        for name in ("my_data", "my_model"):
            sys.modules.pop(name, None)
    assert pd.read_parquet("stripes/cells")["train_error"].item() < 0.1
    assert set(pd.read_parquet("gated/cells")["status"]) == {"ok"}


def test_what_is_said_of_image_sizes_is_so():
    page = (Path(__file__).parents[1] / "docs/pages/recipes/images.md").read_text("utf-8")
    from runner.data.images import KNOWN

    for known in KNOWN.values():
        assert " x ".join(map(str, known.shape)) in page
