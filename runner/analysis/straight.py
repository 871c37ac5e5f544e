"""A straight power law through the seeds of each value of a key: its slope, and whether it is straight."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from runner.analysis.broken import LEAST, ROUNDING

RESAMPLES = 2000
LEAST_WIDTHS = LEAST


@dataclass(frozen=True, slots=True)
class Line:
    """A fitted slope with its bootstrap interval; None where the data do not carry one."""

    slope: float | None
    low: float | None
    high: float | None


def loglog_slope(
    samples: Mapping[float, np.ndarray], resamples: int = RESAMPLES, *, late: bool = False
) -> Line:
    """Return the least-squares slope of log sample against log x with a 95 % bootstrap interval.

    Args:
        samples: Positive values of the seeds, by x: the width or another key.
        resamples: How often the bootstrap draws.
        late: Whether a value of x weighs as much as it is large, in place of each the same.

    Returns:
        The slope of the seeds' geometric means. No slope with fewer than three values of x; no interval if
        one has a single seed, whose spread is unknown.
    """
    if len(samples) < LEAST_WIDTHS:
        return Line(None, None, None)
    widths = sorted(samples)
    x = np.log(np.array(widths, float))
    shares = np.array(widths, float) if late else np.ones(len(widths))
    centred = x - (shares * x).sum() / shares.sum()
    weights = shares * centred / (shares * centred**2).sum()
    logs = [np.log(samples[width]) for width in widths]
    slope = float(sum(weight * log.mean() for weight, log in zip(weights, logs, strict=True)))
    if min(len(log) for log in logs) < 2:
        return Line(slope, None, None)
    rng = np.random.default_rng(0)  # a fixed stream: the same table gives the same interval
    spread = np.zeros(resamples)
    for weight, log in zip(weights, logs, strict=True):
        spread += weight * log[rng.integers(0, len(log), (resamples, len(log)))].mean(axis=1)
    low, high = np.percentile(spread, [2.5, 97.5])
    return Line(slope, float(low), float(high))


def scatter(samples: Mapping[float, np.ndarray]) -> dict[str, float]:
    """Return how far points lie off their straight line, and how far the spread of seeds lets them.

    ``residual = sqrt(sum_x (mean log y - line)^2 / (n - 2))`` over n values of x, and ``noise`` is the root
    mean square of the standard errors of the means, with one spread for all x. A straight line whose only
    noise is that of the seeds has equal ones, up to chance.

    Args:
        samples: Positive values of at least two seeds, by x.
    """
    x = np.log(np.array(sorted(samples), float))
    logs = [np.log(samples[place]) for place in sorted(samples)]
    counts = np.array([len(log) for log in logs])
    means = np.array([log.mean() for log in logs])
    left = means - np.polyval(np.polyfit(x, means, 1), x)
    spread = sum(((log - log.mean()) ** 2).sum() for log in logs) / (counts - 1).sum()
    return {
        "residual": float(np.sqrt((left**2).sum() / (len(x) - 2))),
        "noise": float(np.sqrt((spread / counts).mean() + ROUNDING**2)),
    }
