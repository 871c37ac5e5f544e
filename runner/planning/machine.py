"""What one thread of this machine, or its GPU, can do: timed in a fraction of a second, then remembered.

A planner's estimates are only as good as their constants, and these differ by ten between machines. So a
few small but real things are timed: the dispatch of an operation, matrix products at some widths, additions
within the caches and beyond them.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from runner.errors import UserError
from runner.numerics.processor import cache_folder, processor_name
from runner.store.files import atomic

if TYPE_CHECKING:
    import torch

VERSION = 3
"""Changes whenever the same machine would be measured otherwise."""
WIDTHS = (32, 64, 128, 256, 512, 1024)
_SIZES = tuple(1 << shift for shift in range(20, 28))
_GPU_SHARE = 0.25
"""Of a GPU's memory for weights and one batch of activations; what is made of them needs the rest."""
_ROWS, _STEPS = 64, 16
"""Samples of the steps that are timed, and how many are taken in one go, as descent takes them."""
_SECONDS = 0.02
"""Spent on each thing that is timed."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Speeds of one thread, or of a GPU.

    Attributes:
        device: Its kind: processor or GPU, and what else tells it from others.
        call: Seconds to dispatch one operation.
        threads: On which products were timed once more: one for each core that a job may use.
        flops: FLOP/s of batched float32 matrix products on one thread, by `WIDTHS`.
        compiled: The same of the three products of a layer's step by compiled code, on `_ROWS` samples; of a
            library where there is none, and of matrices that are left to it.
        float64: Share of that speed which products in float64 reach.
        gains: How many times faster they are on all threads, by `WIDTHS`.
        cached: Bytes per second that are read and written within the caches.
        uncached: Bytes per second beyond the caches.
        cache_bytes: What stays in the caches of one core, or may be taken of a GPU's memory.
    """

    device: str
    call: float
    threads: int
    flops: tuple[float, ...]
    compiled: tuple[float, ...]
    float64: float
    gains: tuple[float, ...]
    cached: float
    uncached: float
    cache_bytes: int

    def rate(self, width: int, dtype: str = "float32", *, compiled: bool = False) -> float:
        """Return the FLOP/s of matrix products at a width, between those that were timed."""
        share = self.float64 if dtype == "float64" else 1.0
        timed = self.compiled if compiled else self.flops
        return share * float(np.interp(math.log2(width), np.log2(WIDTHS), timed))

    def gain(self, width: int) -> float:
        """Return how many times faster they are on all threads."""
        return float(np.interp(math.log2(width), np.log2(WIDTHS), self.gains))

    def bandwidth(self, size: float) -> float:
        """Return the bytes per second of passes over ``size`` bytes, again and again."""
        return self.cached if size <= self.cache_bytes else self.uncached


USUAL = Machine(
    device="usual",
    call=2.5e-6,
    threads=1,
    flops=(5e10, 6e10, 7e10, 8e10, 8.5e10, 9e10),
    compiled=(9e10, 1e11, 1e11, 1e11, 9e10, 9e10),
    float64=0.5,
    gains=(1.0,) * len(WIDTHS),
    cached=2e10,
    uncached=1e10,
    cache_bytes=8 << 20,
)
"""A core of 2023, in round figures: what plans are made with where nothing was measured."""


def from_record(record: object) -> Machine | None:
    """Return the machine that ``dataclasses.asdict`` made this of; None if it is damaged, or not of today."""
    if not isinstance(record, Mapping) or set(record) != {field.name for field in fields(Machine)}:
        return None
    with suppress(TypeError, ValueError):
        numbers = {name: float(record[name]) for name in ("call", "float64", "cached", "uncached")}
        whole = {name: int(record[name]) for name in ("threads", "cache_bytes")}
        rows = {name: tuple(map(float, record[name])) for name in ("flops", "compiled", "gains")}
        positive = [*numbers.values(), *whole.values(), *itertools.chain.from_iterable(rows.values())]
        if all(len(row) == len(WIDTHS) for row in rows.values()) and all(0 < x < math.inf for x in positive):
            return Machine(str(record["device"]), **numbers, **whole, **rows)  # type: ignore[arg-type]
    return None


def this_machine(device: torch.device, threads: int) -> Machine:
    """Return what was measured here before, or measure it now and keep it.

    Args:
        device: Device that cells train on.
        threads: Threads that may train a pack: as many as there are cores for a job; 1 on a GPU.
    """
    import torch

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name()
    key = f"{name}, {threads} of {os.cpu_count()} cores, torch {torch.__version__}, calibration {VERSION}"
    path = cache_folder() / f"{''.join(c if c.isalnum() else '-' for c in key)}.json"
    with suppress(OSError, ValueError):
        known = from_record(json.loads(path.read_bytes()))
        if known and known.device == key:
            return known
    found = measure(device, threads, key)
    with suppress(OSError, UserError), atomic(path, durable=False) as file:  # then it is measured each time
        file.write(json.dumps(asdict(found), indent=1).encode())
    return found


def measure(device: torch.device, threads: int, name: str) -> Machine:
    """Time the machine, set up as a worker is; takes about half a second.

    Args:
        device: What to time.
        threads: Threads to time products on, beside one.
        name: What to call it.
    """
    import torch

    from runner.numerics.precision import set_cpu_products

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    set_cpu_products()
    try:
        timed = _clock(device)
        small = torch.zeros(8, device=device)
        call = timed(lambda: torch.add(small, 1.0, out=small))
        flops = [_product_rate(width, device, timed) for width in WIDTHS]
        compiled = tuple(
            _compiled_rate(width, device, timed) or rate for width, rate in zip(WIDTHS, flops, strict=True)
        )
        double = _product_rate(256, device, timed, torch.float64) / flops[WIDTHS.index(256)]
        speeds = [_pass_rate(size, device, timed) for size in _SIZES]
        torch.set_num_threads(threads)
        together = [_product_rate(width, device, timed) for width in WIDTHS] if threads > 1 else flops
    finally:
        torch.set_num_threads(before)
        set_cpu_products(fast=False)
    if device.type == "cuda":
        cache = int(_GPU_SHARE * torch.cuda.get_device_properties(device).total_memory)
    else:
        # Half way between the two speeds, the caches are left; the largest is shared with other cores.
        border = math.sqrt(max(speeds) * speeds[-1])
        cache = max(size for size, speed in zip(_SIZES, speeds, strict=True) if speed >= border) // 2
    gains = tuple(_rounded(many / one) for many, one in zip(together, flops, strict=True))
    return Machine(
        name, _rounded(call), threads, tuple(flops), compiled, _rounded(double), gains, max(speeds),
        speeds[-1], cache,
    )  # fmt: skip


def _product_rate(
    width: int,
    device: torch.device,
    timed: Callable[[Callable[[], Any]], float],
    dtype: torch.dtype | None = None,
) -> float:
    import torch

    count = max(1, (1 << 18) // width**2)
    left, right = (torch.full((count, width, width), 0.5, device=device, dtype=dtype) for _ in range(2))
    out = torch.empty_like(left)
    return _rounded(2.0 * count * width**3 / timed(lambda: torch.bmm(left, right, out=out)))


def _compiled_rate(
    width: int, device: torch.device, timed: Callable[[Callable[[], Any]], float]
) -> float | None:
    """Return the speed of a layer's step by compiled code; None where it takes no such matrix."""
    import torch

    from runner.numerics.compiled import takes
    from runner.numerics.operations import Operation
    from runner.numerics.steps import Program

    weight = torch.full((1, width, width), 0.5, device=device)
    if not takes(weight):
        return None
    x, z, below = (torch.full((1, _ROWS, width), 0.5, device=device) for _ in range(3))
    forward, back = Operation(z, x, weight, rectify=True), Operation(below, x, weight.mT, above=z)
    step = Program([forward, back, Operation(weight, x.mT, x, factor=0.0, add=True)])
    return _rounded(3 * 2.0 * _STEPS * _ROWS * width**2 / timed(lambda: step.run(_STEPS)))


def _pass_rate(size: int, device: torch.device, timed: Callable[[Callable[[], Any]], float]) -> float:
    import torch

    values = torch.zeros(size // 4, device=device)
    return _rounded(2.0 * size / timed(lambda: torch.add(values, 1.0, out=values)))


def _clock(device: torch.device) -> Callable[[Callable[[], Any]], float]:
    """Return what times a call: the shortest of several runs, since others may use the machine as well."""
    import torch

    def timed(call: Callable[[], Any]) -> float:
        def once(count: int) -> float:
            began = time.perf_counter()
            for _ in range(count):
                call()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            return (time.perf_counter() - began) / count

        once(1)
        count = max(1, int(_SECONDS / 4 / max(once(1), 1e-7)))
        return min(once(count) for _ in range(4))

    return timed


def _rounded(value: float) -> float:
    return float(f"{value:.2g}")
