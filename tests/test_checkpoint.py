"""A pack stopped and gone on with equals the pack undisturbed, bit for bit; what is no checkpoint is none."""

import json
import math
import os
import signal
import subprocess
import sys
import threading

import gate
import pandas as pd
import pytest
import torch
from cells import make_cell
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stores import WRITTEN

import runner
from runner import cli, preemption
from runner.models import descent
from runner.preemption import Stopped
from runner.schema import KEYS
from runner.training import run, train
from runner.training.checkpoint import Checkpoint, State, read_checkpoint

CPU = torch.device("cpu")
FULL = {
    "functions": {
        name: {"_target_": f"runner.measures.{name}", "at": "every"}
        for name in (
            "param_movement", "layer_movement", "ntk_change", "kernel_distance", "feature_movement", "cka",
            "linearization_error", "kernel_regression", "spectrum", "lambda_max", "kernel_gd_error",
            "sharpness",
        )
    }
}  # fmt: skip
CASES = {
    "full batch": {"measure": FULL},
    "minibatch": {"batch_size": 7},
    "fresh samples, centred, a cell diverges": {
        "batch_size": 7,
        "data": {"online": True},
        "center_output": True,
        "lr_unit": "absolute",
    },
    "momentum": {"optimizer": {"_target_": "runner.optim.SGD", "momentum": 0.9}},
    "adam": {"optimizer": {"_target_": "runner.optim.Adam"}, "batch_size": 7, "lr_unit": "absolute"},
    "centred": {"center_output": True, "gamma": 2.0},
    "pairs, large": {"symmetric_init": True, "sigma": '{"hidden":1,"input":2,"output":0.5}'},
    "cells end before the last step": {"stop": {"train_loss": 0.3}},
    "a cell diverges": {"lr_unit": "absolute"},
}


def cells_of(changes):
    lrs = (0.1, 1.0, 1e3) if "lr_unit" in changes else (0.1, 0.5)
    return [make_cell(lr=lr, seed=seed, **changes) for lr in lrs for seed in (0, 1)]


def values(tables):
    """All numbers of a pack; what NaN equals here is itself."""
    drop = ("train_seconds",)
    rows = [{k: v for k, v in row.items() if k not in drop} for row in tables.cells]
    return json.dumps([rows, tables.trace, tables.layers])


@pytest.fixture(autouse=True)
def one_by_one(monkeypatch):
    """Runs are stopped between any two steps here, also those that compiled code takes together."""
    monkeypatch.setattr(descent, "AT_ONCE", 1)


class StopAt:
    """Says stop at the nth time it is asked."""

    def __init__(self, count):
        self.left = count

    def __call__(self):
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("steps", [(1,), (3, 9), (0, 20)])
def test_stopped_and_gone_on_with_equals_undisturbed(tmp_path, name, steps):
    cells = cells_of(CASES[name])
    expected = values(train.train_pack(cells, CPU))
    before = 0
    for step in steps:
        checkpoint = Checkpoint(tmp_path, cells, CPU, stop=StopAt(step - before))
        with pytest.raises(Stopped):
            train.train_pack(cells, CPU, checkpoint=checkpoint)
        state = checkpoint.load()
        assert (state.step if state else 0) == step
        before = step
    assert values(train.train_pack(cells, CPU, checkpoint=Checkpoint(tmp_path, cells, CPU))) == expected


def test_a_checkpoint_every_so_often(tmp_path):
    cells = cells_of({})
    checkpoint = Checkpoint(tmp_path, cells, CPU, minutes=1e-9)
    seen = set()
    train.train_pack(
        cells, CPU, lambda step, _: seen.add((state := checkpoint.load()) and state.step), checkpoint
    )
    assert {None, 1, 4, 20} <= seen  # the measured steps at least
    assert checkpoint.path.stat().st_mode & 0o777 == 0o666 & ~umask()
    checkpoint.remove()
    assert checkpoint.load() is None


def umask():
    found = os.umask(0)
    os.umask(found)
    return found


def test_a_full_disk_costs_the_checkpoint_alone(tmp_path):
    cells = cells_of({})
    (tmp_path / "checkpoints").touch()  # a file, where a folder should be
    checkpoint = Checkpoint(tmp_path, cells, CPU, minutes=1e-9)
    assert values(train.train_pack(cells, CPU, checkpoint=checkpoint)) == values(train.train_pack(cells, CPU))


STATE = State(3, 1.5, [0, 2], {"results": [{"x": math.inf}]}, {"a": torch.arange(4.0), "n": torch.tensor(2)})


def saved(folder):
    checkpoint = Checkpoint(folder, cells_of({}), CPU)
    checkpoint.save(STATE)
    return checkpoint


def test_what_is_saved_is_loaded(tmp_path):
    state = saved(tmp_path).load()
    assert (state.step, state.seconds, state.active, state.rows) == (3, 1.5, [0, 2], STATE.rows)
    assert all(torch.equal(state.tensors[name], value) for name, value in STATE.tensors.items())


@pytest.fixture
def reasons(monkeypatch):
    """Why packs start over."""
    found = []
    monkeypatch.setattr(Checkpoint, "give_up", lambda self, reason: found.append(reason))
    return found


def test_a_checkpoint_of_another_version_is_not_used(tmp_path, monkeypatch, reasons):
    checkpoint = saved(tmp_path)
    monkeypatch.setattr("runner.training.checkpoint.__version__", "0.0.1")
    assert checkpoint.load() is None
    assert reasons == [f"runner was {runner.__version__} and is 0.0.1"]


def test_training_anew_goes_on_with_its_own_checkpoints_only(tmp_path, reasons):
    """``retry=all`` after an edit of a user's file must not finish what the old file began."""
    cells = cells_of({})
    Checkpoint(tmp_path, cells, CPU, launch="first").save(STATE)
    anew = Checkpoint(tmp_path, cells, CPU, launch="second", own=True)
    assert anew.load() is None
    assert reasons == ["launch was first and is second"]
    assert Checkpoint(tmp_path, cells, CPU, launch="second").load() is not None
    anew.save(STATE)
    assert anew.load() is not None


def test_a_damaged_checkpoint_is_not_used_and_says_so(tmp_path, reasons):
    checkpoint = saved(tmp_path)
    checkpoint.path.write_bytes(b"nothing")
    assert checkpoint.load() is None
    assert reasons == ["it is damaged"]


def test_want_of_memory_is_no_reason_to_start_over(tmp_path, monkeypatch):
    cells = cells_of({})
    checkpoint = Checkpoint(tmp_path, cells, CPU)
    checkpoint.save(STATE)

    def restore(*_):
        raise torch.OutOfMemoryError("of the device")

    monkeypatch.setattr(run.Run, "restore", restore)
    with pytest.raises(torch.OutOfMemoryError):
        train.train_pack(cells, CPU, checkpoint=checkpoint)
    assert checkpoint.path.exists()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_damage_never_passes_for_a_checkpoint(tmp_path, data):
    path = saved(tmp_path).path
    whole = path.read_bytes()
    kind = data.draw(st.sampled_from(["cut", "flip", "noise"]))
    if kind == "cut":
        broken = whole[: data.draw(st.integers(0, len(whole) - 1))]
    elif kind == "flip":
        broken = bytearray(whole)
        broken[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    else:
        broken = data.draw(st.binary(max_size=300))
    path.write_bytes(bytes(broken))
    read = read_checkpoint(path)
    if read is not None:  # a flip in what is only told about, such as the version, or in white space
        assert kind == "flip"
        assert read[1].rows == STATE.rows
        assert all(torch.equal(read[1].tensors[name], value) for name, value in STATE.tensors.items())


def test_a_state_of_another_pack_is_not_gone_on_with(tmp_path):
    cells = cells_of({})
    Checkpoint(tmp_path, cells, CPU).save(STATE)
    assert values(train.train_pack(cells, CPU, checkpoint=Checkpoint(tmp_path, cells, CPU))) == values(
        train.train_pack(cells, CPU)
    )


# -- signals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("signum", preemption.STOPPING)
def test_a_signal_is_noted_and_obeyed_afterwards(signum):
    before = signal.getsignal(signum)
    asked = []
    try:
        signal.signal(signum, lambda number, _: asked.append(number))
        with preemption.stoppable() as stop:
            assert not stop()
            signal.raise_signal(signum)
            assert stop()
        assert not asked
        with pytest.raises(KeyboardInterrupt if signum == signal.SIGINT else SystemExit):
            stop.obey()
        assert asked == ([] if signum == signal.SIGINT else [signum])  # Slurm's handler requeues the job
    finally:
        signal.signal(signum, before)


def test_a_second_ctrl_c_does_not_wait():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background
    try:
        with preemption.stoppable():
            signal.raise_signal(signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_leave_signals_alone():
    found = []

    def use():
        with preemption.stoppable() as stop:
            found.append(stop())

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert found == [False]


GRID = (
    "data=xor", "data.dim=6", "data.train_size=64", "data.test_size=16", "data.probe_size=8", "width=32,64",
    "parameterization=ntk,mup", "lr=0.1,0.5", "steps=200", "batch_size=16",
    gate.MEASURE,
)  # fmt: skip


def frames(store):
    """The tables, without what differs between launches."""
    found = {}
    for name in WRITTEN:
        table = pd.read_parquet(store / name)
        table = table.drop(columns=["launch", "train_seconds", "finished_at"], errors="ignore")
        found[name] = table.sort_values(list(KEYS[name]), ignore_index=True)
    return found


def sweep(store, *more, held):
    command = [sys.executable, "-m", "runner", "sweep", *GRID, f"store={store}", *more]
    return subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env=gate.environment(held),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored in a shell's background
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The same sweep, undisturbed."""
    path = tmp_path_factory.mktemp("undisturbed") / "whole"
    assert cli.main(["sweep", *GRID, f"store={path}", "workers=1"]) == 0
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signum", "workers", "code"),
    [(signal.SIGTERM, 2, 143), (signal.SIGINT, 1, 130)],
)
def test_a_sweep_told_to_stop_goes_on_where_it_was(tmp_path, whole, signum, workers, code):
    stopped = tmp_path / "stopped"
    held = tmp_path / "held"
    held.mkdir()
    # So often that the pack has been saved before it is held.
    process = sweep(stopped, f"workers={workers}", "checkpoint_minutes=0.0001", held=held)
    gate.reached(held, process)
    assert list(stopped.glob("checkpoints/*.safetensors"))
    process.send_signal(signum)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert "cells are finished; the same command runs the rest" in said
    assert "Traceback" not in said
    assert list(stopped.glob("checkpoints/*.safetensors"))
    (state,) = stopped.glob("launches/*/shard-0.json")
    assert json.loads(state.read_text())["state"] == "preempted"
    assert cli.main(["sweep", *GRID, f"store={stopped}", "workers=1"]) == 0
    assert not list(stopped.glob("checkpoints/*.safetensors"))
    for name, expected in frames(whole).items():
        pd.testing.assert_frame_equal(frames(stopped)[name], expected, check_exact=True)
