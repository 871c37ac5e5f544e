"""``kill -9`` in the middle of a sweep, then the same command: nothing lost, nothing twice, same numbers."""

import signal
import subprocess
import sys

import gate
import pandas as pd
import pytest
from stores import WRITTEN

import runner
from runner import cli
from runner.schema import KEYS

GRID = (
    "data=xor", "data.dim=6", "data.train_size=64", "data.test_size=16", "data.probe_size=8",
    "width=16,32,48,64", "parameterization=ntk,mup", "lr=0.1,0.5", "steps=200",
    gate.MEASURE,
)  # fmt: skip
VOLATILE = ["launch", "train_seconds", "finished_at"]


def start(store, held):
    command = [sys.executable, "-m", "runner", "sweep", *GRID, f"store={store}", "workers=2"]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=gate.environment(held)
    )


def run(store):
    assert cli.main(["sweep", *GRID, f"store={store}", "workers=1"]) == 0


def frames(store):
    """The three tables as any reader sees them, in one order, without what differs between launches."""
    found = {}
    for name in WRITTEN:
        table = pd.read_parquet(store / name).drop(columns=VOLATILE, errors="ignore")
        found[name] = table.sort_values(list(KEYS[name]), ignore_index=True)
    return found


@pytest.mark.slow
def test_killed_and_resumed_equals_uninterrupted(tmp_path):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    run(whole)
    held = tmp_path / "held"
    held.mkdir()
    process = start(killed, held)
    gate.reached(held, process, also=lambda: list(killed.glob("cells/part-*.parquet")))
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)  # its workers, too, notice that nobody is left to work for
    survivors = set(pd.read_parquet(killed / "cells").cell_id)
    assert 0 < len(survivors) < 16
    before = pd.read_parquet(killed / "cells").set_index("cell_id").finished_at
    run(killed)
    after = pd.read_parquet(killed / "cells").set_index("cell_id")
    assert len(after) == 16
    assert after.index.is_unique
    # What was finished was not trained again.
    pd.testing.assert_series_equal(after.finished_at[before.index], before)
    resumed, expected = frames(killed), frames(whole)
    for name in WRITTEN:
        pd.testing.assert_frame_equal(resumed[name], expected[name], check_exact=True)
    assert len(runner.load(killed).launches) == 2
