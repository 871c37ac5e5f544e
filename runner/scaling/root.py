"""Where a size passes through order one, and the answer where there is none."""

from collections.abc import Callable


class Silent(Exception):
    """Theory derives nothing here; the message says why."""


def root(rising: Callable[[float], float], bound: float = 64.0) -> float:
    """Return where a rising, piecewise linear function passes zero, by halving.

    Raises:
        Silent: If it does not between -bound and bound.
    """
    low, high = -bound, bound
    if not rising(low) <= 0 <= rising(high):
        raise Silent("there is no such size")
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (low, middle) if rising(middle) > 0 else (middle, high)
    return round(low, 6) + 0.0
