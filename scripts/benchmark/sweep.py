"""The default sweep: against one process per cell, and how busy it keeps the cores."""

from __future__ import annotations

import math
import random
import re
import statistics
import sys
import tempfile
from collections.abc import Sequence

import torch

from benchmark.default import default_sweep
from benchmark.grids import cell, default_grid, of_width
from benchmark.lines import Family, at_least, at_most
from benchmark.timed import Timed, timed
from benchmark.timing import alternate, ratios
from benchmark.training import run_of
from runner.grid.cell import Cell
from runner.launching.workers import cores, set_up_torch
from runner.numerics.precision import set_cpu_products


def measure(quick: bool) -> Family:
    """Return the family's lines."""
    family = Family("sweep")
    if not quick:
        swept = default_sweep().run
        _against_naive(family, swept)
        family.add(
            "CPU use over the sweep", "share", swept.cpu / swept.wall / cores(), at_least(0.85),
            "from typing the command to the prompt, imports and pictures included",
        )  # fmt: skip
        family.add(
            "time left, median error after a tenth of the run", "share", _errors_of_time_left(swept),
            at_most(0.3), "of what progress showed, against what it took",
        )  # fmt: skip
    family.add(
        "steps from divergence to the end of training the cell", "steps", _steps_to_retirement(), at_most(5),
        "largest of three, against the same cells trained without an end",
    )  # fmt: skip
    family.add(
        "denormals: time over that of normal numbers", "ratio", _denormals(), at_most(1.5), "in a worker"
    )
    return family


def _against_naive(family: Family, swept: Timed) -> None:
    grid = default_grid()
    widths = sorted({one.width for one in grid})
    sample = _sample(grid, widths)
    seconds: dict[int, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for one in sample:
            seconds.setdefault(one.width, []).append(timed(_naive(one), folder).wall)
    naive = sum(statistics.mean(seconds[width]) * len(of_width(grid, width)) for width in widths)
    family.add(
        "default sweep over one process per cell", "ratio", naive / swept.wall, at_least(50),
        f"{swept.wall:.0f} s against {naive:.0f} s, scaled from {len(sample)} of {len(grid)} cells",
    )  # fmt: skip


def _sample(grid: Sequence[Cell], widths: Sequence[int]) -> list[Cell]:
    """Two cells of every width, drawn at random; the same ones in every run."""
    draw = random.Random(0)
    return [one for width in widths for one in draw.sample(of_width(grid, width), 2)]


def _naive(one: Cell) -> list[str]:
    values = {name: getattr(one, name) for name in ("width", "lr", "parameterization", "seed", "steps")}
    return [
        sys.executable, "-m", "benchmark.naive", *(f"{name}={value}" for name, value in values.items()),
        "hydra.run.dir=.", "hydra.output_subdir=null", "hydra/job_logging=disabled",
    ]  # fmt: skip


_LEFT = re.compile(r"(?:(\d+):)?(\d+):(\d\d) left")


def _errors_of_time_left(swept: Timed) -> list[float]:
    """Relative errors of the time left that was shown, once a tenth of the time had passed."""
    shown = [(at, match) for at, line in swept.lines if (match := _LEFT.search(line))]
    began, ended = shown[0][0], shown[-1][0]
    errors = []
    for at, match in shown:
        left = ended - at
        if at - began < 0.1 * (ended - began) or left < 2:
            continue
        hours, minutes, seconds = (int(part or 0) for part in match.groups())
        errors.append(abs(3600 * hours + 60 * minutes + seconds - left) / left)
    return errors or [math.nan]


def _steps_to_retirement() -> float:
    """Train cells that diverge, with and without retiring them, and compare the steps."""
    # Without a nonlinearity nothing ends a divergence, as dying relus do.
    common = ("width=64", "data=xor", "model.activation=linear", "steps=60", "lr_unit=sharpness")
    cells = [cell(*common, f"lr={lr}") for lr in (8, 32, 128)]
    retired = run_of(cells)
    for step in range(cells[0].steps):
        if retired.active:
            retired.advance(step)
    rows = retired.recorder.tables(0.0, torch.device("cpu")).cells
    return max(float(row["diverged_step"]) - _crossing(one) for one, row in zip(cells, rows, strict=True))


def _crossing(one: Cell) -> int:
    """Return the step at which a cell's loss passes the limit, if nothing is done about it."""
    run = run_of([one])
    limit = float(run.limit[0])
    run.limit.fill_(math.inf)
    for step in range(one.steps):
        run.advance(step)
        if not run.active or run.peak[0] > limit:
            return step
    raise RuntimeError(f"lr {one.lr} was to diverge")


def _denormals() -> list[float]:
    """Time of a product of denormals over that of normal numbers, set up as a worker is."""
    threads = torch.get_num_threads()
    set_up_torch()
    normal = torch.ones(1 << 16)
    tiny = normal * 1e-40
    found = alternate({"tiny": lambda: tiny * 0.5, "normal": lambda: normal * 0.5}, 5, 0.05)
    torch.set_num_threads(threads)
    set_cpu_products(fast=False)
    return ratios(found["tiny"], found["normal"])
