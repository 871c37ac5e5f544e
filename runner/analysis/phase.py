"""The phase diagram as a table: one row per point of the grid, medians and majorities over seeds."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from runner.analysis.columns import (
    column,
    facet_groups,
    floats,
    group_places,
    is_exponent,
    numeric_column,
    plain,
)
from runner.analysis.critical import critical_lr, critical_sharpness
from runner.analysis.regime import JUDGED, REGIMES
from runner.analysis.selection import require_no_other_varying
from runner.errors import UserError

STEP = "step"
"""The key of the measured steps, which is no column of ``cells``: see :mod:`runner.analysis.steps`."""


@dataclass(frozen=True, slots=True)
class Axes:
    """What a phase diagram shows.

    Attributes:
        x: Numeric key across, or ``step``; ``y`` is the one upwards.
        facets: Keys with one diagram per combination of values.
        color: ``regime``, a numeric column whose median over seeds is shown, or a slope as
            :func:`runner.analysis.slopes.read_slope` reads it.
    """

    x: str = "width"
    y: str = "lr"
    facets: tuple[str, ...] = ()
    color: str = "regime"

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys whose values make a point: the facets, x and y."""
        return (*self.facets, self.x, self.y)


def phase_grid(cells: pd.DataFrame, axes: Axes, measures: Sequence[str] = ()) -> pd.DataFrame:
    """Return one row per point of the grid.

    Args:
        axes: What is shown; nothing else may vary but the seed.
        measures: Further numeric columns whose medians over seeds are returned under their own names.

    Returns:
        The facet keys, x and y under their own names, then ``regime`` (majority over seeds, null if none has
        one), ``share`` (of the seeds that agree), ``second`` (another regime of as many seeds, on a tie),
        ``seeds``, ``failed``, ``value`` (median of a numeric color), ``critical`` (median critical lr, in the
        unit of y; null if y is no lr), ``critical_sharpness`` (the same in units of 1 / lambda_max),
        ``catapult`` and ``controlled_divergence`` (shares, null where not known), and the measures.

    Raises:
        UserError: If a key is unknown, an axis or the color is not numeric, or another key varies.
    """
    x, y, placed = places_of(cells, axes)
    color = _color(cells, axes.color)
    keys = [column(cells, facet, "--facet")[placed] for facet in axes.facets]
    require_no_other_varying(cells, (axes.x, axes.y), axes.facets)
    votes = {
        "regime": np.array([plain(value) for value in cells["regime"]], dtype=object)[placed],
        "seed": cells["seed"].to_numpy()[placed],
        "failed": (cells["status"] == "failed").to_numpy()[placed],
        "value": color.to_numpy()[placed],
        "critical": critical_rates(cells, axes.y)[placed],
        "critical_sharpness": critical_sharpness(cells).to_numpy()[placed],
        **{flag: _flag(cells, flag)[placed] for flag in JUDGED[1:]},
    }
    wanted = {name: numeric_column(cells, name, "--color").to_numpy()[placed] for name in measures}
    rows = [
        dict(zip((*axes.facets, axes.x, axes.y), values, strict=True))
        | _point({name: column[places] for name, column in votes.items()})
        | {name: _known(np.median, column[places]) for name, column in wanted.items()}
        for values, places in group_places([*keys, x[placed], y[placed]], int(placed.sum()))
    ]
    return with_whole(pd.DataFrame(rows), cells, axes)


def places_of(cells: pd.DataFrame, axes: Axes) -> tuple[pd.Series, pd.Series, np.ndarray]:
    """Return the places of the cells on the two axes, and which cells have one on both.

    Raises:
        UserError: If a key is unknown or not numeric, two of them are the same, or no cell has a place.
    """
    if axes.x == axes.y:
        raise UserError(f"--y must differ from --x, got {axes.y} for both; for example --x width --y lr")
    taken = {axes.x, axes.y} & set(axes.facets)
    if taken:
        raise UserError(f"--facet must not repeat an axis, got {taken.pop()}; drop it from --facet")
    x, y = numeric_column(cells, axes.x, "--x"), numeric_column(cells, axes.y, "--y")
    placed = (x.notna() & y.notna()).to_numpy()
    if not placed.any():
        raise UserError(
            f"--x and --y must have values, got only null for {axes.x} or {axes.y}; choose other axes"
        )
    return x, y, placed


def with_whole(grid: pd.DataFrame, cells: pd.DataFrame, axes: Axes) -> pd.DataFrame:
    """Return a grid whose axes are whole numbers where those of the cells are."""
    whole = [key for key in (axes.x, axes.y) if key in cells and pd.api.types.is_integer_dtype(cells[key])]
    return grid.astype(dict.fromkeys(whole, "int64"))


def boundary(grid: pd.DataFrame, axes: Axes) -> pd.DataFrame:
    """Return the line between regimes in a :func:`phase_grid`, as segments between neighbouring points.

    Returns:
        The facet keys, then ``x``, ``y``, ``x2``, ``y2`` in data coordinates; midpoints are geometric
        where an axis is logarithmic.
    """
    segments: list[dict[str, Any]] = []
    for facet, part in facet_groups(grid, axes.facets):
        if is_scattered(part, axes):
            segments += [facet | segment for segment in _within_columns(part, axes)]
            continue
        table = part.pivot(index=axes.y, columns=axes.x, values="regime")
        regimes = [[plain(value) for value in row] for row in table.to_numpy(dtype=object)]
        x_edges, y_edges = (
            edges(places.to_numpy(float), key)
            for key, places in ((axes.x, table.columns), (axes.y, table.index))
        )
        for i, row in enumerate(regimes):
            for j, here in enumerate(row):
                right = row[j + 1] if j + 1 < len(row) else None
                above = regimes[i + 1][j] if i + 1 < len(regimes) else None
                end = {"x2": x_edges[j + 1], "y2": y_edges[i + 1]}
                if here and right and here != right:
                    segments.append(facet | {"x": x_edges[j + 1], "y": y_edges[i]} | end)
                if here and above and here != above:
                    segments.append(facet | {"x": x_edges[j], "y": y_edges[i + 1]} | end)
    return pd.DataFrame(segments, columns=[*axes.facets, "x", "y", "x2", "y2"])


def is_scattered(part: pd.DataFrame, axes: Axes) -> bool:
    """Return whether columns of a panel have points of their own, as those of a refined grid have."""
    columns = part[axes.x].nunique()
    # An unfinished grid lacks some points; columns of their own share few values.
    shared = part.groupby(axes.y)[axes.x].nunique() >= columns / 2
    return bool(columns > 2 and shared.mean() < 0.75)


def _within_columns(part: pd.DataFrame, axes: Axes) -> Iterator[dict[str, float]]:
    """Yield the borders between regimes inside each column of a panel."""
    places = edges(np.unique(part[axes.x].to_numpy(float)), axes.x)
    for place, (_, points) in enumerate(part.sort_values(axes.y).groupby(axes.x)):
        borders = edges(points[axes.y].to_numpy(float), axes.y)
        regimes = [plain(value) for value in points["regime"]]
        for border, below, above in zip(borders[1:], regimes, regimes[1:], strict=False):
            if below and above and below != above:
                yield {"x": places[place], "y": border, "x2": places[place + 1], "y2": border}


def is_log(values: Sequence[float] | np.ndarray, key: str) -> bool:
    """Return whether the axis of a key with these values is drawn on a log scale: an exponent is a log."""
    return not is_exponent(key) and bool((np.asarray(values, float) > 0).all())


def edges(values: np.ndarray, key: str) -> np.ndarray:
    """Return the borders between sorted values of a key, one more than there are values.

    Inner borders are midpoints, geometric where the axis is logarithmic; the outer ones mirror them.
    """
    log = is_log(values, key)
    points = np.log(values) if log else np.asarray(values, float)
    if len(points) == 1:
        half = np.log(2) / 2 if log else 0.5
        borders = np.array([points[0] - half, points[0] + half])
    else:
        middle = (points[1:] + points[:-1]) / 2
        borders = np.concatenate([[2 * points[0] - middle[0]], middle, [2 * points[-1] - middle[-1]]])
    return np.exp(borders) if log else borders


def _point(votes: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return what the seeds of one point of the grid say together."""
    regimes = votes["regime"].tolist()
    # On a tie the tamer regime loses: half the seeds diverging is worth seeing.
    regime = max(REGIMES, key=lambda name: (regimes.count(name), REGIMES.index(name)))
    count = regimes.count(regime)
    return {
        "regime": regime if count else None,
        "share": count / len(regimes),
        "second": next((one for one in REGIMES if one != regime and 0 < count == regimes.count(one)), None),
        "seeds": len(set(votes["seed"].tolist())),
        "failed": int(votes["failed"].sum()),
        "value": _known(np.median, votes["value"]),
        "critical": _known(np.median, votes["critical"]),
        "critical_sharpness": _known(np.median, votes["critical_sharpness"]),
        **{flag: _known(np.mean, votes[flag]) for flag in JUDGED[1:]},
    }


def _flag(cells: pd.DataFrame, name: str) -> np.ndarray:
    """Return a flag as numbers; NaN where it is null, as in stores from before there was one."""
    return floats(cells[name]).to_numpy() if name in cells else np.full(len(cells), np.nan)


def critical_rates(cells: pd.DataFrame, y: str) -> np.ndarray:
    """Return each cell's critical lr in the unit of y; NaN where y is no lr or 1/lambda_max no unit of it."""
    if y not in ("lr", "lr_absolute", "lr_sharpness"):
        return np.full(len(cells), np.nan)
    relative = (cells["lr_unit"] == "sharpness") if y == "lr" else y == "lr_sharpness"
    return np.where(relative, critical_sharpness(cells), critical_lr(cells))


def _color(cells: pd.DataFrame, color: str) -> pd.Series:
    """Return the color as numbers; all NaN for the regime, which has its own columns."""
    if color == "regime":
        return pd.Series(np.nan, index=cells.index)
    return numeric_column(cells, color, "--color").replace([np.inf, -np.inf], np.nan)


def _known(summary: Callable[[np.ndarray], Any], values: np.ndarray) -> float:
    """Return the summary of what is not null, NaN if nothing is."""
    known = values[np.isfinite(values)]
    return float(summary(known)) if len(known) else float("nan")
