"""Quantiles for intervals. SciPy is loaded with the first: a sweep that prints its table needs none."""

from typing import Any


def student(freedom: Any, level: float) -> Any:
    """Return the quantile of Student's t; arrays of degrees of freedom give arrays."""
    from scipy.special import stdtrit

    return stdtrit(freedom, level)


def fisher(numerator: Any, denominator: Any, level: float) -> Any:
    """Return the quantile of Fisher's F for these degrees of freedom."""
    from scipy.special import fdtri

    return fdtri(numerator, denominator, level)
