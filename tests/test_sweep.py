"""Sweeps: launched, interrupted, resumed, failed; and every mistake before anything is written."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from sweeping import TINY, Engine

from runner import store
from runner.commands import sweep
from runner.errors import UserError
from runner.grid.cell import FIELDS
from runner.grid.config import load_thresholds
from runner.launching import launch, workers
from runner.planning.machine import USUAL
from runner.store import launches
from runner.training import preflight

LINE = ("width=8,16,32", "lr=0.1,1,1000", "seed=0,1", "steps=4", "store=out")
RESULTS = [*FIELDS, "cell_id", "status", "regime", "train_loss", "ntk_change", "device"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Every test runs in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def engine(monkeypatch):
    return Engine(monkeypatch)


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    """The summary of a launch is tested with the report."""
    from runner.views import summary

    shown = []
    monkeypatch.setattr(summary, "print_launch_summary", lambda *arguments: shown.append(arguments))
    return shown


def results(path="out"):
    cells = store.load(path).cells
    return cells[RESULTS].sort_values("cell_id", ignore_index=True)


def test_a_sweep_fills_the_store(engine, quiet, folder):
    assert sweep.main(LINE) == 0
    cells = store.load("out").cells
    assert len(cells) == 18
    assert set(cells["status"]) == {"ok", "diverged"}
    assert set(cells.loc[cells["status"] == "diverged", "lr"]) == {1000.0}
    assert set(cells["regime"]) <= {"lazy", "crossover", "rich", "untrained", "diverged"}
    (launch,) = store.load("out").launches
    assert set(cells["launch"]) == {launch}
    assert cells["finished_at"].notna().all()
    assert len(store.load("out").trace) == len(store.load("out").layers) == 18
    assert quiet == [(folder / "out", launch)]
    assert [len(list(Path("out", table).glob("*.parquet"))) for table in ("cells", "trace", "layers")] == [
        1,
        1,
        1,
    ]
    config = launches.read_config(Path("out"), launch)
    assert config["sweep"]["overrides"] == list(LINE)
    assert config["store"] == str(folder / "out")
    assert not list(Path("out").rglob("multirun.yaml"))
    assert launches.read_launch(Path("out"), launch)["command"] == "runner sweep " + " ".join(LINE)


def test_the_same_command_again_trains_nothing(engine, capsys, quiet):
    assert sweep.main(LINE) == 0
    engine.trained.clear()
    before = results()
    assert sweep.main(["lr=1e3,1,0.1", "seed=range(0,2)", *LINE[:1], *LINE[3:]]) == 0
    assert engine.trained == []
    assert "all 18 cells are finished already" in capsys.readouterr().err
    assert len(store.load("out").launches) == 1
    assert len(quiet) == 2
    pd.testing.assert_frame_equal(results(), before)


def test_a_part_of_the_grid_becomes_the_newest_launch_without_training(engine):
    assert sweep.main(LINE) == 0
    engine.trained.clear()
    assert sweep.main([*LINE, "width=8"]) == 0
    assert engine.trained == []
    assert len(store.load("out").launch_cells()) == 6


def test_only_what_is_missing_is_trained(engine, capsys):
    assert sweep.main([*LINE, "width=8"]) == 0
    engine.trained.clear()
    assert sweep.main(LINE) == 0
    assert len(engine.trained) == 12
    assert "6 of 18 cells are finished already" in capsys.readouterr().err
    assert len(store.load("out").launch_cells()) == 18


def test_a_store_keeps_the_machine_that_its_packs_were_formed_for(engine, monkeypatch):
    def measure(cache_bytes):
        found = dataclasses.replace(USUAL, cache_bytes=cache_bytes)
        monkeypatch.setattr(launch, "this_machine", lambda *_: found)

    def packs():
        newest = launches.launch_ids(Path("out"))[-1]
        plan = launches.read_plan(Path("out"), newest, ["cell_id", "pack"]).to_pydict()
        return dict(zip(plan["cell_id"], plan["pack"], strict=True))

    measure(1 << 30)
    engine.error_at[8] = KeyboardInterrupt()
    assert sweep.main(LINE) == 130
    engine.error_at.clear()
    first = packs()
    measure(1 << 10)
    assert sweep.main(LINE) == 0
    assert packs() == first
    assert sweep.main([*LINE, "store=other"]) == 0
    records = [launches.read_launch(Path(name), store.load(name).launches[-1]) for name in ("out", "other")]
    assert [record["machine"]["cache_bytes"] for record in records] == [1 << 30, 1 << 10]
    assert all(record["products"] in {"runner", "torch"} for record in records)


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), SystemExit(3)])
def test_interrupted_and_resumed_equals_uninterrupted(engine, capsys, stop):
    assert sweep.main([*LINE, "store=whole"]) == 0
    engine.error_at[16] = stop
    code = sweep.main(LINE)
    err = capsys.readouterr().err
    if isinstance(stop, KeyboardInterrupt):
        assert code == 130
        assert "interrupted: 6 of 18 cells are finished; the same command runs the rest" in err
        assert "Traceback" not in err
    else:
        assert code == 3
    assert len(results()) == 6
    engine.error_at.clear()
    engine.trained.clear()
    assert sweep.main(LINE) == 0
    assert len(engine.trained) == 12
    pd.testing.assert_frame_equal(results(), results("whole"))


def test_an_interrupted_shard_says_so(engine):
    engine.error_at[8] = KeyboardInterrupt()
    assert sweep.main(LINE) == 130
    (state,) = Path("out").glob("launches/*/shard-0.json")
    assert json.loads(state.read_text())["state"] == "stopped"


def test_a_failed_pack_is_recorded_and_the_rest_goes_on(engine, capsys):
    engine.error_at[16] = RuntimeError("no\nluck")
    assert sweep.main(LINE) == 1
    assert "error: 6 of 18 cells failed; `runner status" in capsys.readouterr().err
    cells = store.load("out").cells
    failed = cells[cells["width"] == 16]
    assert set(failed["status"]) == {"failed"}
    assert set(failed["error"]) == {"RuntimeError: no luck"}
    assert failed[["regime", "train_loss"]].isna().all(axis=None)
    assert (cells["status"] != "failed").sum() == 12
    texts = {path.stem: path.read_text() for path in Path("out").glob("launches/*/errors/*.txt")}
    assert set(texts) == set(failed["cell_id"])
    assert all("raise error" in text for text in texts.values())
    # A failure stands until one asks for another try.
    engine.error_at.clear()
    engine.trained.clear()
    assert sweep.main(LINE) == 1
    assert engine.trained == []
    assert sweep.main([*LINE, "retry=failed"]) == 0
    assert len(engine.trained) == 6
    assert set(results()["status"]) == {"ok", "diverged"}


def test_a_launcher_that_stops_a_job_is_not_a_failure(engine):
    from submitit.core.utils import UncompletedJobError

    engine.error_at[16] = UncompletedJobError("requeue")
    assert sweep.main(LINE) == 1
    assert set(results()["status"]) == {"ok", "diverged"}
    assert len(results()) == 6


def test_shards_share_the_work(engine):
    assert sweep.main([*LINE, "shards=3"]) == 0
    states = [json.loads(path.read_text()) for path in Path("out").glob("launches/*/shard-*.json")]
    assert sorted(state["shard"] for state in states) == [0, 1, 2]
    assert {state["state"] for state in states} == {"finished"}
    assert sum(state["cells_done"] for state in states) == 18
    assert sweep.main([*LINE, "store=whole"]) == 0
    pd.testing.assert_frame_equal(results(), results("whole"))


def test_a_shard_reads_the_snapshot_only(engine, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(launch, "run_shard", lambda *_: None)
        assert sweep.main(LINE) == 1  # jobs that do nothing do not count as done
    (name,) = launches.launch_ids(Path("out").absolute())
    monkeypatch.setattr("runner.grid.config.conf_dir", lambda: Path("/nowhere"))
    launch.run_shard(Path("out").absolute(), name, 0)
    assert len(store.finished(Path("out"))) == 18


def test_a_rerun_of_a_shard_skips_what_is_done(engine):
    engine.error_at[32] = KeyboardInterrupt()
    assert sweep.main(LINE) == 130
    engine.error_at.clear()
    engine.trained.clear()
    path = Path("out")
    launch.run_shard(path, launches.launch_ids(path)[0], 0)
    assert len(engine.trained) == 6


@pytest.mark.parametrize("name", ["out, 'side' [1]", 'a"b', "a b/c=d"])
def test_a_store_of_any_name(engine, name):
    quoted = '"' + name.replace('"', '\\"') + '"'
    assert sweep.main(["width=8", "steps=4", f"store={quoted}"]) == 0
    assert len(results(name)) == 1


def test_cores_come_from_slurm_then_openmp(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "3")
    assert workers.cores() == 3
    monkeypatch.delenv("SLURM_CPUS_PER_TASK")
    assert workers.cores() == 5
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    assert workers.cores() >= 1


BAD = [
    (["widht=3"], "widht must be a known config key"),
    (["widht=3,4"], "did you mean width"),
    (["width=8,16", "model.foo=1"], r"model\.foo must be a known config key .*model\.activation"),
    (["width=8", "model.foo=1,2"], r"model\.foo must be a known config key"),
    (["+foo=1"], "foo must be a known config key"),
    (["parameterization=ntkk"], "parameterization must be one of .*ntk.*, got 'ntkk'; did you mean 'ntk'"),
    (["parameterization=ntk,ntkk", "width=8,16"], "parameterization must be one of .*'ntkk'"),
    (["data=???", "width=8"], "You must specify 'data'"),
    (["data=digit"], "data must be one of .*did you mean 'digits'"),
    (["data=digits,imagenet", "width=8,16"], "data must be one of .*digits.*xor, got 'imagenet'"),
    (["experiment=nope"], "experiment must be one of .*default.*, got 'nope'"),
    (["width=0"], "width must be a whole number >= 1, got 0"),
    (["width=8,0", "lr=0.1"], "width must be a whole number >= 1, got 0"),
    (["lr=-0.1"], "lr must be a finite number > 0, got -0.1"),
    (["lr=0,0.1"], "lr must be a finite number > 0, got 0"),
    (["width="], "width must be a whole number >= 1, got nothing"),
    (["width=choice()"], "width must have at least one value"),
    (["width=range(3,3)"], "width must have at least one value"),
    (["data=glob(z*)", "width=8"], "data must have at least one value, got .*digits"),
    (["+hydra.sweeper.params={width:[]}"], "width must have at least one value"),
    (["+hydra.sweeper.params={width:''}"], "width must be a whole number >= 1, got nothing"),
    (["+hydra.sweeper.params={device:cpu}"], r"hydra\.sweeper\.params\.device must be a key of a cell"),
    (["+hydra.sweeper.params={regime:default}"], r"hydra\.sweeper\.params\.regime must be a key"),
    (["hydra.sweeper.params=3"], r"hydra\.sweeper\.params must be a map"),
    (["hydra.sweeper.grids=[3]"], r"hydra\.sweeper\.grids must be a list of maps"),
    (["lr=logspace(0,1,0)"], "lr must give logspace"),
    (["lr=interval(0.1,1)"], r"lr must be a list of values, got interval\(0.1,1\)"),
    (["lr=linspace(0,1,3)"], "lr: the function of an axis must be one of .*logspace"),
    (["lr=[1"], "lr must be a value or an axis in Hydra's syntax"),
    (["lr"], "lr must be given as lr=VALUE"),
    (["width=8", "store=a,b"], "store must have one value, got a,b"),
    (["width=8", "device=cpu,cuda"], "device must have one value"),
    (["width=8", "regime=default,strict"], "regime must be one name"),
    (["width=8", "experiment=default,other"], "experiment must be one name"),
    (["width=8", "device=tpu"], "device must be one of auto, cpu, cuda, got tpu"),
    (["width=8", "shards=0"], "shards must be"),
    (["width=8", "retry=some"], "retry must be one of all, failed, or null"),
    (["width=8", "kernel_memory_mb=0"], "kernel_memory_mb must be a finite number > 0, got 0"),
    (["width=8", "launch=x"], "launch must not be given"),
    (["width=8", "hydra/launcher=slurmm"], "hydra/launcher must be one of .*basic.*did you mean 'slurm'"),
    (["width=8", "wait=false"], "wait must be true with a launcher that cannot leave its jobs alone"),
    (["width=8", "checkpoint_minutes=0"], "checkpoint_minutes must be a finite number > 0, or null"),
    (["width=8", "shard=0"], "shard must be less than shards = null, got 0"),
    (["width=8", "shard=2", "shards=2"], "shard must be less than shards = 2, got 2"),
    (["width=8", "shard=0", "shards=2", "hydra/launcher=joblib"], "shard must be null with a launcher"),
    (["width=8", "hydra.launcher.a=1,2"], "hydra.launcher.a must be one value"),
    (["width=8", "lr=${nope}"], "lr must refer to a key that exists"),
    (["width=8", "+width=3"], "width must be new to be added"),
    (["width=8", "~foo"], "foo must exist to be deleted"),
    (["width=8", "~steps"], "steps must be set"),
    (["width=8", "parameterization=3"], "a group .* must be given a name"),
    (["width=8", "parameterization.a.input=x"], r"parameterization\.a\.input must be an exponent, got x"),
    (["width=8", "regime.lazy=-1"], r"regime\.lazy must"),
    (["width=8", "--config-dir", "nowhere"], "--config-dir must be a folder, got .*nowhere"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[" ".join(line) for line, _ in BAD])
def test_bad_input_is_one_line_and_writes_nothing(engine, capsys, folder, arguments, message):
    assert sweep.main(arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert pd.Series([err]).str.contains(message).all(), err
    assert list(folder.iterdir()) == []
    assert engine.trained == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model.activation=swish"], "activation"),
        (["data.train_size=0"], "train_size"),
        (["batch_size=100000"], "batch_size"),
        (["++measure.points=1"], "measure.points"),
        (["++model._target_=runner.models.Nope"], "_target_"),
        (["data=xor", "data.linear=1", "loss=cross_entropy"], "loss"),
    ],
)
def test_the_engine_is_asked_before_anything_is_written(capsys, folder, arguments, message):
    assert sweep.main(["width=8,16", *arguments]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1
    assert list(folder.iterdir()) == []


def test_no_gpu(engine, monkeypatch, capsys, folder):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert sweep.main(["width=8", "device=cuda"]) == 2
    assert "error: device must " in capsys.readouterr().err
    assert list(folder.iterdir()) == []


def test_an_unwritable_store(engine, capsys, folder):
    (folder / "file").write_text("")
    assert sweep.main(["width=8", "store=file/out"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: store must ")
    assert err.count("\n") == 1
    assert [path.name for path in folder.iterdir()] == ["file"]


def test_a_newer_store(engine, monkeypatch, capsys):
    assert sweep.main(LINE) == 0
    for path in Path("out/cells").iterdir():
        table = pq.read_table(path)
        pq.write_table(
            table.replace_schema_metadata({**table.schema.metadata, b"schema_version": b"99"}), path
        )
    engine.trained.clear()
    capsys.readouterr()
    assert sweep.main([*LINE, "seed=7"]) == 2
    assert "error: store must have schema version" in capsys.readouterr().err
    assert engine.trained == []
    assert len(list(Path("out/launches").iterdir())) == 1


def test_no_cells(engine):
    with pytest.raises(UserError, match="the grid must have at least one cell"):
        launch.launch([], {"device": "cpu", "retry": None, "shards": None, "regime": THRESHOLDS}, Path("out"))
    assert not Path("out").exists()


THRESHOLDS = load_thresholds("default")


def test_debug_shows_the_traceback(engine, capsys):
    assert sweep.main(["--debug", "width=0"]) == 2
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.endswith("error: width must be a whole number >= 1, got 0; e.g. width=128\n")


def test_our_own_mistakes_show_the_traceback(engine, monkeypatch, capsys):
    monkeypatch.setattr(launch, "launch", lambda *_, **__: 1 / 0)
    assert sweep.main(["width=8"]) == 1
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_the_command_line_is_left_as_it_was(engine):
    argv, environment = list(sys.argv), dict(os.environ)
    sweep.main(["width=0"])
    sweep.main(["--cfg", "job"])
    assert sys.argv == argv
    assert dict(os.environ) == environment


def test_a_real_sweep(quiet):
    line = ["width=4,8", "lr=0.1,1", "parameterization=ntk,mup", *TINY, "store=out", "device=cpu"]
    assert sweep.main(line) == 0
    cells = store.load("out").cells
    assert len(cells) == 8
    assert set(cells["status"]) == {"ok"}
    assert cells[["ntk_change", "feature_movement", "train_loss", "lambda_max_init"]].notna().all(axis=None)
    assert set(store.load("out").trace["step"]) == {0, 1, 2, 3, 4}
    assert set(store.load("out").layers["cell_id"]) == set(cells["cell_id"])
    assert preflight.inspect.__module__ == "runner.training.preflight"


@pytest.mark.slow
def test_from_the_shell(folder):
    """Own configs and modules of the working directory, a kill in the middle, then the rest."""
    (folder / "mine.py").write_text("from runner.data import xor\ndef data(**keys): return xor(**keys)\n")
    (folder / "conf" / "data").mkdir(parents=True)
    keys = {"name": "mine", "_target_": "mine.data", "seed": 0, "dim": 4, "linear": 0.0, "standardize": False}
    keys |= {"inputs": "sphere", "train_size": 16, "test_size": 8, "probe_size": 8}
    (folder / "conf" / "data" / "mine.yaml").write_text(yaml.safe_dump(keys))
    runner = str(Path(sys.executable).parent / "runner")
    command = [runner, "sweep", "--config-dir", "conf", "data=mine", "width=4,8", "steps=3", "name=shell"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "2/2 cells" in done.stderr
    assert len(store.load("outputs/shell").cells) == 2
