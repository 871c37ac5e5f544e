"""The planner: how soon it knows the machine, and what happens when a pack does not fit in memory."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd
import torch

from benchmark.grids import composed
from benchmark.lines import Family, at_most
from benchmark.timed import runner
from benchmark.timing import seconds_per_call
from runner.grid.axes import Axis, expand
from runner.grid.cell import Cell
from runner.launching.launch import launch, run_shard
from runner.launching.workers import cores
from runner.planning.machine import measure as calibrate
from runner.planning.machine import this_machine
from runner.training import train

CELLS, FITTING = 16, 4
SWEEPS = {
    "mlp": ("width=64,256", "depth=3", "steps=1000"),
    "resmlp": ("width=32,128", "depth=8", "steps=400"),
    "cnn": ("width=16,32", "depth=2", "steps=100"),
    "resnet": ("width=16,32", "depth=2", "steps=60"),
    "transformer": ("width=16,32", "depth=2", "steps=40"),
}
"""Sweeps of some ten seconds whose forecast is compared with what they take."""
_SWEPT = (
    "data=digits",
    "data.train_size=256",
    "data.test_size=256",
    "batch_size=64",
    "lr=0.01,0.03,0.1",
    "seed=0,1,2,3",
)
_SECONDS = {"s": 1.0, "min": 60.0}


def measure(quick: bool) -> Family:
    """Return the family's lines."""
    family = Family("planner")
    device = torch.device("cpu")
    seconds = []
    for _ in range(2 if quick else 5):
        began = time.perf_counter()
        calibrate(device, cores(), "bench")
        seconds.append(time.perf_counter() - began)
    family.add("calibration", "s", seconds, at_most(1.0), "where nothing is cached")
    this_machine(device, cores())
    family.add(
        "calibration, cached",
        "s",
        seconds_per_call(lambda: this_machine(device, cores()), 0.1),
        at_most(0.01),
    )
    family.add(
        f"cells lost when {FITTING} of a pack of {CELLS} fit in memory", "cells", _lost(), at_most(0),
        "torch.OutOfMemoryError is raised for larger packs",
    )  # fmt: skip
    for model in () if quick else SWEEPS:
        told, taken = _told_and_taken(f"model={model}", *SWEEPS[model], *_SWEPT)
        family.add(
            f"forecast of a sweep, {model}", "ratio", max(told / taken, taken / told), at_most(1.3),
            f"{told:.2g} s told by --dry-run, {taken:.2g} s from the launch to the last cell",
        )  # fmt: skip
    return family


def _told_and_taken(*words: str) -> tuple[float, float]:
    """Return the seconds that `--dry-run` tells of a sweep, and those from its launch to its last cell."""
    with tempfile.TemporaryDirectory() as folder:
        command = runner("sweep", *words, "store=out")
        said = subprocess.run([*command, "--dry-run"], cwd=folder, capture_output=True, text=True, check=True)
        found = re.search(r"^time +about (\S+) (\S+)", said.stdout, re.MULTILINE)
        assert found
        subprocess.run(command, cwd=folder, capture_output=True, check=True)
        record = json.loads(next(Path(folder).glob("out/launches/*/launch.json")).read_bytes())
        last = pd.to_datetime(pd.read_parquet(Path(folder) / "out" / "cells")["finished_at"]).max()
        return float(found[1]) * _SECONDS[found[2]], (last - pd.Timestamp(record["started"])).total_seconds()


def _lost() -> int:
    """Sweep a pack that is too large, and count the cells that are not there afterwards."""
    whole = train.train_pack

    def limited(cells: Sequence[Cell], *arguments: Any) -> Any:
        if len(cells) > FITTING:
            raise torch.OutOfMemoryError(f"{len(cells)} cells do not fit")
        return whole(cells, *arguments)

    config = composed("data=xor", "width=16", "steps=2", "workers=1")
    del config["sweeper"]
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(train, "train_pack", limited):
        store = Path(folder) / "store"
        launched = launch(expand(config, [Axis("seed", tuple(range(CELLS)))]), config, store)
        run_shard(store, launched.launch, 0)
        cells = pd.read_parquet(store / "cells")
    return CELLS - int((cells["status"] == "ok").sum())
