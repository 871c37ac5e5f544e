"""Plain torch modules: packs of them against the same modules one by one in plain torch."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from benchmark.grids import cell, seeds
from benchmark.lines import Family, at_least
from benchmark.timing import alternate, ratios
from runner import data
from runner.data.order import Batch
from runner.grid.cell import Cell
from runner.launching.workers import set_up_torch
from runner.measures import Snapshot
from runner.models.ensemble import Ensemble
from runner.numerics.precision import set_cpu_products
from runner.training.descent import descent_of
from runner.training.run import optimizer_of

_TESTS = Path(__file__).parents[2] / "tests"
MODULES: dict[str, tuple[str, dict[str, str]]] = {
    "a perceptron": ("handed.FixedStem", {}),
    "a transformer encoder": ("handed.TorchTransformer", {}),
    "fused attention": ("handed.FusedAttention", {}),
    "an LSTM": ("modules.Recurrent", {"kind": "LSTM"}),
    "a resnet with GroupNorm": ("handed.GroupNormResNet", {}),
}
"""What each is, to its class among those that the tests wrap, and further arguments."""
WIDTHS, _QUICK_WIDTHS = (32, 128, 256), (32,)
BATCH, OUTPUTS = 64, 10
PACKED = 8
OF_PLAIN = 0.7
OF_ONE = 0.95
"""A pack is never slower than its cells one by one, within what repeats differ by."""
LR = 1e-3


def net(name: str, width: int) -> Cell:
    """Return the module as a cell, on full batches of digits."""
    target, keys = MODULES[name]
    given = [f"+model.module.{key}={value}" for key, value in keys.items()]
    return cell(
        "model=torch", f"model.module._target_={target}", *given, "data=digits", f"width={width}",
        f"lr={LR}", "steps=1000", "parameterization=mup", f"data.train_size={BATCH}", "data.test_size=8",
        "data.probe_size=4",
    )  # fmt: skip


def our_step(pack: list[Cell]) -> Callable[[], None]:
    """Return a training step of a pack, whose cells are at init."""
    sections = json.loads(pack[0].settings)
    ensemble = Ensemble(pack, sections["model"], data.load(sections["data"]), torch.device("cpu"))
    rates = torch.full((len(pack),), LR)
    optimizer = optimizer_of(sections, ensemble.model, pack, rates)
    descent = descent_of(Snapshot(ensemble, 0, keep=True), optimizer)

    def step() -> None:
        optimizer.begin()
        descent(Batch())

    return step


def plain_step(name: str, width: int) -> Callable[[], None]:
    """Return a training step of one module as its author would write it."""
    target, keys = MODULES[name]
    file, _, which = target.partition(".")
    x, y = torch.randn(BATCH, 1, 8, 8), torch.randn(BATCH, OUTPUTS)
    module: nn.Module = getattr(importlib.import_module(file), which)(width=width, outputs=OUTPUTS, **keys)
    optimizer = torch.optim.SGD(module.parameters(), lr=LR)

    def step() -> None:
        optimizer.zero_grad()
        torch.autograd.backward((module(x) - y).square().sum(1).mean() / 2)
        optimizer.step()

    return step


def as_torch_is(function: Callable[[], object]) -> Callable[[], None]:
    """Return what calls a function with torch's own products, and leaves a worker's behind."""

    def call() -> None:
        set_cpu_products(fast=False)
        function()
        set_cpu_products()

    return call


def measure(quick: bool) -> Family:
    """Return the family's lines: on one thread, as a worker and as plain torch multiply."""
    family = Family("wrapped")
    threads = torch.get_num_threads()
    set_up_torch()
    sys.path.append(str(_TESTS))
    try:
        for name in MODULES:
            for width in _QUICK_WIDTHS if quick else WIDTHS:
                _lines(family, name, width, repeats=2 if quick else 5)
    finally:
        sys.path.remove(str(_TESTS))
        torch.set_num_threads(threads)
        set_cpu_products(fast=False)
    return family


def _lines(family: Family, name: str, width: int, repeats: int) -> None:
    pack = seeds(net(name, width), PACKED)
    found = alternate(
        {
            "pack": our_step(pack),
            "alone": our_step(pack[:1]),
            "plain": as_torch_is(plain_step(name, width)),
        },
        repeats,
    )
    each = [seconds / PACKED for seconds in found["pack"]]
    family.add(
        f"{name} over plain torch, width {width}, {PACKED} cells", "ratio", ratios(found["plain"], each),
        at_least(OF_PLAIN),
        f"cells x steps per second, batches of {BATCH}; torch.optim.SGD, cell by cell; one thread",
    )  # fmt: skip
    family.add(
        f"{name}, {PACKED} cells over one at a time, width {width}", "ratio", ratios(found["alone"], each),
        at_least(OF_ONE),
        "cells x steps per second, as a pack and as packs of one cell",
    )  # fmt: skip
