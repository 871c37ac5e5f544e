"""Launch records, heartbeats and what `runner status` makes of them."""

import errno
import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from stores import plan, rows

import runner
from runner import store
from runner.errors import UserError
from runner.schema import SCHEMA_VERSION
from runner.store import files, launches, shards, status

CONFIG = {"width": 64, "lr": 1e-05, "batch_size": None, "model": {"name": "mlp"}, "name": "größe"}


def launch(folder, ids=("a", "b", "c", "d"), packs=(0, 0, 1, 1), shards=(0, 0, 1, 1), **provenance):
    return launches.new_launch(folder, CONFIG, plan(ids, packs, shards), provenance)


def finish(folder, ids, launch_id, name="1", **columns):
    store.write_part(folder, "cells", rows("cells", ids, launch=launch_id, **columns), name)


# -- records -----------------------------------------------------------------------------------------


def test_a_launch_comes_back_as_recorded(tmp_path):
    first = launch(tmp_path, device="cpu", command=["/usr/bin/runner", "sweep", "lr=0.1,1", "name=a b"])
    assert launches.launch_ids(tmp_path) == [first]
    assert launches.read_config(tmp_path, first) == CONFIG
    recorded = launches.read_plan(tmp_path, first)
    assert recorded.to_pydict() == plan(["a", "b", "c", "d"], [0, 0, 1, 1], [0, 0, 1, 1])
    record = launches.read_launch(tmp_path, first)
    assert record["command"] == "runner sweep lr=0.1,1 'name=a b'"
    assert (record["cells"], record["to_train"], record["shards"], record["device"]) == (4, 4, 2, "cpu")


def test_a_plan_of_many_row_groups_is_read_a_shard_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(launches, "ROW_GROUP_ROWS", 3)
    ids, shards = [f"c{place}" for place in range(10)], [0, 1, None, 1, 0, None, 1, 1, 0, 1]
    name = launch(tmp_path, ids, [0, 0, None, 1, 1, None, 2, 2, 3, 3], shards)
    assert launches.read_plan(tmp_path, name)["cell_id"].to_pylist() == ids
    for shard in (0, 1, 2):
        found = launches.read_plan(tmp_path, name, shard=shard)
        assert found["cell_id"].to_pylist() == [i for i, s in zip(ids, shards, strict=True) if s == shard]
    record = launches.read_launch(tmp_path, name)
    assert (record["cells"], record["to_train"], record["shards"]) == (10, 8, 2)


def test_sweep_yaml_is_for_people_and_holds_the_history(tmp_path):
    first = launch(tmp_path)
    second = launch(tmp_path, ids=["a", "e"], packs=[0, 1], shards=[-1, 0], device="cuda")
    text = (tmp_path / "sweep.yaml").read_text("utf-8")
    assert text.startswith("# What `runner sweep` ran in this folder")
    assert "größe" in text
    assert "!!" not in text
    summary = yaml.safe_load(text)
    assert summary["config"] == CONFIG
    assert summary["device"] == "cuda"
    assert summary["versions"]["runner"] == runner.__version__
    assert {"python", "torch", "hydra-core", "numpy", "pyarrow"} <= set(summary["versions"])
    assert [(item["id"], item["cells"], item["to_train"]) for item in summary["launches"]] == [
        (first, 4, 4),
        (second, 2, 1),
    ]


def test_ids_sort_by_time_even_within_a_microsecond(tmp_path, monkeypatch):
    class Frozen(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)

    monkeypatch.setattr(launches, "datetime", Frozen)
    suffixes = iter(["aa", "aa"])
    monkeypatch.setattr(launches.secrets, "token_hex", lambda n: next(suffixes))
    assert launch(tmp_path) == "20260102T030405-000006-aa"
    assert launch(tmp_path) == "20260102T030405-000007-aa"  # later, whatever the clock says


def test_launches_of_many_processes_at_once_all_count(tmp_path):
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]);"
        "from test_launches import launch; print(launch(Path(sys.argv[2])))"
    )
    command = [sys.executable, "-c", code, str(Path(__file__).parent), str(tmp_path)]
    jobs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    ids = sorted(job.communicate()[0].strip() for job in jobs)
    assert len(set(ids)) == 3
    assert launches.launch_ids(tmp_path) == ids
    history = yaml.safe_load((tmp_path / "sweep.yaml").read_text("utf-8"))["launches"]
    assert [item["id"] for item in history] == ids


def test_a_launch_that_died_while_it_was_recorded_does_not_count(tmp_path, monkeypatch):
    def die():
        raise KeyboardInterrupt

    kept = launch(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(launches, "git_state", die)
        with pytest.raises(KeyboardInterrupt):
            launch(tmp_path)
    assert len(list((tmp_path / "launches").iterdir())) == 2
    assert launches.launch_ids(tmp_path) == [kept]
    assert len(status.status(tmp_path).launches) == 1


def test_an_unknown_launch_is_named(tmp_path):
    known = launch(tmp_path)
    for read in (launches.read_plan, launches.read_config, launches.read_launch):
        with pytest.raises(UserError, match=f"launch must be one of {known}, got 'nope'"):
            read(tmp_path, "nope")


@pytest.mark.parametrize(
    "use", [launches.launch_ids, launch, runner.load, status.status], ids=lambda use: use.__name__
)
def test_a_launch_of_a_newer_schema_is_refused(tmp_path, use):
    path = tmp_path / "launches" / launch(tmp_path) / "launch.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": SCHEMA_VERSION + 1}))
    before = sorted(tmp_path.rglob("*"))
    message = (
        rf"version {SCHEMA_VERSION} or older, got {SCHEMA_VERSION + 1} in .*launch\.json; upgrade runner"
    )
    with pytest.raises(UserError, match=message):
        use(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_the_load_of_a_store_knows_its_launches(tmp_path):
    first = launch(tmp_path)
    second = launch(tmp_path, ids=["a", "e"], packs=[0, 1], shards=[-1, 0])
    data = runner.load(tmp_path)
    assert data.launches == [first, second]
    assert data.launch_cells() == ["a", "e"]
    assert data.launch_cells(first) == ["a", "b", "c", "d"]
    assert data.config == CONFIG


def test_git_state_tells_commit_and_dirt(tmp_path):
    assert launches.git_state(tmp_path) is None

    def git(*words):
        who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True)

    git("init")
    (tmp_path / "code.py").write_text("1")
    git("add", ".")
    git("commit", "-m", "first")
    clean = launches.git_state(tmp_path)
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "x").touch()
    assert launches.git_state(tmp_path) == clean
    assert clean is not None
    assert len(clean["commit"]) == 40
    assert not clean["dirty"]
    (tmp_path / "code.py").write_text("2")
    assert launches.git_state(tmp_path) == {**clean, "dirty": True}


# -- heartbeats and status ---------------------------------------------------------------------------


def test_status_of_a_store_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="STORE must be a folder written by `runner sweep`"):
        status.status(tmp_path / "none")


def test_status_from_launch_to_end(tmp_path):
    name = launch(tmp_path)

    def states():
        return [shard.state for shard in status.status(tmp_path).launches[-1].shards]

    report = status.status(tmp_path)
    assert (report.newest.planned, report.newest.missing, report.running) == (4, 4, 0)
    assert states() == ["waiting", "waiting"]

    with shards.shard_state(tmp_path, name, 0, packs=1) as first:
        assert states() == ["running", "waiting"]
        assert status.status(tmp_path).running == 1
        finish(tmp_path, ["a", "b"], name, status=["ok", "diverged"])
        first.beat(packs=1, cells=2)
        shard = status.status(tmp_path).launches[-1].shards[0]
        assert (shard.packs, shard.packs_done, shard.cells, shard.cells_done) == (1, 1, 2, 2)
    assert states() == ["finished", "waiting"]

    trace = launches.record_failure(tmp_path, name, "c", "Traceback ...\nValueError: no \udc80\n")
    finish(tmp_path, ["c"], name, "2", status="failed", error="ValueError: no")
    with pytest.raises(KeyboardInterrupt), shards.shard_state(tmp_path, name, 1, packs=1):
        raise KeyboardInterrupt
    assert states() == ["finished", "stopped"]

    report = status.status(tmp_path)
    assert report.newest == report.all == status.Counts(planned=4, ok=1, diverged=1, failed=1, missing=1)
    assert report.newest.done == 2
    assert report.failures == (status.Failure("c", name, "ValueError: no", trace),)


def test_status_counts_the_newest_launch_and_all_of_them(tmp_path):
    first = launch(tmp_path)
    finish(tmp_path, ["a", "b"], first)
    launch(tmp_path, ids=["a", "e"], packs=[0, 1], shards=[-1, 0])
    report = status.status(tmp_path)
    assert report.newest == status.Counts(planned=2, ok=1, diverged=0, failed=0, missing=1)
    assert report.all == status.Counts(planned=5, ok=2, diverged=0, failed=0, missing=3)
    assert [len(item.shards) for item in report.launches] == [2, 1]


def test_status_of_tables_without_launches(tmp_path):
    finish(tmp_path, ["a", "b"], "gone", status=["ok", "failed"], error=[None, "E"])
    report = status.status(tmp_path)
    assert report.newest == report.all == status.Counts(planned=2, ok=1, diverged=0, failed=1, missing=0)
    assert report.failures == (status.Failure("b", "gone", "E", None),)


@pytest.mark.parametrize(
    ("change", "age", "state"),
    [
        ({}, 0, "running"),
        ({}, 1e6, "running"),  # the clock has jumped: the lock tells
        ({"host": "elsewhere"}, 0, "running"),
        ({"host": "elsewhere"}, 200, "stopped"),
        ({"host": "elsewhere"}, -60, "running"),
        ({"state": "finished"}, 200, "finished"),
        ({"state": "preempted"}, 200, "preempted"),
    ],
)
def test_a_shard_runs_while_its_job_holds_the_lock_or_beats(tmp_path, change, age, state):
    name = launch(tmp_path)
    path = tmp_path / "launches" / name / "shard-0.json"
    with shards.shard_state(tmp_path, name, 0, packs=1):
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
        os.utime(path, (time.time() - age,) * 2)
        assert status.status(tmp_path).launches[0].shards[0].state == state


def test_a_killed_job_is_stopped_at_once(tmp_path):
    name = launch(tmp_path)
    code = (
        "import sys, time; from pathlib import Path; from runner.store.shards import shard_state\n"
        f"with shard_state(Path({str(tmp_path)!r}), {name!r}, 0, packs=1): "
        "print('on', flush=True); time.sleep(60)"
    )
    job = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert job.stdout.readline() == b"on\n"
    assert status.status(tmp_path).running == 1
    job.kill()
    job.communicate()
    assert status.status(tmp_path).launches[0].shards[0].state == "stopped"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"state": 1}', b"\xff"])
def test_a_heartbeat_that_cannot_be_read_is_none(tmp_path, content):
    name = launch(tmp_path)
    (tmp_path / "launches" / name / "shard-0.json").write_bytes(content)
    assert status.status(tmp_path).launches[0].shards[0].state == "waiting"


def test_beats_are_cheap_and_never_end_a_training(tmp_path, monkeypatch):
    state = shards.start_shard(tmp_path, launch(tmp_path), 0, packs=1)
    writes = []
    monkeypatch.setattr(state.__class__, "write", lambda self: writes.append(1))
    for _ in range(100):
        state.beat()
    assert not writes
    monkeypatch.undo()

    def full(*args):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(files.os, "replace", full)
    state.beat(packs=1, cells=2)
    assert (state.packs_done, state.cells_done) == (1, 2)
    with pytest.raises(UserError, match="no space left"):
        state.finish()


def test_status_imports_neither_pandas_nor_torch(tmp_path):
    name = launch(tmp_path)
    finish(tmp_path, ["a", "b"], name, status=["ok", "failed"])
    finish(tmp_path, ["b"], name, "2")
    code = (
        "import sys; from pathlib import Path; from runner.store.status import status;"
        "status(Path(sys.argv[1]));"
        "print([m for m in ('pandas', 'torch', 'hydra', 'yaml') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
