"""Where a property changes along a key, for each combination of other keys, with an interval over seeds."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from runner.analysis.boundary.crossing import Crossings, crossings
from runner.analysis.boundary.properties import Property
from runner.analysis.columns import column, group_places, groups, numeric_column, show
from runner.analysis.phase import is_log
from runner.analysis.pooled import Spread, half_interval, pooled
from runner.analysis.selection import require_no_other_varying
from runner.errors import UserError

CHANGES = ("begins", "ends")
LEAST_VALUES = 2
_FIELDS = ("place", "last", "first", "ragged", "interpolated", "error")
OF_A_PLACE = ("change", *_FIELDS, "where", "least", "most", "score")
"""Columns of the places of seeds that say where they are, not whose they are."""


def seed_places(cells: pd.DataFrame, what: Property, along: str, keys: Sequence[str]) -> pd.DataFrame:
    """Return where a property begins and ends along a key, in the cells of each seed.

    Args:
        cells: The chosen rows of ``cells``; nothing may vary but the key, the seed and ``keys``.
        what: The property, of these cells.
        along: Numeric key.
        keys: Keys with one boundary per combination of values.

    Returns:
        One row per combination, seed and end: ``keys``, ``seed``, ``change`` (``begins`` or ``ends``),
        ``place``, ``last`` and ``first`` (the bracket around it, in units of the key), ``ragged``,
        ``interpolated``, ``error`` (how far from the place it may be, in natural logarithms where the key is
        positive); null where there is no boundary, and ``where`` the property is then: ``nowhere``,
        ``everywhere``, ``unknown`` or ``ragged`` (cells contradict each other); ``least`` and ``most``, the
        range of the key in which cells are known, and ``score``, the one that comes nearest to the level.

    Raises:
        UserError: If the key has no numbers or one value, or another key varies.
    """
    value = numeric_column(cells, along, "--along")
    if along in keys:
        raise UserError(f"--along must not be a facet, got {along}; drop it from --facet")
    require_no_other_varying(cells, (along,), keys)
    distinct = value.dropna().unique()
    if len(distinct) < LEAST_VALUES:
        raise UserError(
            f"--along must be a key with several values, got {along} with "
            f"{', '.join(map(show, distinct)) or 'none'}; sweep more values of it"
        )
    log = is_log(distinct, along)
    rows = []
    every, scores = value.to_numpy(), what.score.reindex(cells.index).to_numpy(float)
    if what.smooth:  # between a cell that trained and one that diverged a level was not seen to be passed
        scores = np.where(np.isfinite(scores), scores, np.nan)
    apart = [column(cells, key, "--facet") for key in (*keys, "seed")]
    for found, group in group_places(apart, len(cells)):
        values = dict(zip((*keys, "seed"), found, strict=True))
        x, score = every[group], scores[group]
        order = np.argsort(x, kind="stable")
        order = order[~np.isnan(x[order])]
        at = crossings(x[order], score[order], what.level, lasts=what.lasts, smooth=what.smooth, log=log)
        known = ~np.isnan(score[order])
        reach = _reach(x[order][known], score[order][known], what.level)
        rows += [{**values, **row, **reach} for row in _rows(at, bool(known.any()))]
    return pd.DataFrame(rows, columns=[*keys, "seed", *OF_A_PLACE])


def _rows(at: Crossings, known: bool) -> list[dict[str, Any]]:
    """Return the ends that there are, or one row that says where the property is."""
    ends = {name: getattr(at, name) for name in CHANGES if getattr(at, name)}
    if ends:
        return [
            {"change": name, "where": None, **{field: getattr(end, field) for field in _FIELDS}}
            for name, end in ends.items()
        ]
    where = {True: "everywhere", False: "nowhere", None: "ragged"}[at.everywhere] if known else "unknown"
    return [{"change": None, "where": where, "ragged": where == "ragged", "interpolated": False}]


def _reach(x: np.ndarray, score: np.ndarray, level: float) -> dict[str, float]:
    """Return the range of the key, and the score nearest to the level."""
    if not len(x):
        return {}
    return {"least": x.min(), "most": x.max(), "score": score[np.abs(score - level).argmin()]}


def places(
    seeds: pd.DataFrame, keys: Sequence[str], log: bool, smooth: bool = False, alike: Sequence[str] = ()
) -> pd.DataFrame:
    """Return the place of each boundary over its seeds.

    The place is the mean of the seeds' places, geometric if ``log``. Its interval joins, as independent
    errors, Student's t interval of that mean and what the grid leaves open of each seed's place, half of its
    bracket or the error of its interpolation: seeds may agree better than a grid can tell. The spread of
    seeds is pooled over combinations that differ in the keys ``alike`` alone: two seeds by themselves say
    little of it. Where some seeds have no boundary inside the grid, which is to say beyond it, the place is
    the median over all seeds, if that is inside, and without an interval.

    Args:
        seeds: As :func:`seed_places` returns them.
        keys: The keys given to it.
        log: Whether the key is positive.
        smooth: Whether the property's score says how near it came.
        alike: Keys on which the spread of seeds is taken not to depend.

    Returns:
        One row per combination and end: ``keys``, ``change``, ``place``, ``low``, ``high`` (95 %; null with
        one seed), ``last``, ``first`` (what brackets the places of all seeds), ``seeds`` (that have the
        boundary), ``ragged`` (of these), ``absent`` (seeds without) and ``reason`` (why there is no place or
        no interval).
    """
    values = {key: column(seeds, key, "--facet") for key in keys}
    apart = [values[key] for key in keys if key not in alike]
    of_all = _Rows.of(seeds, log)
    rows = []
    for _, family in group_places(apart, len(seeds)):
        combinations = [
            (dict(zip(keys, found, strict=True)), of_all.some(np.array(family)[group]))
            for found, group in group_places([one.iloc[family] for one in values.values()], len(family))
        ]
        spread = {change: _pooled([part for _, part in combinations], change) for change in CHANGES}
        for found, part in combinations:
            changes = [name for name in CHANGES if (part.change == name).any()]
            if not changes:
                reason = why_absent(seeds.iloc[part.places], smooth)
                rows.append({**found, "seeds": 0, "absent": len(part.places), "reason": reason})
            for change in changes:
                law = _over_seeds(seeds, part, change, spread[change], log, smooth)
                rows.append({**found, "change": change, **law})
    columns = ["change", "place", "low", "high", "last", "first", "seeds", "ragged", "absent", "reason"]
    table = pd.DataFrame(rows, columns=[*keys, *columns])
    return table.astype({"change": object, "reason": object, **dict.fromkeys(columns[1:6], float)}).assign(
        ragged=table["ragged"].fillna(0).astype(int)
    )


class _Rows(NamedTuple):
    """Rows of :func:`seed_places` as arrays: pandas takes as long for four rows as for thousands.

    Attributes:
        places: Which rows they are.
        place: Of the boundary, on the scale on which places are averaged.
        error: How far it may be off there.
    """

    places: np.ndarray
    seed: np.ndarray
    change: np.ndarray
    place: np.ndarray
    error: np.ndarray
    last: np.ndarray
    first: np.ndarray
    ragged: np.ndarray
    where: np.ndarray

    @classmethod
    def of(cls, seeds: pd.DataFrame, log: bool) -> "_Rows":
        last, first, error = (seeds[name].to_numpy(float) for name in ("last", "first", "error"))
        change, where = (seeds[name].to_numpy(object) for name in ("change", "where"))
        place, ragged = scaled(seeds["place"], log), seeds["ragged"].to_numpy(bool)
        seed = seeds["seed"].to_numpy()
        return cls(np.arange(len(seeds)), seed, change, place, error, last, first, ragged, where)

    def some(self, rows: np.ndarray) -> "_Rows":
        return _Rows(*(values[rows] for values in self))


def _pooled(combinations: Sequence[_Rows], change: str) -> Spread:
    """Return the spread of seeds around the mean of their combination."""
    return pooled(part.place[part.change == change] for part in combinations)


def scaled(values: pd.Series | np.ndarray, log: bool) -> np.ndarray:
    """Return the values on the scale on which places are averaged."""
    numbers = np.asarray(values, float)
    return np.log(numbers) if log else numbers


def why_absent(seeds: pd.DataFrame, smooth: bool) -> str:
    """Return why seeds have no boundary, in words.

    Args:
        seeds: Rows of :func:`seed_places` of such seeds.
        smooth: Whether the property's score says how near it came.
    """
    words = {"ragged": "cells contradict each other", "unknown": "not measured", None: "only its other end"}
    found = []
    for where, part in ((values[0], rows) for values, rows in groups(seeds, [seeds["where"]])):
        word = words.get(where, where)
        if where in ("nowhere", "everywhere"):
            word += f" from {show(part['least'].min())} to {show(part['most'].max())}"
            if smooth:
                best = part["score"].max() if where == "nowhere" else part["score"].min()
                word += f", {'at most' if where == 'nowhere' else 'at least'} {best:.3g}"
        found.append(word)
    return "; ".join(found)


def _over_seeds(
    seeds: pd.DataFrame, part: _Rows, change: str, spread: Spread, log: bool, smooth: bool
) -> dict[str, Any]:
    """Return what the seeds of one combination say of one end together."""
    there = part.some(part.change == change)
    count = len(set(part.seed.tolist()))
    absent = count - len(there.seed)
    middle, ends = float(there.place.mean()), (np.nan, np.nan)
    if len(there.seed) > 1:
        half = half_interval(spread, len(there.seed), float(there.error.mean()))
        ends = middle - half, middle + half
    reason = "one seed: no interval" if len(there.seed) == 1 else None
    if absent:
        beyond = part.some(~np.isin(part.seed, there.seed))
        # Nowhere: it begins beyond the grid's end; everywhere: it began before the grid.
        late = int((beyond.where == "nowhere").sum())
        after = late if change == "begins" else absent - late
        inside = np.sort(there.place)
        ranked = np.concatenate([np.full(absent - after, -np.inf), inside, np.full(after, np.inf)])
        median = float(np.mean([ranked[(count - 1) // 2], ranked[count // 2]]))
        middle, ends = median if np.isfinite(median) else np.nan, (np.nan, np.nan)
        reason = f"{absent} of {count} seeds: {why_absent(seeds.iloc[beyond.places], smooth)}"
    back = np.exp if log else float
    return {
        "place": float(back(middle)), "low": float(back(ends[0])), "high": float(back(ends[1])),
        "last": float(there.last.min()), "first": float(there.first.max()), "seeds": len(there.seed),
        "ragged": int(there.ragged.sum()), "absent": absent, "reason": reason,
    }  # fmt: skip
