"""Data collapse of a table's cells: the exponent, its interval over seeds, theory's, and the points.

:mod:`runner.analysis.boundary.overlap` holds how an exponent is found.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from runner.analysis.agreement import VERDICTS, beside_theory, one_curve, rivals_of
from runner.analysis.beside import is_loose
from runner.analysis.boundary.overlap import LEAST_POINTS, Points, search
from runner.analysis.boundary.properties import MOVEMENT, values_of
from runner.analysis.boundary.scaling import predicted
from runner.analysis.columns import facet_groups, numeric_column, records, show, show_values
from runner.analysis.quantiles import student
from runner.analysis.selection import require_no_other_varying
from runner.errors import UserError


def points_of(keys: np.ndarray, logs: np.ndarray) -> Points:
    """Return the points of the curves that have at least two.

    Args:
        keys: Value of the curve's key and abscissa of each point, both positive, sorted. ``[point, 2]``
        logs: Logarithms of the metric, NaN where there is none. ``[point, seed]``
    """
    there = ~np.isnan(logs).all(axis=1)
    (key, x), logs = keys[there].T, logs[there]
    curve, count = np.unique(key, return_inverse=True, return_counts=True)[1:]
    kept = count[curve] >= LEAST_POINTS
    sizes, curve = np.unique(key[kept], return_inverse=True)
    means = np.nanmean(logs[kept], axis=1) if kept.any() else np.empty(0)
    return Points(np.log(x[kept]), means, curve, np.log(sizes))


def collapse(
    cells: pd.DataFrame, of: str, x: str, key: str, keys: Sequence[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return for which exponent curves of a metric against ``x key^-exponent``, one per key, are one curve.

    A point is the geometric mean over seeds of cells that trained, where at least half of the seeds of its
    curve are. The interval is the wider of two: Student's t interval of the jackknife over whole seeds, and
    the one that the differences would give as independent noise, which is wider where seeds agree better with
    each other than the curves do, or than interpolation between their points can tell.

    Args:
        cells: The chosen rows of ``cells``; nothing may vary but x, key, the seed and ``keys``.
        of: The metric: a numeric column, or ``movement``.
        x: Numeric key that is rescaled.
        key: Numeric key of the curves.
        keys: Keys with one exponent per combination of values.

    Returns:
        One row per combination: ``keys``, ``exponent``, ``low``, ``high`` (95 %; null with one seed),
        ``theory``, ``residual`` (root mean square of the difference of logarithms of a point and of what the
        other curves say there), ``noise`` (what of it the seeds' spread explains), ``curves``, ``points``,
        ``compared`` (points that other curves reach), ``seeds``, ``left_out`` (cells that diverged, failed or
        have no positive value), ``reason`` (why there is no exponent or no interval), ``one_curve`` and
        ``one_because`` (whether they are one, :func:`runner.analysis.agreement.one_curve`), ``verdict`` and
        ``because`` (the exponent beside theory's); and one row per point:
        ``keys``, key, x, ``value``, ``seeds`` and ``collapsed`` (the rescaled x; null without an exponent).

    Raises:
        UserError: If there are not two values of both keys, another key varies, or nothing was measured.

    References:
        Efron & Stein, Ann. Stat. 9, 586 (1981): the jackknife's variance.
    """
    require_no_other_varying(cells, (x, key), keys)
    abscissa, size = (numeric_column(cells, name, "--collapse") for name in (x, key))
    for name, numbers in ((x, abscissa), (key, size)):
        if numbers[numbers > 0].nunique() < 2:
            raise UserError(
                f"--collapse must have at least two positive values of {name}, got "
                f"{show_values(numbers.dropna())}; sweep more values of it"
            )
    value = values_of(cells, of)
    known = (cells["status"].astype(object) == "ok") & (value > 0) & np.isfinite(value)
    known &= (abscissa > 0) & (size > 0)
    if not known.any():
        raise UserError(f"--of must be positive in some cell that trained, got {of}; choose another metric")
    rows, points = [], []
    for values, part in facet_groups(cells, keys):
        there = part.index[known[part.index]]
        flat = {"key": size[there], "x": abscissa[there], "seed": part["seed"][there]}
        logs = np.log(value[there]).groupby([*flat.values()]).first().unstack()
        logs = _with_half(logs)
        found = of_seeds(logs)
        cell = records(part.head(1))[0]
        theory = predicted(cell, "lazy_rich", x, key) if of in _MOVING else None
        row = {**dict.fromkeys(_COLUMNS), **found, "theory": theory, "left_out": len(part) - len(there)}
        rows.append({**values, **row, **_judged(row, cell, x, key)})
        points.append(_table(logs, x, key, found.get("exponent", np.nan)).assign(**values))
    table = pd.DataFrame(rows, columns=[*keys, *_COLUMNS])
    table = table.astype(dict.fromkeys(_COLUMNS[:6], float) | dict.fromkeys(_COLUMNS[11:], object))
    found_points = pd.concat(points, ignore_index=True)
    return table, found_points[[*keys, *found_points.columns.drop(list(keys))]]


def _judged(row: dict[str, Any], cell: dict[str, Any], x: str, key: str) -> dict[str, Any]:
    """Return whether curves are one, and whether their exponent is theory's."""
    one = one_curve(row, is_loose(row))
    rivals = rivals_of(row["theory"], cell, lambda other: predicted(other, "lazy_rich", x, key))
    doubt = "the curves do not collapse" if one.verdict == "no" else None
    beside = beside_theory(row | {"slope": row["exponent"]}, rivals, doubt)
    return {"one_curve": one.verdict, "one_because": one.because, **beside._asdict()}


def _table(logs: pd.DataFrame, x: str, key: str, beta: float) -> pd.DataFrame:
    """Return the points of one combination, in units of the keys."""
    sizes, places = (logs.index.get_level_values(level).to_numpy(float) for level in (0, 1))
    return pd.DataFrame(
        {
            key: sizes.astype(int) if (sizes % 1 == 0).all() else sizes,
            x: places,
            "value": np.exp(logs.mean(axis=1).to_numpy()),
            "seeds": logs.notna().sum(axis=1).to_numpy(),
            "collapsed": places * sizes**-beta,
        }
    )


_COLUMNS = ("exponent", "low", "high", "theory", "residual", "noise", "curves", "points", "compared", "seeds",
    "left_out", "reason", "one_curve", "one_because", *VERDICTS)  # fmt: skip
_MOVING = (MOVEMENT, "ntk_change", "kernel_distance", "feature_movement")
"""Metrics that say how far features have formed: functions of the richness over that of the crossover."""


def _with_half(logs: pd.DataFrame) -> pd.DataFrame:
    """Return the points at which at least half of the seeds of their curve are."""
    there = logs.notna()
    of_curve = there.groupby(level=0).any().sum(axis=1)
    return logs[there.sum(axis=1) >= of_curve.reindex(logs.index.get_level_values(0)).to_numpy() / 2]


def of_seeds(logs: pd.DataFrame) -> dict[str, Any]:
    """Return the columns of a row of :func:`collapse` that follow from the logarithms of the metric.

    Args:
        logs: A column per seed, NaN where there is none; the index has the key of the curves and the
            abscissa, both positive, sorted.
    """
    keys = np.array([*logs.index], float).reshape(-1, 2)
    values = logs.to_numpy(float)
    points, seeds = points_of(keys, values), logs.shape[1]
    row: dict[str, Any] = {"curves": len(points.size), "points": len(points.x), "compared": 0, "seeds": seeds}
    found = search(points)
    if found.beta is None:
        return row | {"reason": found.reason}
    half = np.nan
    if seeds > 1:
        without = [search(points_of(keys, np.delete(values, place, 1))) for place in range(seeds)]
        for seed, one in zip(logs, without, strict=True):
            if one.beta is None:
                return row | {"reason": f"without seed {show(seed)}: {one.reason}"}
        betas = np.array([one.beta for one in without], float)
        error = np.sqrt((seeds - 1) / seeds * ((betas - betas.mean()) ** 2).sum())
        half = max(found.half, student(seeds - 1, 0.975) * error)
    spread = logs.var(axis=1, ddof=1).mean() / logs.notna().sum(axis=1).mean()
    return row | {
        "exponent": found.beta, "low": found.beta - half, "high": found.beta + half,
        "residual": found.residual, "noise": float(np.sqrt(spread * found.factor)),
        "compared": found.compared, "reason": None if seeds > 1 else "one seed: no interval",
    }  # fmt: skip
