"""Repeats that take turns, so that a machine that slows down slows both sides of a ratio."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping


def seconds_per_call(function: Callable[[], object], at_least: float) -> float:
    """Call a function for some seconds and return how long one call took."""
    calls, began = 0, time.perf_counter()
    while True:
        function()
        calls += 1
        elapsed = time.perf_counter() - began
        if elapsed >= at_least:
            return elapsed / calls


def alternate(
    functions: Mapping[str, Callable[[], object]], repeats: int, at_least: float = 0.2
) -> dict[str, list[float]]:
    """Time functions in turn, A B A B ..., after one call of each to warm up.

    Args:
        functions: By name.
        repeats: Of each.
        at_least: Seconds of one repeat.

    Returns:
        Seconds per call, one per repeat, by name.
    """
    for function in functions.values():
        function()
    found: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            found[name].append(seconds_per_call(function, at_least))
    return found


def ratios(above: list[float], below: list[float]) -> list[float]:
    """Return the ratio of each repeat."""
    return [a / b for a, b in zip(above, below, strict=True)]
