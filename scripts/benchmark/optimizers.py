"""A training step under Muon, in small batches mostly orthogonalization, against one under Adam."""

from __future__ import annotations

from collections.abc import Callable

import torch

from benchmark.grids import cell, seeds
from benchmark.lines import Family, at_most
from benchmark.timing import alternate, ratios
from benchmark.training import DEPTH, DIMENSION, run_of
from runner.launching.workers import set_up_torch
from runner.numerics.precision import set_cpu_products

CELLS = {256: 4, 1024: 1}
"""Width to the cells of a pack."""
SMALL, MANY = 64, 8
"""A small batch, and how many times the width a large one is."""
OF_ADAM = 2.0


def measure(quick: bool) -> Family:
    """Return the family's lines."""
    family = Family("optimizers")
    threads = torch.get_num_threads()
    set_up_torch()
    for width, count in list(CELLS.items())[: 1 if quick else None]:
        for batch in (SMALL, MANY * width):
            steps = {name: _step(name, width, batch, count) for name in ("adam", "muon")}
            seconds = alternate(steps, 2 if quick else 5, 0.3)
            family.add(
                f"step of muon over one of adam, width {width}, {count} cells, batch {batch}", "ratio",
                ratios(seconds["muon"], seconds["adam"]), at_most(OF_ADAM) if batch > SMALL else None,
                f"one thread; operations, the optimizers' own aside: {1 + 5 * width / batch:.3g}",
            )  # fmt: skip
    torch.set_num_threads(threads)
    set_cpu_products(fast=False)
    return family


def _step(optimizer: str, width: int, batch: int, count: int) -> Callable[[], object]:
    """Return what takes a step of a pack, full batch."""
    one = cell(
        f"width={width}", f"depth={DEPTH}", "lr=1e-3", "steps=100000", "parameterization=mup", "data=xor",
        f"optimizer={optimizer}", f"data.dim={DIMENSION}", f"data.train_size={batch}", "data.test_size=8",
        "data.probe_size=4",
    )  # fmt: skip
    run = run_of(seeds(one, count))
    taken = iter(range(100000))
    return lambda: run.advance(next(taken))
