"""What measuring costs: its share of the time that the default sweep takes, and what a full kernel adds."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch

from benchmark.default import default_sweep
from benchmark.grids import default_grid
from benchmark.lines import Family, at_most
from benchmark.timing import alternate, ratios
from runner.launching.workers import cores, set_up_torch
from runner.measures.kernel import lambda_max
from runner.measures.schedule import Scheduled, scheduled
from runner.numerics.precision import set_cpu_products
from runner.planning.machine import this_machine
from runner.planning.packs import Pack
from runner.planning.plan import make_plan
from runner.training.train import train_pack

SAMPLED = 4
"""Packs of each width that are trained."""
_FOLLOWED = "measure.functions.lambda_max.at=every"
_ROWS = 2560
"""Samples times outputs of the default grid's full train kernel."""


@dataclass
class Spent:
    """Seconds of one core for the default grid, from a sample of its packs.

    Attributes:
        total: Of training and measuring.
        measures: By measure; lambda_max at init, which every learning rate needs, is one of them.
        packs: How many were trained.
    """

    total: float = 0.0
    measures: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    packs: int = 0

    @property
    def measuring(self) -> float:
        """Seconds of all measures."""
        return sum(self.measures.values())

    @property
    def training(self) -> float:
        """Seconds of everything else."""
        return self.total - self.measuring


def measure(quick: bool) -> Family:
    """Return the family's lines."""
    family = Family("measures")
    threads = torch.get_num_threads()
    set_up_torch()
    basic = spend(1 if quick else SAMPLED)
    how = f"{basic.packs} packs, on one core; with lambda_max at init, without losses"
    family.add("measure=basic of the time in packs", "share", basic.measuring / basic.total, None, how)
    if not quick:
        full = spend(SAMPLED, "measure=full")
        _of_wall(family, basic, full, spend(SAMPLED // 2, "measure=full", _FOLLOWED))
    torch.set_num_threads(threads)
    set_cpu_products(fast=False)
    return family


def _of_wall(family: Family, basic: Spent, full: Spent, followed: Spent) -> None:
    """Shares of the wall time on all cores, of which the default sweep tells what is neither."""
    swept = default_sweep()
    wall = swept.run.wall * cores()
    slower = swept.train_seconds / basic.total  # than one core by itself
    rest = wall - slower * basic.measuring
    family.add(
        "measure=basic of the sweep's wall time",
        "share",
        1 - rest / wall,
        at_most(0.2),
        "all cores, for all of the wall time",
    )
    for what, spent, target in [
        ("measure=full of the sweep's wall time", full, at_most(0.5)),
        ("the same with lambda_max at every measured step", followed, None),
    ]:
        measuring = slower * spent.measuring
        how = f"{spent.packs} packs, the rest as in the default sweep"
        family.add(what, "share", measuring / (measuring + rest), target, how)
    each = basic.training / len(default_grid())
    for what, seconds_each in _of_one_kernel().items():
        family.add(
            f"{what} of one full kernel of {_ROWS} rows, over training a cell",
            "ratio",
            ratios(seconds_each, [each] * len(seconds_each)),
            None,
            f"float64, LAPACK; spectrum.kernel=full asks for two in a cell's {1000 * each:.0f} ms",
        )


def _of_one_kernel() -> dict[str, list[float]]:
    """Seconds of what a smallest eigenvalue takes at least, and of what all of them take."""
    rows = torch.randn(_ROWS, 2 * _ROWS, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    kernel = rows @ rows.T / _ROWS
    return alternate(
        {
            "a Cholesky factorization": lambda: torch.linalg.cholesky(kernel),
            "all eigenvalues": lambda: torch.linalg.eigvalsh(kernel),
        },
        3,
        0.0,
    )


def spend(per_width: int, *overrides: str) -> Spent:
    """Train some packs of every width of the default grid, and account for all of it.

    Args:
        per_width: How many.
        *overrides: Of its config.
    """
    grid = default_grid(*overrides)
    machine = this_machine(torch.device("cpu"), cores())
    cells_of, by_width = Counter(one.width for one in grid), dict[int, list[Pack]]()
    for pack in make_plan(grid, machine=machine).packs:
        by_width.setdefault(pack.cells[0].width, []).append(pack)
    found = Spent()
    for width, packs in by_width.items():
        some = packs[:: max(1, len(packs) // per_width)][:per_width]
        scale = cells_of[width] / sum(len(pack.cells) for pack in some)
        for pack in some:
            with _clocks() as spent:
                began = time.perf_counter()
                train_pack(pack.cells, torch.device("cpu"))
                found.total += scale * (time.perf_counter() - began)
            for measure_name, seconds in spent.items():
                found.measures[measure_name] += scale * seconds
        found.packs += len(some)
    return found


@contextmanager
def _clocks() -> Iterator[Mapping[str, float]]:
    """Count the seconds of every measure that is taken inside."""
    spent: defaultdict[str, float] = defaultdict(float)

    def clocked(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*arguments)
            finally:
                spent[name] += time.perf_counter() - began

        return call

    def clocked_measures(settings: Mapping[str, Any]) -> dict[str, Scheduled]:
        return {
            name: dataclasses.replace(one, function=clocked(name, one.function))
            for name, one in scheduled(settings).items()
        }

    with (
        mock.patch("runner.training.run.scheduled", clocked_measures),
        mock.patch("runner.training.run.lambda_max", clocked("lambda_max at init", lambda_max)),
    ):
        yield spent
