"""A training step: against the machine's own sgemm, and against plain torch, one cell at a time."""

from __future__ import annotations

import json
from itertools import pairwise

import torch
from torch import nn

from benchmark.grids import cell, planned
from benchmark.lines import Family, at_least, at_most
from benchmark.machine import sgemm
from benchmark.processes import Steps, Workers
from benchmark.timing import ratios, seconds_per_call
from runner import data
from runner.grid.cell import Cell
from runner.launching.workers import set_up_torch
from runner.training.run import Run

DIMENSION, BATCH, DEPTH = 64, 64, 3
OF_SGEMM = {32: 0.40, 64: 0.55, 256: 0.70, 1024: 0.70}
OF_FASTEST = {32: 0.65, 64: 0.75, 256: 0.80, 1024: 0.80}
OF_PLAIN = {32: 12.0, 64: 6.0, 256: 1.8, 1024: 1.1}
_QUICK_WIDTHS = (64, 256)
_SECONDS = 0.6
_BETWEEN = 50
"""Steps between two measurements."""


def net(width: int) -> Cell:
    """Return the perceptron that is timed: one output, full batches, relu, gradient descent."""
    return cell(
        f"width={width}", f"depth={DEPTH}", "lr=1e-3", "steps=1000", "parameterization=mup", "data=xor",
        f"data.dim={DIMENSION}", f"data.train_size={BATCH}", "data.test_size=8", "data.probe_size=4",
    )  # fmt: skip


def flops(width: int) -> float:
    """Return 6 P B: products of a forward pass and of the two of a backward pass."""
    weights = DIMENSION * width + (DEPTH - 1) * width**2 + width
    return 6.0 * weights * BATCH


def run_of(cells: list[Cell], device: str = "cpu") -> Run:
    """Return a pack that is ready to train."""
    sections = json.loads(cells[0].settings)
    sections["measure"]["functions"] = {}
    return Run(cells, sections, data.load(sections["data"]), torch.device(device))


def measure(quick: bool) -> Family:
    """Return the family's lines."""
    family = Family("training")
    repeats = 2 if quick else 9
    for width in _QUICK_WIDTHS if quick else OF_SGEMM:
        one = net(width)
        pack = planned(one)
        rates, plain, peak, fastest = [], [], [], []
        with Workers() as workers:
            workers.make("pack", packed, pack)
            workers.rate("pack", _SECONDS)  # buffers are touched for the first time
            faults = workers.rate("pack", _SECONDS).faults
            for _ in range(repeats):
                rates.append(workers.rate("pack", _SECONDS).steps)
                fastest.append(sgemm(fast=True) * 1e9)
                peak.append(sgemm() * 1e9)
                plain.append(1 / plain_step(width))
        where = f"width {width}, {len(workers)} x {len(pack)} cells"
        done = [rate * flops(width) for rate in rates]
        family.add(
            f"step over sgemm, {where}", "ratio", ratios(done, peak), at_least(OF_SGEMM[width]),
            "6PB count; reach 0.85; sgemm as torch multiplies by itself",
        )  # fmt: skip
        family.add(
            f"step over sgemm as a worker multiplies, width {width}", "ratio", ratios(done, fastest),
            at_least(OF_FASTEST[width]), "where oneDNN's products are in float32 and faster than MKL's",
        )  # fmt: skip
        family.add(
            f"step over plain torch, {where}", "ratio",
            ratios(rates, plain), at_least(OF_PLAIN[width]),
            "cells x steps per second; torch.nn and torch.optim.SGD, one cell at a time, one thread or all",
        )  # fmt: skip
        family.add(
            f"page faults per step, width {width}", "faults", faults, at_most(1.0),
            "of a worker, when warm: a step that asked the system for memory would fault once per 4 KiB",
        )  # fmt: skip
    return family


def plain_step(width: int) -> float:
    """Return the seconds of a step of one cell in plain torch, on one thread or on all: the faster."""
    threads = torch.get_num_threads()
    try:
        return min(_plain_step(width, count) for count in (1, threads))
    finally:
        torch.set_num_threads(threads)


def _plain_step(width: int, threads: int) -> float:
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    sizes = [DIMENSION, *[width] * DEPTH]
    hidden = [
        part
        for fan_in, fan_out in pairwise(sizes)
        for part in (nn.Linear(fan_in, fan_out, bias=False), nn.ReLU())
    ]
    model = nn.Sequential(*hidden, nn.Linear(width, 1, bias=False))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    x, y = torch.randn(BATCH, DIMENSION), torch.randn(BATCH, 1)

    def step() -> None:
        optimizer.zero_grad()
        torch.autograd.backward(nn.functional.mse_loss(model(x), y))
        optimizer.step()

    for _ in range(5):
        step()
    return seconds_per_call(step, _SECONDS / 2)


def packed(pack: list[Cell]) -> Steps:
    """Return what takes steps of a pack as a worker of a sweep does: alone, on one thread."""
    set_up_torch()
    run = run_of(pack)
    taken = 0

    def steps() -> int:
        nonlocal taken
        before, taken = taken, run.advance(taken, taken + _BETWEEN)
        return len(pack) * (taken - before)

    return steps
