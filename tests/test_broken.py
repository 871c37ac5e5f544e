"""Broken power laws: planted ones are found, and their intervals hold what was planted."""

from collections.abc import Sequence

import numpy as np
import pytest
from scipy.special import fdtri

from runner.analysis.broken import Broken, broken_line

DRAWS = 100
"""Of which intervals half as wide would cover 67 +- 5, where 90 are asked for."""


def law(x: np.ndarray, slopes: Sequence[float], breaks: Sequence[float]) -> np.ndarray:
    """Return log y of a broken power law, one at the first abscissa."""
    y = np.zeros(len(x))
    for i in range(1, len(x)):
        # Walk from one abscissa to the next, piece by piece.
        here, end = np.log(x[i - 1]), np.log(x[i])
        y[i] = y[i - 1]
        for slope, stop in zip(slopes, [*np.log(breaks), np.inf], strict=True):
            if here < min(stop, end):
                y[i] += slope * (min(stop, end) - here)
                here = min(stop, end)
    return y


def draw(
    rng: np.random.Generator, x: np.ndarray, slopes: Sequence[float], breaks: Sequence[float], noise: float,
    missing: float = 0.3, differs: float = 2.0, seeds: int = 4,
) -> dict[float, np.ndarray]:  # fmt: skip
    """Return samples: some seeds missing, the noise of each abscissa up to ``differs`` times more or less."""
    samples = {}
    for place, height in zip(x, law(x, slopes, breaks), strict=True):
        count = rng.integers(1, seeds + 1) if rng.random() < missing else seeds
        here = noise * differs ** rng.uniform(-1, 1)
        samples[float(place)] = np.exp(height + here * rng.standard_normal(count))
    return samples


def found(samples: dict[float, np.ndarray], **how: int) -> Broken:
    result = broken_line(samples, **how)
    assert result is not None
    return result


PLANTED = {
    "5 abscissae, straight": (5, (-1.0,), (), 0.1),
    "8 abscissae, straight": (8, (0.5,), (), 0.3),
    "12 abscissae, straight": (12, (-1.0,), (), 0.1),
    "6 abscissae, broken": (6, (0.0, -1.0), (1.3,), 0.1),
    "8 abscissae, broken": (8, (0.0, -1.0), (0.4,), 0.2),
    "12 abscissae, broken": (12, (-1.0, 0.5), (3.0,), 0.3),
    "12 abscissae, twice broken": (12, (0.0, -1.0, 1.0), (0.2, 5.0), 0.1),
}


@pytest.mark.parametrize("name", PLANTED)
def test_planted_laws_are_found_and_covered(name: str) -> None:
    count, slopes, breaks, noise = PLANTED[name]
    rng, x = np.random.default_rng(0), np.geomspace(0.01, 100, count)
    right, covered = [], []
    for _ in range(DRAWS):
        samples = draw(rng, x, slopes, breaks, noise)
        result = found(samples)
        right.append(len(result.pieces) == len(slopes))
        if not right[-1]:
            result = found(samples, most=len(slopes), least=len(slopes))
        covered.append(
            [piece.low <= slope <= piece.high for piece, slope in zip(result.pieces, slopes, strict=True)]
            + [
                (end.low or 0) <= place <= (end.high or np.inf)
                for end, place in zip(result.breaks, breaks, strict=True)
            ]
        )
    assert np.mean(right) >= 0.9
    assert (np.mean(covered, axis=0) >= 0.9).all()


@pytest.mark.parametrize("seeds", [1, 3, 8])
def test_straight_laws_stay_straight_with_few_seeds_and_many(seeds: int) -> None:
    rng, x = np.random.default_rng(1), np.geomspace(1, 1000, 9)
    results = [found(draw(rng, x, (0.7,), (), 0.2, 0, 1, seeds)) for _ in range(DRAWS)]
    assert np.mean([len(result.pieces) == 1 for result in results]) >= 0.9
    assert np.mean([result.pieces[0].low <= 0.7 <= result.pieces[0].high for result in results]) >= 0.9


def test_scatter_that_seeds_do_not_show_counts_as_noise() -> None:
    """Seeds agree to 1 %, abscissae scatter by 10 %: no piece for each wiggle, and intervals as wide."""
    rng, x = np.random.default_rng(2), np.geomspace(1, 1000, 9)
    right = covered = 0
    for _ in range(DRAWS):
        scatter = 0.1 * rng.standard_normal(len(x))
        heights = law(x, (0.7,), ()) + scatter
        result = found(
            {n: np.exp(h + 0.01 * rng.standard_normal(4)) for n, h in zip(x, heights, strict=True)}
        )
        right += len(result.pieces) == 1
        covered += result.pieces[0].low <= 0.7 <= result.pieces[0].high
    assert right >= 0.9 * DRAWS
    assert covered >= 0.9 * DRAWS


@pytest.mark.parametrize("seeds", [1, 4])
@pytest.mark.parametrize(
    ("slopes", "breaks"), [((-1.0,), ()), ((0.0, -1.0), (0.37,)), ((1.0, 0.0, 2.0), (0.37, 8.1))]
)
def test_exact_laws_are_given_back(slopes: Sequence[float], breaks: Sequence[float], seeds: int) -> None:
    x = np.geomspace(0.01, 100, 12)
    for digits in (np.float64, np.float32):
        heights = np.exp(law(x, slopes, breaks)).astype(digits)
        result = found({n: np.full(seeds, h) for n, h in zip(x, heights, strict=True)})
        assert [piece.slope for piece in result.pieces] == pytest.approx(slopes, abs=1e-5)
        assert [end.place for end in result.breaks] == pytest.approx(breaks, rel=1e-5)
        assert all(piece.low <= s <= piece.high for piece, s in zip(result.pieces, slopes, strict=True))
        assert all(piece.high - piece.low < 1e-4 for piece in result.pieces)


def test_values_on_a_grid_need_its_step() -> None:
    """A law rounded to brackets of 0.7 is no staircase, and its interval holds the slope."""
    right = covered = 0
    for shift in np.linspace(0, 0.7, 20, endpoint=False):
        for slope in (0.0, -0.3, -0.5, -1.0):
            x = np.geomspace(0.01, 100, 10)
            heights = np.round((law(x, (slope,), ()) + shift) / 0.7) * 0.7
            samples = {n: np.full(3, np.exp(h)) for n, h in zip(x, heights, strict=True)}
            result = broken_line(samples, quantum=dict.fromkeys(x, 0.7))
            assert result is not None
            right += len(result.pieces) == 1
            covered += result.pieces[0].low <= slope <= result.pieces[0].high
    assert right >= 0.9 * 80
    assert covered >= 0.9 * 80


def test_a_break_under_a_grid_is_found() -> None:
    x = np.geomspace(0.01, 100, 10)
    heights = np.round(law(x, (0.0, -1.0), (1.0,)) / 0.4) * 0.4
    samples = {n: np.full(3, np.exp(h)) for n, h in zip(x, heights, strict=True)}
    result = broken_line(samples, quantum=dict.fromkeys(x, 0.4))
    assert result is not None
    assert len(result.pieces) == 2
    low, high = result.breaks[0].low, result.breaks[0].high
    assert low is not None
    assert high is not None
    assert low < 1.0 < high
    assert result.pieces[1].low <= -1.0 <= result.pieces[1].high


def test_one_break_is_that_of_a_naive_search() -> None:
    """Least squares at each of many breaks, one by one; the interval by its definition."""
    rng, x = np.random.default_rng(3), np.geomspace(1, 1000, 8)
    samples = {
        n: s[:2] if i == 4 else s for i, (n, s) in enumerate(draw(rng, x, (0, -1), (20,), 0.2, 0, 1).items())
    }
    result = found(samples, most=2, least=2)
    places = np.exp(np.linspace(np.log(x[1]), np.log(x[-2]), 4001))
    where = np.concatenate([np.full(len(s), np.log(n)) for n, s in samples.items()])
    values = np.log(np.concatenate(list(samples.values())))
    rss = []
    for place in np.log(places):
        design = np.stack([np.ones(len(where)), where, np.maximum(0, where - place)], axis=1)
        rss.append(((values - design @ np.linalg.lstsq(design, values, rcond=None)[0]) ** 2).sum())
    freedom = len(values) - 4
    best = int(np.argmin(rss))
    student = fdtri(1, freedom, 0.95)
    inside = places[np.array(rss) <= rss[best] * (1 + student / freedom)]
    assert result.breaks[0].place == pytest.approx(places[best], rel=0.02)
    assert result.breaks[0].low == pytest.approx(inside.min(), rel=0.02)
    assert result.breaks[0].high == pytest.approx(inside.max(), rel=0.02)


def test_one_piece_is_a_regression_on_all_samples() -> None:
    rng = np.random.default_rng(4)
    samples = draw(rng, np.geomspace(1, 100, 6), (0.5,), (), 0.2, 0, 1)
    where = np.repeat(np.log(list(samples)), 4)
    values = np.log(np.concatenate(list(samples.values())))
    slope, height = np.polyfit(where, values, 1)
    left = ((values - slope * where - height) ** 2).sum() / 22
    reach = 2.0739 * np.sqrt(left / ((where - where.mean()) ** 2).sum())  # Student's t, 22 degrees of freedom
    (piece,) = found(samples, most=1).pieces
    assert [piece.slope, piece.low, piece.high] == pytest.approx(
        [slope, slope - reach, slope + reach], rel=1e-3
    )


def test_pieces_say_where_they_are() -> None:
    x = np.geomspace(1, 1024, 11)
    result = found({n: np.full(2, np.exp(h)) for n, h in zip(x, law(x, (0, 1), (20.0,)), strict=True)})
    ends = [end for piece in result.pieces for end in (piece.first, piece.last)]
    assert ends == pytest.approx([1, 16, 32, 1024])
    assert len(result.scores) == 3
    assert np.argmin(result.scores) == 1
    assert result.height == pytest.approx(0, abs=1e-6)


def test_pieces_need_three_abscissae_each() -> None:
    steep = {float(n): np.array([1.0 if n < 3 else n, 1.01 if n < 3 else n]) for n in range(1, 6)}
    assert len(found(steep, most=3, least=3).pieces) == 1
    steep[6.0] = np.array([6.0, 6.01])
    assert len(found(steep, most=3, least=3).pieces) == 2
    assert broken_line({1.0: np.ones(4), 2.0: np.ones(4)}) is None
    assert broken_line({}) is None


def test_a_break_that_the_data_do_not_bound_says_so() -> None:
    samples = draw(np.random.default_rng(5), np.geomspace(1, 100, 6), (1.0,), (), 0.3)
    (end,) = found(samples, most=2, least=2).breaks
    assert end.low is None or end.high is None


def test_the_same_table_gives_the_same_interval() -> None:
    samples = draw(np.random.default_rng(6), np.geomspace(1, 100, 9), (1.0, 0.0), (9.0,), 0.1)
    again = {n: samples[n] for n in reversed(samples)}
    assert found(samples) == found(again)
