"""Measure how fast this package is on this machine: every target, its figure, and whether it holds.

    python scripts/bench.py                  # some minutes; the machine should have nothing else to do
    python scripts/bench.py --quick          # two minutes: fewer repeats and sizes, no sweep, no compiling
    python scripts/bench.py --only training,kernels

Ratios are between things measured in turn in one run. The table is also written as Parquet, with the machine,
the versions and the sgemm of the same run in every row.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from benchmark import (
    cuda,
    kernels,
    measures,
    optimizers,
    planner,
    rivals,
    scale,
    startup,
    sweep,
    training,
    wrapped,
)
from benchmark.lines import Family, Line, failed, number
from benchmark.machine import SGEMM_SIZE, describe, sgemm

FAMILIES: dict[str, Callable[[bool], Family]] = {
    "training": training.measure,
    "jax": rivals.measure,
    "wrapped": wrapped.measure,
    "optimizers": optimizers.measure,
    "kernels": kernels.measure,
    "measures": measures.measure,
    "sweep": sweep.measure,
    "planner": planner.measure,
    "cuda": cuda.measure,
    "scale": scale.measure,
    "startup": startup.measure,
}


def main() -> int:
    """Measure, show and write the table; return 1 if a target does not hold."""
    options = _options()
    console = Console(width=None if sys.stdout.isatty() else 180)
    machine = describe() | {f"sgemm_{SGEMM_SIZE}_gflops": number(sgemm())}
    console.print("  ".join(f"{key} {value}" for key, value in machine.items()), highlight=False)
    lines: list[Line] = []
    for name in options.only or FAMILIES:
        began = time.perf_counter()
        family = FAMILIES[name](options.quick)
        found = family.lines
        console.print(_table(name, found) if found else f"{name}: skipped, {family.skipped}", highlight=False)
        print(f"{name}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
        lines += found
    _write(lines, machine, options.out)
    bad = failed(lines)
    asked = sum(line.target is not None for line in lines)
    console.print(f"{asked - len(bad)} of {asked} targets hold; table: {options.out}", highlight=False)
    return 1 if bad else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer repeats, widths and sizes, no sweep")
    parser.add_argument("--only", type=_families, metavar="FAMILY[,FAMILY]", help=", ".join(FAMILIES))
    parser.add_argument("--out", type=Path, default=Path("outputs/bench.parquet"), help="table, as Parquet")
    return parser.parse_args()


def _families(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in FAMILIES]:
        raise argparse.ArgumentTypeError(f"must be of {', '.join(FAMILIES)}, got {', '.join(unknown)}")
    return names


def _table(name: str, lines: list[Line]) -> Table:
    table = Table(
        "what", "target", "median", "min - max", "unit", "", "how", title=name, title_justify="left"
    )
    for line in lines:
        spread = f"{number(line.low)} - {number(line.high)}" if line.repeats > 1 else ""
        style = {"pass": "green", "FAIL": "red"}.get(line.verdict, "")
        table.add_row(
            line.what, line.target.text() if line.target else "", number(line.figure), spread, line.unit,
            f"[{style}]{line.verdict}[/]" if style else "", line.note,
        )  # fmt: skip
    return table


def _write(lines: list[Line], machine: dict[str, str], path: Path) -> None:
    rows = []
    for line in lines:
        row = dataclasses.asdict(line) | {"verdict": line.verdict, **machine}
        row["target"] = line.target.text() if line.target else None
        rows.append(row)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


if __name__ == "__main__":
    sys.exit(main())
