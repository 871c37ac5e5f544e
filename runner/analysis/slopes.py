"""A phase diagram of exponents: at each point the slope of a measure against a key that is no axis.

Where the slope against width passes through zero, what was lazy becomes rich: the boundary between regimes
of infinitely wide networks (Luo et al., arXiv 2007.07497).
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from runner.analysis.columns import facet_groups, groups, numeric_column, show_values
from runner.analysis.contour import zero_lines
from runner.analysis.exponents import counted_as, fit, known_metrics
from runner.analysis.phase import STEP, Axes, edges, is_log, places_of, with_whole
from runner.analysis.selection import require_no_other_varying
from runner.analysis.straight import LEAST_WIDTHS
from runner.errors import UserError, unknown

FORM = "slope:METRIC[@LAYER]:KEY"
_EXAMPLE = "slope:ntk_change:width or slope:movement_frobenius@input:width"
BOUNDS = ("slope_low", "slope_high")


@dataclass(frozen=True, slots=True)
class Slope:
    """Which slope a diagram shows.

    Attributes:
        metric: A numeric column; ``layers.NAME`` where another table has one of that name.
        layer: Name or role of a layer for a metric per layer, else None.
        key: The key that the slope is against.
    """

    metric: str
    layer: str | None
    key: str

    def __str__(self) -> str:
        """Return it in words."""
        of = f" of {self.layer}" if self.layer else ""
        return f"slope of {self.metric}{of} against {self.key}"


def read_slope(color: str) -> Slope | None:
    """Return the slope that a color asks for, None where it is a column.

    >>> read_slope("slope:movement_frobenius@input:width")
    Slope(metric='movement_frobenius', layer='input', key='width')

    Raises:
        UserError: If it begins as a slope and does not go on as one.
    """
    if color.partition(":")[0] != "slope":
        return None
    found = re.fullmatch(r"slope:([^:@]+)(?:@([^:@]+))?:([^:@]+)", color)
    if not found:
        raise UserError(f"--color must be a column or {FORM}, got {color}; for example {_EXAMPLE}")
    return Slope(*found.groups())


def slope_grid(
    cells: pd.DataFrame, trace: pd.DataFrame, layers: pd.DataFrame, axes: Axes, slope: Slope
) -> pd.DataFrame:
    """Return the slope at each point of the grid, as :func:`runner.analysis.exponents.fit` has it.

    Args:
        cells: The chosen rows of ``cells``; nothing may vary but the axes, facets, the slope's key and seed.
        trace: Rows of ``trace``; each cell's last step is read, up to the point where an axis is ``step``.
        layers: Rows of ``layers``, likewise.

    Returns:
        The facet keys, x and y under their own names, ``slope``, ``slope_low`` and ``slope_high`` (its 95 %
        interval; null with fewer than two seeds at a value), ``theory`` (null where it says nothing),
        ``widths`` (``values`` of another key), ``seeds`` (fewest at a value), ``cells`` (used) and
        ``left_out``. No slope at a point with fewer than three values of the key.

    Raises:
        UserError: If a metric, layer or key is unknown, the key is an axis or facet, another key varies, or
            no point has three values of the key.
    """
    *_, placed = places_of(cells, axes)
    for option, keys in {"--x": [axes.x], "--y": [axes.y], "--facet": axes.facets}.items():
        if slope.key in keys:
            raise UserError(
                f"--color {FORM} must run over a KEY that is no axis or facet, got {slope.key}, which is "
                f"{option}; give another {option}"
            )
    key = numeric_column(cells, slope.key, "the KEY of --color slope")
    require_no_other_varying(cells, (axes.x, axes.y, slope.key), axes.facets)
    _require_metric(slope, known_metrics(cells, trace, layers))
    points = axes.keys
    usable = placed & (key > 0).to_numpy()
    parts = groups(key[usable].to_frame(), [cells.loc[usable, name] for name in points])
    if max((part[slope.key].nunique() for _, part in parts), default=0) < LEAST_WIDTHS:
        raise UserError(
            f"{slope.key} must have at least {LEAST_WIDTHS} positive values at a point for a slope, got "
            f"{show_values(key)}; sweep more of them or choose other axes"
        )
    fits = pd.concat([
        fit(*tables, (slope.metric,), points, slope.key, sparse=True)
        for tables in _at_each_step(cells[placed], trace, layers, axes)
    ])  # fmt: skip
    fits = _of_layer(fits, slope, points).rename(columns={"low": BOUNDS[0], "high": BOUNDS[1]})
    measured = ["slope", *BOUNDS, "theory", counted_as(slope.key), "seeds", "cells", "left_out"]
    numbers = dict.fromkeys(("slope", *BOUNDS, "theory"), "float64")
    grid = fits.sort_values([*points], kind="stable", ignore_index=True)[[*points, *measured]]
    return with_whole(grid.astype(numbers), cells, axes)


def slope_zeros(grid: pd.DataFrame, axes: Axes) -> pd.DataFrame:
    """Return the lines on which the slope, its bounds and theory's slope are zero.

    They are interpolated between neighbouring points of a :func:`slope_grid`, in the coordinates that are
    drawn; where the grid is a single row or column they cross it from border to border.

    Returns:
        The facet keys, ``of`` (``slope``, ``slope_low``, ``slope_high`` or ``theory``), ``line`` (a number),
        and the points of each line in order: ``x``, ``y``.
    """
    rows = []
    for facet, part in facet_groups(grid, axes.facets):
        for of in ("slope", *BOUNDS, "theory"):
            table = part.pivot(index=axes.y, columns=axes.x, values=of)
            x, across = _drawn(table.columns.to_numpy(float), axes.x)
            y, up = _drawn(table.index.to_numpy(float), axes.y)
            values = table.to_numpy(float)
            # The only row or column there is reaches from border to border, as the lists of places now do.
            values = values.repeat(len(across) // values.shape[1], 1).repeat(len(up) // values.shape[0], 0)
            rows += [
                facet | {"of": of, "line": place, "x": float(x(one)), "y": float(y(other))}
                for place, line in enumerate(zero_lines(across, up, values))
                for one, other in line
            ]
    return pd.DataFrame(rows, columns=[*axes.facets, "of", "line", "x", "y"])


def _drawn(places: np.ndarray, key: str) -> tuple[Callable[[float], Any], np.ndarray]:
    """Return the places of an axis as they are drawn, and the way back; a single one as its two borders."""
    if len(places) == 1:
        places = edges(places, key)
    return (np.exp, np.log(places)) if is_log(places, key) else (float, places)


def _at_each_step(
    cells: pd.DataFrame, trace: pd.DataFrame, layers: pd.DataFrame, axes: Axes
) -> Iterator[tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]]:
    """Yield the tables, or, where the step is a key of the diagram, those of each step in turn."""
    if STEP not in axes.keys:
        yield cells, trace, layers
        return
    for (step,), part in groups(cells, [cells[STEP]]):
        yield part, trace[trace[STEP] <= step], layers[layers[STEP] <= step]


def _require_metric(slope: Slope, tables: Mapping[str, str]) -> None:
    """Refuse an unknown metric, and a metric per layer without a layer or one of the cell with one."""
    if slope.metric not in tables:
        raise unknown(
            "the METRIC of --color slope", slope.metric, [name for name in tables if "." not in name]
        )
    if (tables[slope.metric] == "layers") != (slope.layer is not None):
        rule = "name a layer or role" if slope.layer is None else "name no layer"
        per = "is per layer" if slope.layer is None else "is of the whole network"
        example = f"slope:{slope.metric}{'@input' if slope.layer is None else ''}:{slope.key}"
        raise UserError(f"--color {FORM} must {rule}, for {slope.metric} {per}; for example {example}")


def _of_layer(fits: pd.DataFrame, slope: Slope, points: Sequence[str]) -> pd.DataFrame:
    """Return the fits of the layer asked for, one per point."""
    if slope.layer is None:
        return fits
    names = {str(name) for column in ("role", "layer") for name in fits[column].dropna()}
    if slope.layer not in names:
        raise unknown("the LAYER of --color slope", slope.layer, names)
    part = fits[(fits["role"] == slope.layer) | (fits["layer"] == slope.layer)]
    if part.duplicated([*points]).any():
        found = show_values(part["layer"])
        raise UserError(
            f"the LAYER of --color slope must be a single one, got {slope.layer}, which is {found}"
        )
    return part
