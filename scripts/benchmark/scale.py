"""Grids of a thousand to a million cells planned and recorded, stores of many finished cells, long traces.

Each figure is of a process of its own, `python -m benchmark.scale WHAT SIZE`, with a memory of its own.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmark.grids import composed
from benchmark.lines import Family, at_most
from benchmark.machine import peak_mib
from benchmark.timed import runner, timed
from runner.grid.axes import Axis, expand
from runner.grid.cell import FIELDS
from runner.launching.launch import launch, run_shard
from runner.schema import TABLES
from runner.store import launches, write_part
from runner.store.keys import SOURCES

SIZES = (10**3, 10**4, 10**5, 10**6)
FINISHED, TRACE_ROWS = 10**5, 10**6
AXES = {
    "width": (16, 32, 64, 128, 256),
    "lr": tuple(10 ** (k / 8) for k in range(-10, 0)),
    "gamma": (0.5, 1, 2, 4),
}
"""Seeds make up the rest."""
_VALUES = {"string": "x", "int64": 1, "float64": 0.5, "bool": True}


def measure(quick: bool) -> Family:
    """Return the family's lines."""
    family = Family("scale")
    if quick:
        family.skipped = "it takes minutes; leave --quick out"
        return family
    found = {size: _planned(size) for size in SIZES}
    for size, figures in found.items():
        largest = size == SIZES[-1]
        parts = ", ".join(f"{name} {figures[name]:.2f} s" for name in ("expand", "launch", "resume"))
        family.add(
            f"expand, plan, record, resume {size:,} cells", "s",
            figures["expand"] + figures["launch"] + figures["resume"], at_most(10) if largest else None,
            parts,
        )  # fmt: skip
        family.add(
            f"peak memory of {size:,} cells", "MiB", figures["peak"], at_most(1024) if largest else None
        )
    low, high = SIZES[-2:]
    power = math.log(found[high]["launch"] / found[low]["launch"]) / math.log(high / low)
    family.add(
        f"growth of planning from {low:,} to {high:,} cells", "exponent", power, at_most(1.15), "1 is linear"
    )
    few, many = (_apart("job", size)["peak"] for size in (SIZES[0], SIZES[-1]))
    family.add(
        f"memory of a job of one pack, of {SIZES[-1]:,} cells over {SIZES[0]:,}", "ratio", many / few,
        at_most(1.2), f"peaks of {many:.0f} and {few:.0f} MiB",
    )  # fmt: skip
    _finished(family, 5, FINISHED, TRACE_ROWS)
    return family


def _planned(size: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        first = _apart("plan", size, store)
        _apart("half", size, store)
        again = _apart("plan", size, store)
    resumed = again["expand"] + again["launch"]
    return {**first, "resume": resumed, "peak": max(first["peak"], again["peak"])}


def _finished(family: Family, repeats: int, cells: int, trace_rows: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        _apart("finish", cells, store)
        status = [timed(runner("status", str(store)), folder).wall for _ in range(repeats)]
        family.add(f"runner status, {cells:,} finished cells", "s", status, at_most(2), "the whole process")
        _apart("trace", trace_rows, store)
        loads = [_apart("load", trace_rows, store)["seconds"] for _ in range(repeats)]
        family.add(f"runner.load(...).trace, {trace_rows:,} rows", "s", loads, at_most(2))


_SCRIPTS = Path(__file__).parents[1]


def _command(what: str, size: int, store: Path | None = None) -> list[str]:
    return [sys.executable, "-m", "benchmark.scale", what, str(size), *([str(store)] if store else [])]


def _apart(what: str, size: int, store: Path | None = None) -> dict[str, float]:
    done = subprocess.run(
        _command(what, size, store), cwd=_SCRIPTS, stdout=subprocess.PIPE, text=True, check=True
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


# -- in a process of its own ----------------------------------------------------------------------------


def _grid(size: int) -> tuple[dict[str, Any], list[Axis]]:
    config = composed("data=xor", "data.train_size=1024", "steps=5")
    del config["sweeper"]
    seeds = size // math.prod(map(len, AXES.values()))
    return config, [Axis(key, values) for key, values in {**AXES, "seed": tuple(range(seeds))}.items()]


def _plan(size: int, store: Path) -> dict[str, float]:
    """Plan a grid and record the launch, as `runner sweep` does; half of it may be finished already."""
    import torch  # noqa: F401  # the sweep has it, too

    config, axes = _grid(size)
    began = time.perf_counter()
    cells = expand(config, axes)
    expanded = time.perf_counter()
    launched = launch(cells, config, store, default_shards=None)
    planned = time.perf_counter()
    assert launched.total == size
    return {"expand": expanded - began, "launch": planned - expanded, "peak": peak_mib()}


def _half(size: int, store: Path) -> dict[str, float]:
    """Finish every other cell of the newest launch."""
    newest = launches.launch_ids(store)[-1]
    ids = launches.read_plan(store, newest, ["cell_id"])["cell_id"].to_pylist()
    _write_cells(store, newest, {"cell_id": ids[::2]})
    return {}


def _job(size: int, store: Path) -> dict[str, float]:
    """Record a plan with a job for each pack, and run one of the widest in a process of its own."""
    config, axes = _grid(size)
    cells = expand(config, axes)
    planned = launch(cells, config | {"shards": len(cells), "workers": 1}, store).launch
    plan = launches.read_plan(store, planned, ["width", "shard"])
    widest = max(AXES["width"])
    shard = next(
        s for w, s in zip(*(plan[n].to_pylist() for n in ("width", "shard")), strict=True) if w == widest
    )
    return _apart("shard", shard, store)


def _shard(shard: int, store: Path) -> dict[str, float]:
    run_shard(store, launches.launch_ids(store)[-1], shard)
    return {"peak": peak_mib()}


def _finish(size: int, store: Path) -> dict[str, float]:
    """Write a store whose newest launch has finished all of its cells."""
    config, axes = _grid(size)
    launched = launch(expand(config, axes), config, store)
    plan = launches.read_plan(store, launched.launch, ["cell_id", *FIELDS])
    _write_cells(store, launched.launch, {name: plan[name].to_pylist() for name in plan.column_names})
    return {}


def _trace(size: int, store: Path) -> dict[str, float]:
    """Write a trace of so many rows, 20 steps to a cell."""
    steps = 20
    columns = {column.name: [_VALUES[column.type]] * size for column in TABLES["trace"]}
    columns["cell_id"] = [f"c{place // steps:06d}" for place in range(size)]
    columns["step"] = [place % steps for place in range(size)]
    write_part(store, "trace", columns, "bench")
    return {}


def _load(size: int, store: Path) -> dict[str, float]:
    """Read it as a user does."""
    import pandas  # noqa: F401  # its import is not what is measured

    import runner

    began = time.perf_counter()
    assert len(runner.load(store).trace) == size
    return {"seconds": time.perf_counter() - began}


def _write_cells(store: Path, name: str, columns: Mapping[str, Sequence[Any]]) -> None:
    """Write rows of finished cells with the store's own writer; what is not given is filled up."""
    count = len(columns["cell_id"])
    filled: dict[str, Sequence[Any]] = {
        column.name: [_VALUES[column.type]] * count for column in TABLES["cells"]
    }
    filled |= dict.fromkeys(SOURCES, ["{}"] * count)
    filled |= {"status": ["ok"] * count, "error": [None] * count, "launch": [name] * count}
    write_part(store, "cells", {**filled, **columns}, f"{name}-bench")


WHAT: dict[str, Callable[[int, Path], dict[str, float]]] = {
    "plan": _plan,
    "half": _half,
    "job": _job,
    "shard": _shard,
    "finish": _finish,
    "trace": _trace,
    "load": _load,
}


def _main(what: str, size: str, store: str | None = None) -> None:
    if store:
        figures = WHAT[what](int(size), Path(store))
    else:
        with tempfile.TemporaryDirectory() as folder:
            figures = WHAT[what](int(size), Path(folder) / "store")
    print(json.dumps(figures))


if __name__ == "__main__":
    _main(*sys.argv[1:])
