"""Broken power laws: one, two or three straight pieces in both logarithms that meet at breaks.

The law is ``log y = a + b log x + sum_j c_j max(0, log x - log break_j)``, fitted by weighted least squares
to the means over seeds of log y. A break may lie anywhere between two abscissae: it is searched for on a grid
that closes in on what the data allow. The same law with rounded corners is the smoothly broken power law of
Caballero et al.; Muggeo finds the breaks by iteration from a first guess, which the search makes needless.

An interval is a profile of the likelihood: the values of a slope, or of a break, for which the best law that
has it fits not much worse than the best one of all. What "not much" is says Student's t with the degrees of
freedom that the noise was measured with: intervals stay honest with three seeds, and nothing is drawn at
random.

References:
    Caballero et al., arXiv 2210.14891.
    Muggeo, Statistics in Medicine 22, 3055 (2003).
    McQuarrie, Statistics and Probability Letters 44, 79 (1999): the criterion for small samples.
    Satterthwaite, Biometrics Bulletin 2, 110 (1946): degrees of freedom of a sum of variances.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from runner.analysis.quantiles import fisher

LEAST = 3  # abscissae of a piece: through two goes every line
MOST_PIECES = 3
# Log units: values may have gone through float32, so smaller differences say nothing.
ROUNDING = 1e-6
KNOWN = 100.0  # degrees of freedom of a noise that is known rather than measured
MISFIT = 0.99  # level of the test whether the noise of seeds explains what the richest law leaves
LEVEL = 0.95
GRID = 900  # places of the breaks, all together, in one round of the search
ROUNDS = 12


@dataclass(frozen=True, slots=True)
class Piece:
    """The slope of one piece with its 95 % interval, and the first and last abscissa on it."""

    slope: float
    low: float
    high: float
    first: float
    last: float


@dataclass(frozen=True, slots=True)
class Break:
    """Where two pieces meet, in units of the abscissae, with its 95 % interval.

    An end of the interval is None where the data do not bound the break on that side.
    """

    place: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Broken:
    """The law that the criterion chose.

    Attributes:
        pieces: From the smallest abscissa to the largest.
        breaks: One fewer than pieces.
        scores: The criterion with one, two, ... pieces, as many as the abscissae allow; the smallest wins.
        height: log y of the law at its first abscissa.
    """

    pieces: tuple[Piece, ...]
    breaks: tuple[Break, ...]
    scores: tuple[float, ...]
    height: float


def broken_line(
    samples: Mapping[float, np.ndarray],
    most: int = MOST_PIECES,
    quantum: Mapping[float, float] | None = None,
    least: int = 1,
) -> Broken | None:
    """Return the broken power law through samples, with as many pieces as they support.

    The noise is what seeds differ by, the same at every abscissa, and what is known of a value's resolution.
    Where that cannot explain what even the richest law leaves, no law holds at this precision, and the noise
    is what each law leaves. The number of pieces m, with 2 m parameters, minimizes the Bayesian information
    criterion with McQuarrie's correction, ``n log(rss / n) + 2 m n log(n) / (n - 2 m - 2)``. With one seed
    the correction is decisive: without it a straight law of eight abscissae counts as broken in a quarter of
    all draws, with it in fewer than one in twenty.

    Args:
        samples: Positive values of the seeds, by positive abscissa; the numbers of seeds may differ.
        most: The largest number of pieces. A piece has at least three abscissae (one that lies on a break
            counts for both), and ``m`` pieces need ``3 m``.
        quantum: Width in log units of the bracket within which a value at an abscissa is only known to lie,
            common to its seeds, as from a search along a grid; its variance is the square over 12.
        least: The smallest number of pieces, where that many are possible: equal to ``most``, it is given.

    Returns:
        The law; None with fewer than three abscissae.
    """
    places = sorted(samples)
    if len(places) < LEAST:
        return None
    x = np.log(np.array(places, float))
    logs = [np.log(np.asarray(samples[place], float)) for place in places]
    y = np.array([log.mean() for log in logs])
    bracket = np.array([(quantum or {}).get(place, 0.0) for place in places])
    possible = range(1, min(most, len(places) // LEAST) + 1)
    variance, known = _noise(logs, bracket)
    laws = [_search(x, y, variance, known, pieces) for pieces in possible]
    left = len(x) - 2 * len(laws)
    if laws[-1].misfit / left > fisher(left, known, MISFIT):
        # Not averaged over seeds, so every abscissa counts the same.
        variance, known = np.ones(len(x)), 0.0
        laws = [_search(x, y, variance, known, pieces) for pieces in possible]
    scores = tuple(
        _criterion(law.misfit, len(x), known, pieces) for law, pieces in zip(laws, possible, strict=True)
    )
    first = min(least, len(laws)) - 1
    chosen = laws[first + int(np.argmin(scores[first:]))]
    return chosen.broken(places, scores)


def _noise(logs: list[np.ndarray], bracket: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the variance of the mean at each abscissa, and the degrees of freedom it is known with."""
    counts = np.array([len(log) for log in logs])
    freedom = int((counts - 1).sum())
    spread = sum(((log - log.mean()) ** 2).sum() for log in logs) / max(1, freedom)
    variance = spread / counts + bracket**2 / 12 + ROUNDING**2
    measured = (spread / counts).sum() / variance.sum()  # the share that seeds tell
    return variance, min(KNOWN, freedom / measured**2 if measured > 0 else KNOWN)


def _criterion(misfit: float, abscissae: int, known: float, pieces: int) -> float:
    """Return the corrected criterion; infinite where there are too few numbers to tell."""
    count, parameters = abscissae + known, 2 * pieces
    if count <= parameters + 2:
        return float("inf") if pieces > 1 else 0.0
    penalty = parameters * count * np.log(count) / (count - parameters - 2)
    return float(count * np.log((misfit + known) / count) + penalty)


@dataclass(frozen=True, slots=True)
class _Law:
    """A fitted law: its breaks in index space with their ranges, slopes with theirs."""

    misfit: float
    height: float
    slopes: list[tuple[float, float, float]]
    breaks: list[tuple[float, float | None, float | None]]

    def broken(self, places: list[float], scores: tuple[float, ...]) -> Broken:
        """Return the law in units of the abscissae."""
        breaks = tuple(Break(*found) for found in self.breaks)
        ends = [-np.inf, *(found.place * (1 + 1e-12) for found in breaks), np.inf]
        pieces = []
        for piece, slope in enumerate(self.slopes):
            within = [n for n in places if ends[piece] < n <= ends[piece + 1]]
            pieces.append(Piece(*slope, float(within[0]), float(within[-1])))
        return Broken(tuple(pieces), breaks, scores, self.height)


def _search(x: np.ndarray, y: np.ndarray, variance: np.ndarray, known: float, pieces: int) -> _Law:
    """Return the best law of so many pieces; a place is an index into x, 2.5 halfway from x[2] to x[3]."""
    count = len(x)
    freedom = count + known - 2 * pieces
    student = fisher(1, freedom, LEVEL)
    box = [(1.0, count - 2.0)] * (pieces - 1)
    step = [np.inf] * (pieces - 1)
    for _ in range(ROUNDS):
        grids = [np.linspace(*ends, round(GRID ** (1 / (pieces - 1)))) for ends in box]
        at = (
            np.stack(np.meshgrid(*grids, indexing="ij"), -1).reshape(-1, pieces - 1)
            if grids
            else np.zeros((1, 0))
        )
        least = _least_abscissae(at, count)
        at, least = at[least >= 2], least[least >= 2]
        misfit, height, slopes, spread = _fits(x, y, variance, np.interp(at, np.arange(count), x))
        best = int(np.where(least >= LEAST, misfit, np.inf).argmin())
        # The scale of the noise is measured anew with what the law leaves.
        slack = misfit[best] + student * (misfit[best] + known) / freedom - misfit
        inside = slack >= 0
        step = [grid[1] - grid[0] for grid in grids]
        ranges = [(float(found.min()), float(found.max())) for found in at[inside].T]
        box = [
            (max(1.0, low - 2 * size), min(count - 2.0, high + 2 * size))
            for (low, high), size in zip(ranges, step, strict=True)
        ]
        if all(
            high - low > len(grid) / 4 * size
            for (low, high), grid, size in zip(ranges, grids, step, strict=True)
        ):
            break
    reach = np.sqrt(slack[inside, None] * spread[inside])
    lows, highs = (slopes[inside] - reach).min(axis=0), (slopes[inside] + reach).max(axis=0)
    breaks = []
    for place, (low, high), size in zip(at[best], ranges, step, strict=True):
        place, below, above = (float(np.exp(np.interp(n, np.arange(count), x))) for n in (place, low, high))
        breaks.append(
            (place, None if low <= 1 + size else below, None if high >= count - 2 - size else above)
        )
    found = [(float(a), float(b), float(c)) for a, b, c in zip(slopes[best], lows, highs, strict=True)]
    return _Law(float(misfit[best]), float(height[best]), found, breaks)


def _least_abscissae(at: np.ndarray, count: int) -> np.ndarray:
    """Return the fewest abscissae that a piece has, for each row of breaks."""
    ends = np.hstack([np.zeros((len(at), 1)), at, np.full((len(at), 1), count - 1.0)])
    first, last = np.ceil(ends[:, :-1] - 1e-9), np.floor(ends[:, 1:] + 1e-9)
    fewest: np.ndarray = (last - first + 1).min(axis=1)
    return fewest


def _fits(
    x: np.ndarray, y: np.ndarray, variance: np.ndarray, breaks: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return chi squared, the height at x[0], the slopes and their variances for each row of breaks."""
    bends = np.maximum(0, x[None, :, None] - breaks[:, None, :])
    straight = np.broadcast_to(np.stack([np.ones(len(x)), x - x[0]], -1), (len(breaks), len(x), 2))
    design = np.concatenate([straight, bends], -1) / np.sqrt(variance)[:, None]
    inverse = np.linalg.inv(design.transpose(0, 2, 1) @ design)
    target = y / np.sqrt(variance)
    weights = (inverse @ (design.transpose(0, 2, 1) @ target)[..., None])[..., 0]
    misfit = ((target - (design @ weights[..., None])[..., 0]) ** 2).sum(axis=1)
    # A piece's slope is the first one plus the bends before it.
    slopes = weights[:, 1:].cumsum(axis=1)
    spread = inverse[:, 1:, 1:].cumsum(axis=1).cumsum(axis=2).diagonal(axis1=1, axis2=2)
    return misfit, weights[:, 0], slopes, spread
