"""What measuring costs: its share of the time in which packs of the default sweep are trained."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from unittest import mock

import torch

from benchmark.default import default_sweep
from benchmark.grids import default_grid
from benchmark.lines import Family, at_most
from runner import run
from runner.machine import this_machine
from runner.measures.schedule import Scheduled
from runner.packs import Pack
from runner.plan import make_plan
from runner.train import train_pack
from runner.workers import cores, set_up_torch

EVERY = {"basic": 4, "full": 24}
"""Of the plan's packs, every so many are trained."""


def measure(quick: bool) -> Family:
    """Return the family's lines."""
    family = Family("measures")
    for name in ["basic"] if quick else ["basic", "full"]:
        machine = this_machine(torch.device("cpu"), cores())
        packs = make_plan(default_grid(f"measure={name}"), machine=machine).packs
        some = packs[:: EVERY[name] * (3 if quick else 1)]
        threads = torch.get_num_threads()
        set_up_torch()
        found = share(some)
        torch.set_num_threads(threads)
        how = f"{len(some)} of {len(packs)} packs, on one core; with lambda_max at init, without losses"
        if name == "full":
            note = f"{how}; exact spectra of 2,560 rows in float64 cost more than 100 steps of training"
            family.add("measure=full of the time in packs", "share", found, at_most(0.5), note)
            continue
        family.add("measure=basic of the time in packs", "share", found, None, how)
        if not quick:
            swept = default_sweep()
            of_wall = found * swept.train_seconds / (swept.run.wall * cores())
            family.add("measure=basic of the sweep's wall time", "share", of_wall, at_most(0.2), "all cores")
    return family


def share(packs: Iterable[Pack]) -> float:
    """Return the share of measures in the time in which these packs are trained."""
    spent = 0.0

    def clocked(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            nonlocal spent
            began = time.perf_counter()
            try:
                return function(*arguments)
            finally:
                spent += time.perf_counter() - began

        return call

    def scheduled(settings: Mapping[str, Any]) -> dict[str, Scheduled]:
        return {
            name: dataclasses.replace(measure, function=clocked(measure.function))
            for name, measure in run_scheduled(settings).items()
        }

    run_scheduled = run.scheduled
    began = time.perf_counter()
    with (
        mock.patch.object(run, "scheduled", scheduled),
        mock.patch.object(run, "lambda_max", clocked(run.lambda_max)),
    ):
        for pack in packs:
            train_pack(pack.cells, torch.device("cpu"))
    return spent / (time.perf_counter() - began)
