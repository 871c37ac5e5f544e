"""What measuring costs: its share of the time in which packs of the default sweep are trained."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from unittest import mock

import torch

from benchmark.grids import default_grid
from benchmark.lines import Family, at_most
from runner import run
from runner.machine import this_machine
from runner.measures.schedule import Scheduled
from runner.packs import Pack
from runner.plan import make_plan
from runner.train import train_pack
from runner.workers import set_up_torch

EVERY = {"basic": 4, "full": 8}
"""Of the plan's packs, every so many are trained."""
TARGETS = {"basic": 0.2, "full": 0.5}


def measure(quick: bool) -> Family:
    """Return the family's lines."""
    family = Family("measures")
    threads = torch.get_num_threads()
    set_up_torch()
    for name in ["basic"] if quick else ["basic", "full"]:
        packs = make_plan(default_grid(f"measure={name}"), machine=this_machine(torch.device("cpu"))).packs
        some = packs[:: EVERY[name] * (3 if quick else 1)]
        family.add(
            f"measure={name}, default sweep", "share", share(some), at_most(TARGETS[name]),
            f"of the time of {len(some)} of {len(packs)} packs on one core; lambda_max at init is counted, "
            "losses and errors are not",
        )  # fmt: skip
    torch.set_num_threads(threads)
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
