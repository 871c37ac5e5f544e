"""Data collapse: the exponent for which curves of a metric fall on one when their abscissa is rescaled.

If ``y = F(x n^-beta)`` with one function F, curves of log y against ``log x - beta log n``, one per n, lie on
each other. For a beta each point of a curve is compared with what linear interpolation, in both logarithms,
says of the other curves there; where they do not reach it is not compared, for nothing is extrapolated. The
exponent has the smallest mean square of the differences.

After Bhattacharjee & Seno, with two changes, both as in Houdayer & Hartmann. The other curves are pooled to
one prediction of a point, by their precision, instead of compared one by one. And a difference is divided by
its standard deviation, in units of the noise of a point: an interpolation halfway between two points has half
the variance of one that meets a point, so that without this a beta would do better only for lying between
the points of a grid. A beta needs at least half of the points compared, some of every curve, and no two
groups of curves apart: few that lie on each other by chance say nothing.

References:
    Bhattacharjee & Seno, J. Phys. A 34, 6375 (2001), arXiv cond-mat/0102515, equation 3.
    Houdayer & Hartmann, Phys. Rev. B 70, 014418 (2004), arXiv cond-mat/0402036, appendix.
    Geiger et al., arXiv 1906.08034: kernel change against gamma / sqrt(width).
"""

from dataclasses import dataclass

import numpy as np

from runner.analysis.columns import show_values
from runner.analysis.quantiles import fisher, student

MOST = 4.0
"""Exponents are searched from minus this to this."""
LEAST_CURVES = 2
LEAST_POINTS = 2  # of each curve that are compared: one alone can be laid on anything
LEAST_SHARE = 0.5  # of all points that are compared
RANGE = 0.99  # level of the test whether the residual at an end of the range is larger than the smallest one
STEP = 0.1  # of exponents on the first grid, or finer where points are close
ROUNDS, FINER = 3, 8  # of refining, each with a grid so many times finer
# Log units: values may have gone through float32, so smaller differences say nothing.
ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class Points:
    """The points of all curves, at least two of each, sorted by curve and abscissa; all in logarithms.

    Attributes:
        x: Abscissa, before it is rescaled.
        y: Metric, the mean over seeds.
        curve: Number of the curve of each point, from 0.
        size: Logarithm of the key, by curve.
    """

    x: np.ndarray
    y: np.ndarray
    curve: np.ndarray
    size: np.ndarray

    def rescaled(self, beta: float) -> np.ndarray:
        """Return the abscissae ``log x - beta log n``."""
        shifted: np.ndarray = self.x - beta * self.size[self.curve]
        return shifted


@dataclass(frozen=True, slots=True)
class Misfit:
    """How well curves collapse, for each exponent asked for.

    Attributes:
        square: Mean square of the standardized differences: variance of a point if they collapse. Infinite
            where too few points are compared.
        residual: Root mean square of the differences themselves, in log units.
        compared: Number of points that are compared.
        factor: Mean variance of a difference, in units of that of a point.
    """

    square: np.ndarray
    residual: np.ndarray
    compared: np.ndarray
    factor: np.ndarray


def misfit(points: Points, betas: np.ndarray) -> Misfit:
    """Return how well curves collapse with each of these exponents."""
    weight, pooled = np.zeros((2, len(betas), len(points.x)))
    for number, size in enumerate(points.size):
        own = points.curve == number
        x, y = points.x[own], points.y[own]
        # Where the points of the other curves lie on the abscissa of this one.
        there = points.x[~own] - betas[:, None] * (points.size[points.curve[~own]] - size)
        inside = (there >= x[0] - ROUNDING) & (there <= x[-1] + ROUNDING)
        left = np.minimum(np.maximum(np.searchsorted(x, there) - 1, 0), len(x) - 2)
        part = np.minimum(np.maximum((there - x[left]) / np.diff(x)[left], 0), 1)
        precision = inside / (part**2 + (1 - part) ** 2)
        weight[:, ~own] += precision
        pooled[:, ~own] += precision * (y[left] + part * np.diff(y)[left])
    known = weight > 0
    variance = 1 + 1 / np.where(known, weight, 1)
    gap = np.where(known, points.y - pooled / np.where(known, weight, 1), 0)
    compared = known.sum(axis=1)
    count = np.maximum(compared, 1)
    square = (gap**2 / variance).sum(axis=1) / count
    return Misfit(
        np.where(_supported(points, betas, known), square, np.inf),
        np.sqrt((gap**2).sum(axis=1) / count),
        compared,
        (variance * known).sum(axis=1) / count,
    )


def _supported(points: Points, betas: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return for which exponents enough points of every curve are compared, and all curves hang together."""
    starts = np.searchsorted(points.curve, range(len(points.size)))
    each = np.add.reduceat(known, starts, axis=1, dtype=int)
    enough = (each >= LEAST_POINTS).all(axis=1) & (known.mean(axis=1) >= LEAST_SHARE)
    ends = points.x[np.stack([starts, np.append(starts[1:], len(points.x)) - 1])].T
    reach = ends[:, :, None] - points.size[:, None, None] * betas
    order = np.argsort(reach[:, 0], axis=0)
    first, last = (np.take_along_axis(reach[:, side], order, axis=0) for side in (0, 1))
    together = (first[1:] <= np.maximum.accumulate(last, axis=0)[:-1] + ROUNDING).all(axis=0)
    return np.asarray(enough & together)


@dataclass(frozen=True, slots=True)
class Found:
    """An exponent, or the reason why there is none.

    Attributes:
        beta: The exponent.
        half: Half of the 95 % interval that the differences tell, as if they were independent noise.
        residual: Root mean square of the differences, in log units.
        compared: Number of points that are compared.
        factor: Mean variance of a difference, in units of that of a point.
        reason: Why there is no exponent.
    """

    beta: float | None = None
    half: float = np.nan
    residual: float = np.nan
    compared: int = 0
    factor: float = np.nan
    reason: str | None = None


def search(points: Points) -> Found:
    """Return the exponent with the smallest residual, if that tells it from the ends of the range.

    At the ends of the range, -4 and 4 or the last exponents at which curves overlap, the mean square must be
    larger than the smallest by more than the 99 % quantile of Fisher's F with as many degrees of freedom as
    points are compared: otherwise the data do not determine the exponent, or it lies beyond.
    """
    if reason := _apart(points):
        return Found(reason=reason)
    spread = float(np.ptp(points.size))
    gaps = np.diff(points.x)[np.diff(points.curve) == 0]
    # From one exponent to the next no curve moves by more than a quarter of the distance of its points.
    step = min(STEP, max(STEP / 20, float(np.median(gaps)) / 4 / spread))
    betas = np.linspace(-MOST, MOST, 2 * round(MOST / step) + 1)
    tried = misfit(points, betas)
    possible = np.isfinite(tried.square)
    if not possible.any():
        return Found(
            reason=f"at no exponent from {-MOST:g} to {MOST:g} do enough points of the curves overlap"
        )
    best = int(tried.square.argmin())
    padded = np.concatenate([[False], possible, [False]])
    ends = possible & ~(padded[:-2] & padded[2:])
    end = int(np.where(ends, tried.square, np.inf).argmin())
    reach = f"{betas[possible][0]:.2g} to {betas[possible][-1]:.2g}"
    sizes = tried.residual[[best, end]]
    undecided = Found(
        reason=f"the residual does not tell exponents apart: {sizes[0]:.2g} at best, {sizes[1]:.2g} at an "
        f"end of the possible ones, {reach}"
    )
    least = max(float(tried.square[best]), ROUNDING**2)
    limit = least * float(fisher(float(tried.compared[end]), float(tried.compared[best]), RANGE))
    if np.median(tried.square[possible]) <= limit:
        return undecided
    if ends[best]:
        return Found(reason=f"the residual is smallest at an end of the possible exponents, {reach}")
    if tried.square[end] <= limit:
        return undecided
    wide = step = betas[1] - betas[0]
    beta = betas[best]
    for _ in range(ROUNDS):
        near = np.linspace(beta - step, beta + step, 2 * FINER + 1)
        beta, step = near[int(misfit(points, near).square.argmin())], step / FINER
    last = misfit(points, np.array([beta, beta - wide, beta + wide]))
    compared = int(last.compared[0])
    # Each point is compared with all others: the sum over k curves counts k / (k - 1) times too much.
    freedom = max(1.0, compared * (1 - 1 / len(points.size)) - 1)
    beside = last.square[1:][np.isfinite(last.square[1:])]
    bend = (beside.mean() - last.square[0]) / wide**2 if len(beside) else 0.0
    if not bend > 0:
        return undecided
    half = student(freedom, 0.975) * np.sqrt(last.square[0] / freedom / bend)
    return Found(float(beta), float(half), float(last.residual[0]), compared, float(last.factor[0]))


def _apart(points: Points) -> str | None:
    """Return why no exponent can make one curve of these, None if nothing forbids it."""
    if len(points.size) < LEAST_CURVES:
        few = show_values(np.exp(points.size)) or "none"
        return f"at least {LEAST_POINTS} points at each of {LEAST_CURVES} values of the key, got {few}"
    numbers = range(len(points.size))
    ends = np.array([[f(points.y[points.curve == number]) for f in (np.min, np.max)] for number in numbers])
    order = np.argsort(ends[:, 0])
    gaps = ends[order[1:], 0] > np.maximum.accumulate(ends[order, 1])[:-1]
    if not gaps.any():
        return None
    below = np.exp(points.size[order[: int(gaps.argmax()) + 1]])
    return f"the values at {show_values(below)} lie below all others: no exponent makes one curve of them"
