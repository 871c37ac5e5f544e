"""A training step against the same one in JAX at its best, in plain torch and through `torch.compile`.

All rivals train the problem that is trained here, from the same weights by the same updates, which is checked
first. Each has a process per core, as the workers of a sweep are; those of the rivals are pinned to theirs.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import math
import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

from benchmark import jax_nets, torch_nets
from benchmark.grids import cell, planned
from benchmark.lines import Family, at_least
from benchmark.problem import losses, problem_of, worst_difference
from benchmark.processes import Workers
from benchmark.timing import ratios
from benchmark.training import net, packed
from runner.grid.cell import Cell

CELLS, _QUICK_CELLS = (1, 4, 16), (4,)
"""Cells that a call of a rival trains; the fastest counts."""
MLPS, _QUICK_MLPS = (32, 64, 256, 1024), (64,)
DIGITS = {"cnn": ((32, 2), (64, 3)), "transformer": ((32, 2), (128, 2))}
"""Model to (width, depth); none with `--quick`, for compiling them takes longer than all else."""
BATCH = 64
OF_JAX = {"mlp": 1.1, "cnn": 1.0, "transformer": 1.0}
OF_PLAIN = 1.3
"""On digits; of perceptrons the family of training has targets."""
CHECKED_STEPS, CHECKED_LR, SAME = 3, 1.0, 1e-4
"""Losses of the first steps must be the same up to this, at a learning rate that moves them by far more."""
_SECONDS = 0.6


class Pools(NamedTuple):
    """Processes of this package, of JAX and of plain and compiled torch."""

    ours: Workers
    jax: Workers
    plain: Workers


def on_digits(model: str, width: int, depth: int) -> Cell:
    """Return a cell of a model on full batches of digits."""
    return cell(
        f"model={model}", "data=digits", f"width={width}", f"depth={depth}", "lr=1e-3", "steps=1000",
        "parameterization=mup", f"data.train_size={BATCH}", "data.test_size=8", "data.probe_size=4",
    )  # fmt: skip


def measure(quick: bool) -> Family:
    """Return the family's lines; none without JAX."""
    family = Family("jax")
    if importlib.util.find_spec("jax") is None:
        family.skipped = "JAX is not installed here; pip install -e '.[bench]'"
        return family
    with Workers() as ours, Workers(pinned=True) as jax, Workers(pinned=True) as plain:
        for name, model, one in _cells(quick):
            check(one)
            _lines(family, name, model, one, Pools(ours, jax, plain), quick=quick)
    return family


def _cells(quick: bool) -> Iterator[tuple[str, str, Cell]]:
    for width in _QUICK_MLPS if quick else MLPS:
        yield f"MLP {width}x3", "mlp", net(width)
    for model, sizes in () if quick else DIGITS.items():
        for width, depth in sizes:
            yield f"{model} {width}x{depth}", model, on_digits(model, width, depth)


def check(one: Cell) -> None:
    """Raise RuntimeError where a rival trains something else."""
    one = dataclasses.replace(one, lr=CHECKED_LR)
    problem, truth = problem_of(one), losses(one, CHECKED_STEPS)
    rivals = {"torch": partial(torch_nets.losses, problem, 2)}
    for form in jax_nets.FORMS[problem.net]:
        rivals[f"JAX {form}".rstrip()] = partial(jax_nets.losses, problem, 2, form)
    for rival, trained in rivals.items():
        values = trained(CHECKED_STEPS)
        if not worst_difference(values, truth) <= SAME:
            raise RuntimeError(f"{rival} must train what is trained here, got losses {values} for {truth}")


def _contenders(
    one: Cell, pack: list[Cell], pools: Pools, counts: Sequence[int], *, compiled: bool
) -> dict[str, tuple[Workers, str]]:
    """Return who is timed, in which processes and under which name there: of each rival the fastest.

    Args:
        compiled: Whether torch.compile is one of them, which takes most of a minute to compile.
    """
    problem = problem_of(one)
    pools.ours.make("pack", packed, pack)
    pools.plain.make("plain", torch_nets.plain, problem)
    fastest = pools.jax.best(
        {
            f"{cells} cells a call" + f", as {form}" * bool(form): (jax_nets.steps, problem, cells, form)
            for form in jax_nets.FORMS[problem.net]
            for cells in counts
        },
        _SECONDS / 2,
    )
    found = {"ours": (pools.ours, "pack"), "jax": (pools.jax, fastest), "plain": (pools.plain, "plain")}
    if compiled:
        candidates = {
            f"{cells} cells a call": (torch_nets.compiled, problem, cells)
            for cells in sorted({counts[0], counts[-1]})
        }
        found["compiled"] = pools.plain, pools.plain.best(candidates, _SECONDS / 2)
    return found


def _lines(family: Family, name: str, model: str, one: Cell, pools: Pools, *, quick: bool) -> None:
    pack, counts = planned(one), _QUICK_CELLS if quick else CELLS
    compiler = shutil.which("g++") or shutil.which("clang++")
    timed = _contenders(one, pack, pools, counts, compiled=bool(compiler) and not quick)
    for workers, what in timed.values():
        workers.rate(what, _SECONDS / 2)
    rates: dict[str, list[float]] = {who: [] for who in timed}
    for _ in range(2 if quick else 5):
        for who, (workers, what) in timed.items():
            rates[who].append(workers.rate(what, _SECONDS).steps)
    for workers, what in timed.values():
        workers.drop(what)
    unit = "cells x steps per second"
    family.add(
        f"step over JAX's best, {name}", "ratio", ratios(rates["ours"], rates["jax"]),
        at_least(OF_JAX[model]),
        f"{unit}; jit(scan(vmap(value_and_grad))), JAX {importlib.metadata.version('jax')}",
    )  # fmt: skip
    unit = "cells x steps/s"
    family.add(f"{name}, {len(pools.ours)} x {len(pack)} cells", unit, rates["ours"])
    family.add(
        f"{name} in JAX",
        unit,
        rates["jax"],
        None,
        f"best of {', '.join(map(str, counts))}: {timed['jax'][1]}",
    )
    family.add(f"{name} in plain torch", unit, rates["plain"], None, "one cell at a time")
    if model in DIGITS:
        of_plain = ratios(rates["ours"], rates["plain"])
        family.add(f"step over plain torch, {name}", "ratio", of_plain, at_least(OF_PLAIN), "two rows above")
    if not quick:
        family.add(
            f"{name} through torch.compile", unit, rates.get("compiled", math.nan), None,
            f"one cell or vmap: {timed['compiled'][1]}" if "compiled" in timed else "no C++ compiler here",
        )  # fmt: skip
