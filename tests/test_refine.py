"""Refining sweeps: the same places as a grid as fine, by few cells, whatever interrupts them."""

import io
import json
import shutil
import signal
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout

import numpy as np
import pandas as pd
import pytest
from stores import WRITTEN
from sweeping import TINY, Engine

import runner
from runner.commands import sweep
from runner.commands.status import COMMAND as STATUS
from runner.launching import refine
from runner.schema import KEYS
from runner.store import launches
from runner.training.record import PackTables

AXES = ("width=8,16,32", "lr=logspace(-2,1,4)", "seed=0,1", "steps=4", "store=out")
EDGE = ("refine=edge", "refine.tolerance=0.05")
VOLATILE = ["launch", "train_seconds", "finished_at"]


class Diverging(Engine):
    """Cells diverge beyond 7 / width, a little earlier with each seed; the kernel changes by lr width / 7."""

    def train_pack(self, cells, device, on_progress=None, checkpoint=None):
        made = super().train_pack(cells, device, on_progress, checkpoint)
        for row, cell in zip(made.cells, cells, strict=True):
            richness = cell.lr * cell.width / 7 * 1.1**cell.seed
            row["status"] = "diverged" if richness > 1 else "ok"
            row["ntk_change"] = row["feature_movement"] = richness
        return PackTables(made.cells, made.trace, made.layers)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Every test runs in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def engine(monkeypatch):
    return Diverging(monkeypatch)


@pytest.fixture
def quiet(monkeypatch):
    """Without the figure that a sweep draws at its end."""
    monkeypatch.setattr("runner.views.summary.print_launch_summary", lambda *_: None)


def tables(path="out"):
    """The tables in one order, without what differs between launches."""
    found = {}
    for name in WRITTEN:
        table = pd.read_parquet(f"{path}/{name}").drop(columns=VOLATILE, errors="ignore")
        found[name] = table.sort_values(list(KEYS[name]), ignore_index=True)
    return found


@pytest.fixture(scope="module")
def narrowed(tmp_path_factory):
    """A store refined to the tolerance, and what was said of it."""
    folder = tmp_path_factory.mktemp("narrowed")
    out, error = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(error):
        patch.chdir(folder)
        Diverging(patch)
        assert sweep.main((*AXES, *EDGE)) == 0
    return folder / "out", out.getvalue(), error.getvalue()


@pytest.fixture
def out(narrowed, folder):
    """The refined store, for a test to go on with."""
    shutil.copytree(narrowed[0], folder / "out")


def places(path="out"):
    return runner.load(path).boundary().table


def test_every_place_is_known_to_the_tolerance(narrowed):
    store, shown, error = narrowed
    cells = runner.load(store).cells
    # One decade is halved five times; a grid as fine has 97 learning rates.
    assert len(cells) == 6 * (4 + 5)
    for (width, seed), part in cells.groupby(["width", "seed"]):
        last, first = part.lr[part.status == "ok"].max(), part.lr[part.status == "diverged"].min()
        assert last < 7 / width / 1.1**seed < first
        assert np.log10(first / last) <= 0.05
    assert "refined: diverged along lr is known to 0.0313 decades; 6 rounds, 30 cells beyond" in error
    assert "slope against width where it begins: -1.0" in shown
    assert len(launches.launch_ids(store)) == 6


def test_the_places_are_those_of_a_grid_as_fine(engine, quiet, narrowed):
    fine = ("width=8,16,32", "lr=logspace(-2,1,97)", "seed=0,1", "steps=4", "store=fine")
    assert sweep.main(fine) == 0
    coarse, exact = places(narrowed[0]), places("fine")
    assert np.abs(np.log10(coarse["place"] / exact["place"])).max() < 0.05
    assert len(runner.load(narrowed[0]).cells) < 0.25 * len(runner.load("fine").cells)


@pytest.mark.usefixtures("quiet", "out")
def test_the_same_command_has_nothing_to_do(engine, capsys):
    known = tables()
    assert sweep.main((*AXES, *EDGE)) == 0
    assert engine.trained == []
    assert "all 54 cells are finished already" in capsys.readouterr().err
    for name in WRITTEN:
        pd.testing.assert_frame_equal(tables()[name], known[name])


@pytest.mark.usefixtures("quiet", "out")
def test_more_tolerance_later_goes_on_from_there(engine):
    assert sweep.main((*AXES, "refine=edge", "refine.tolerance=0.02")) == 0
    assert len(runner.load("out").cells) == 6 * (4 + 6)
    assert len(engine.trained) == 6


@pytest.mark.parametrize("after", [33])
def test_interrupted_it_ends_with_the_same_tables(engine, quiet, narrowed, after, monkeypatch):
    line = (*AXES, *EDGE)
    train, count = engine.train_pack, [0]

    def stopping(cells, *arguments, **options):
        count[0] += len(cells)
        if count[0] > after:
            raise KeyboardInterrupt
        return train(cells, *arguments, **options)

    monkeypatch.setattr("runner.training.train.train_pack", stopping)
    assert sweep.main(line) == 130
    monkeypatch.setattr("runner.training.train.train_pack", train)
    assert sweep.main(line) == 0
    for name in WRITTEN:
        pd.testing.assert_frame_equal(tables()[name], tables(narrowed[0])[name])


def test_it_ends_at_the_most_cells_and_says_so(engine, quiet, capsys):
    assert sweep.main((*AXES, *EDGE, "refine.most=8")) == 0
    assert len(runner.load("out").cells) == 6 * 4 + 8
    assert "refining ended at refine.most=8: diverged along lr is known to 0.5" in capsys.readouterr().err


def test_a_cell_between_that_fails_ends_its_line_and_is_said(engine, quiet, capsys, monkeypatch):
    train = engine.train_pack

    def failing(cells, *arguments, **options):
        if any(cell.width == 8 and 0.3 < cell.lr < 0.4 for cell in cells):
            raise RuntimeError("of its own")
        return train(cells, *arguments, **options)

    monkeypatch.setattr("runner.training.train.train_pack", failing)
    two = (*AXES, *EDGE, "width=8,16")
    assert sweep.main(two) == 1
    error = capsys.readouterr().err
    assert (
        "refining ended at 2 cells that failed or say nothing: diverged along lr is known to 1 decades"
        in error
    )
    assert "2 of 28 cells failed" in error
    found = runner.load("out").cells
    assert found.groupby("width").size().tolist() == [2 * 5, 2 * 9]
    monkeypatch.setattr("runner.training.train.train_pack", train)
    assert sweep.main((*two, "retry=failed")) == 0
    assert len(runner.load("out").cells) == 4 * 9


def test_what_never_changes_is_said_after_the_first_round(engine, quiet, capsys):
    assert sweep.main(("width=8", "lr=0.001,0.01,0.1", "steps=4", "store=out", *EDGE)) == 0
    assert "not refined: diverged along lr changes nowhere" in capsys.readouterr().err
    assert len(runner.load("out").cells) == 3


def test_toward_a_level_of_a_measure(engine, quiet):
    asked = ("refine=edge", "refine.of=ntk_change", "refine.level=0.3", "refine.tolerance=0.05")
    assert sweep.main((*AXES, *asked, "width=8,16")) == 0
    view = runner.load("out").boundary()
    assert view.asked["of"] == "ntk_change=0.3"
    truth = 0.3 * 7 / view.table["width"] / 1.1**0.5
    np.testing.assert_allclose(view.table["place"], truth, rtol=1e-6)  # interpolated on a power law


def test_along_a_key_of_a_group_and_along_whole_numbers(engine, quiet):
    sigma = ("model.sigma_weight=0.5,8", "width=8,512", "refine=edge", "steps=4", "refine.of=ntk_change",
             "lr=0.1", "store=out")  # fmt: skip
    assert sweep.main((*sigma, "refine.along=width", "refine.level=1")) == 0
    found = sorted({int(width) for width in runner.load("out").cells["width"]})
    assert 70 in found or 71 in found  # lr width / 7 = 1
    assert len(found) < 12
    assert sweep.main((*sigma[2:], "width=8", "data=xor", "data.linear=0.1,0.9", "store=other",
                       "refine.along=data.linear", "refine.level=1")) == 0  # fmt: skip


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("refine.along=null",), "refine.along must be set to refine, got null"),
        (("refine.along=nothing",), "refine.along must be a key of every cell, got nothing"),
        (
            ("refine.along=gamma",),
            "refine.along must be an axis with several values to start from, got gamma",
        ),
        (("refine.along=loss",), "refine.along must be a key with numbers, got loss"),
        (("refine.of=divergd",), "refine.of must be one of"),
        (("refine.of=ntk_chang", "refine.level=1"), "refine.of must be measured, got ntk_chang=1.0"),
        (("refine.of=c_sharp",), "refine.of must be measured, got c_sharp of cells without sharpness"),
        (("refine.tolerance=0",), "refine.tolerance must be a finite number > 1e-5"),
        (("refine.most=0",), "refine.most must be"),
        (("refine.nothing=1",), "refine.nothing"),
        (("retry=all",), "retry must be null or failed in a sweep that refines, got all"),
        (("shards=2", "shard=0"), "shard must be null in a sweep that refines"),
        (("zip=width,lr", "lr=0.01,0.1,1"), "refine.along must be an axis of its own, got lr"),
        (("refine=egde",), "refine"),
        (("refine=edge,crossover",), "refine must be one name"),
    ],
)
def test_mistakes_before_anything_is_written(engine, folder, words, message, capsys):
    assert sweep.main((*AXES, "refine=edge", *words)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert not (folder / "out").exists()


def test_two_at_once_are_refused(engine, folder, capsys):
    with refine.alone(folder / "out"):
        assert sweep.main((*AXES, *EDGE)) == 2
    assert "store must be refined by one sweep at a time" in capsys.readouterr().err


def test_a_dry_run_says_what_may_follow(engine, folder, capsys):
    assert sweep.main((*AXES, *EDGE, "refine.most=100", "--dry-run")) == 0
    assert "then rounds of at most 100 cells that narrow diverged along lr to 0.05" in capsys.readouterr().out
    assert not (folder / "out").exists()


def test_status_tells_the_round(narrowed, capsys):
    store = str(narrowed[0])
    assert STATUS.main([store]) == 0
    assert (
        "refining  round 6: diverged along lr to 0.05, known to 0.0625 before it" in capsys.readouterr().out
    )
    assert STATUS.main([store, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["launches"][-1]["refine"]["round"] == 6


@pytest.mark.slow
@pytest.mark.usefixtures("quiet")
def test_killed_in_the_second_round_it_ends_with_the_same_tables():
    line = [*TINY, "steps=40", "width=16,64", "seed=0,1", "lr=0.1,10,1000", "parameterization=ntk",
            "refine=edge", "refine.tolerance=0.3", "workers=1"]  # fmt: skip

    command = [sys.executable, "-m", "runner", "sweep", *line, "store=killed"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        while "round 2" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    before = len(runner.load("killed").cells)
    for store in ("killed", "whole"):
        assert sweep.main((*line, f"store={store}")) == 0
    assert before < len(runner.load("whole").cells)
    for name in WRITTEN:
        pd.testing.assert_frame_equal(tables("killed")[name], tables("whole")[name], check_exact=True)
