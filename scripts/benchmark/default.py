"""The default sweep, run once for all the lines about it."""

from __future__ import annotations

import tempfile
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from benchmark.timed import Timed, runner, timed


class Swept(NamedTuple):
    """A sweep that has run.

    Attributes:
        run: The command.
        train_seconds: In which its packs were trained and measured, one after the other.
    """

    run: Timed
    train_seconds: float


@lru_cache
def default_sweep(*overrides: str) -> Swept:
    """Run `runner sweep` without axes, but for these overrides, in a new store."""
    with tempfile.TemporaryDirectory() as folder:
        run = timed(runner("sweep", "+experiment=default", "name=bench", *overrides), folder)
        cells = pd.read_parquet(Path(folder) / "outputs" / "bench" / "cells", columns=["train_seconds"])
        return Swept(run, float(cells["train_seconds"].sum()))
