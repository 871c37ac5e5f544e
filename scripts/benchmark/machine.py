"""The machine and the versions that the figures are of."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import torch

from benchmark.timing import seconds_per_call
from runner.launching.workers import cores
from runner.numerics.precision import set_cpu_products

SGEMM_SIZE = 2048


def sgemm(fast: bool = False) -> float:
    """Return the GFLOP/s of one float32 product of square matrices, with torch's threads as they are.

    Args:
        fast: As a worker multiplies; otherwise as torch does by itself.
    """
    product = square_product()
    set_cpu_products(fast)
    try:
        product()
        seconds = seconds_per_call(product, 0.4)
    finally:
        set_cpu_products(fast=False)
    return gigaflops(seconds)


def square_product() -> Callable[[], object]:
    """Return what multiplies two square matrices of float32."""
    one, other, out = torch.randn(3, SGEMM_SIZE, SGEMM_SIZE).unbind()
    return lambda: torch.mm(one, other, out=out)


def gigaflops(seconds: float) -> float:
    """Return the GFLOP/s of :func:`square_product` from the seconds that it takes."""
    return 2 * SGEMM_SIZE**3 / seconds / 1e9


def peak_mib() -> float:
    """Return the peak memory of this process in MiB, without what the process had that started it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("/proc/self/status must name VmHWM; peaks of memory are measured on Linux alone")


def describe() -> dict[str, str]:
    """Return what a reader needs to compare figures: machine, versions, commit and date."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "cpu": _cpu(),
        "cores": str(cores()),
        "memory_gib": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f}",
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "python": platform.python_version(),
        "torch": importlib.metadata.version("torch"),
        "commit": _commit(),
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit() -> str:
    root = Path(__file__).parent
    found = subprocess.run(
        ["git", "-C", str(root), "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip() or "unknown"
