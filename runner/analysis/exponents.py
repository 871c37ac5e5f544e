"""Exponents against width: how fast a measure falls or grows as networks widen.

The slope is that of a straight line through (log width, mean over seeds of log metric); its interval is a
percentile bootstrap that resamples the seeds of each width.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from runner.analysis.columns import facet_groups, floats, groups, locate, metric_tables, records, show_values
from runner.analysis.selection import facet_label, require_no_other_varying
from runner.analysis.theory import predicted_slope
from runner.errors import UserError
from runner.grid.cell import FIELDS
from runner.schema import TABLES

DEFAULT_METRICS = (
    "lambda_max_init",
    "ntk_change",
    "kernel_distance",
    "param_movement",
    "feature_movement",
    "movement_frobenius",
    "movement_spectral",
)
RESAMPLES = 2000
LEAST_WIDTHS = 3
_NOT_METRICS = {*FIELDS, "step", "layer_index"}
_LAYER_KEYS = ("layer_index", "layer", "role")


@dataclass(frozen=True, slots=True)
class Line:
    """A fitted slope with its bootstrap interval; None where the data do not carry one."""

    slope: float | None
    low: float | None
    high: float | None


def known_metrics(cells: pd.DataFrame, trace: pd.DataFrame, layers: pd.DataFrame) -> dict[str, str]:
    """Return every metric that can be fitted and its table: cells before layers before trace."""
    keys = {
        name: {column.name for column in TABLES[name] if not column.nullable} | _NOT_METRICS
        for name in TABLES
    }
    return metric_tables({
        name: [metric for metric in frame.select_dtypes("number").columns if metric not in keys[name]]
        for name, frame in {"cells": cells, "layers": layers, "trace": trace}.items()
    })  # fmt: skip


def fit(
    cells: pd.DataFrame,
    trace: pd.DataFrame,
    layers: pd.DataFrame,
    metrics: Sequence[str] = DEFAULT_METRICS,
    facets: Sequence[str] = ("parameterization",),
) -> pd.DataFrame:
    """Fit log metric against log width.

    Args:
        cells: The chosen rows of ``cells``; nothing may vary but width, seed and the facets.
        trace: Rows of ``trace``; each cell's last step is read.
        layers: Rows of ``layers``; each cell's last step is read.
        metrics: Numeric columns; ``layers.feature_movement`` where another table has one of that name.
        facets: Keys with one fit per combination of values.

    Returns:
        One row per facet, metric and (for a metric per layer) layer: the facet keys, ``metric``, ``layer``,
        ``role``, ``slope``, ``low``, ``high`` (95 %; null with fewer than two seeds at a width), ``theory``
        (null where it says nothing), ``widths``, ``seeds`` (fewest at a width), ``cells`` (used) and
        ``left_out`` (diverged, failed, zero or null).

    Raises:
        UserError: If a metric or key is unknown, another key varies, or fewer than three widths exist.
    """
    rows = []
    for found in _samples(cells, trace, layers, metrics, facets):
        rows.append(
            {**found.keys, **asdict(loglog_slope(found.values)), "theory": found.theory}
            | {"widths": len(found.values), "seeds": min(found.seeds, default=0)}
            | {"cells": sum(found.seeds), "left_out": found.left_out}
        )
    measured = ["slope", "low", "high", "theory", "widths", "seeds", "cells", "left_out"]
    return pd.DataFrame(rows, columns=[*facets, "metric", "layer", "role", *measured])


def fit_points(
    cells: pd.DataFrame,
    trace: pd.DataFrame,
    layers: pd.DataFrame,
    metrics: Sequence[str] = DEFAULT_METRICS,
    facets: Sequence[str] = ("parameterization",),
) -> pd.DataFrame:
    """Return the points through which :func:`fit`, given the same, draws its lines: one row per width.

    Returns:
        The facet keys, ``metric``, ``layer``, ``role``, ``width``, ``value`` (geometric mean over seeds),
        ``low`` and ``high`` (smallest and largest seed) and ``seeds``.
    """
    rows = [
        found.keys
        | {"width": width, "value": float(np.exp(np.log(values).mean()))}
        | {"low": float(values.min()), "high": float(values.max()), "seeds": len(values)}
        for found in _samples(cells, trace, layers, metrics, facets)
        for width, values in sorted(found.values.items())
    ]
    columns = ["metric", "layer", "role", "width", "value", "low", "high", "seeds"]
    return pd.DataFrame(rows, columns=[*facets, *columns])


def loglog_slope(samples: Mapping[int, np.ndarray], resamples: int = RESAMPLES) -> Line:
    """Return the least-squares slope of log sample against log width with a 95 % bootstrap interval.

    Args:
        samples: Positive values of the seeds, by width.
        resamples: How often the bootstrap draws.

    Returns:
        The slope of the seeds' geometric means. No slope with fewer than three widths; no interval if a width
        has a single seed, whose spread is unknown.
    """
    if len(samples) < LEAST_WIDTHS:
        return Line(None, None, None)
    widths = sorted(samples)
    x = np.log(np.array(widths, float))
    weights = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
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


@dataclass(frozen=True, slots=True)
class _Samples:
    """The usable values of one metric in one facet (and layer), by width."""

    keys: dict[str, Any]
    values: dict[int, np.ndarray]
    theory: float | None
    left_out: int

    @property
    def seeds(self) -> list[int]:
        """How many values there are at each width."""
        return [len(values) for values in self.values.values()]


def by_width(width: np.ndarray, value: np.ndarray, usable: np.ndarray) -> dict[int, np.ndarray]:
    """Return the usable values of the cells at each width."""
    return {int(n): value[usable & (width == n)] for n in np.unique(width[usable])}


def _samples(
    cells: pd.DataFrame,
    trace: pd.DataFrame,
    layers: pd.DataFrame,
    metrics: Sequence[str],
    facets: Sequence[str],
) -> Iterator[_Samples]:
    """Yield what is to be fitted; raises as :func:`fit` says."""
    if "width" in facets:
        raise UserError("--facet must not be width, which the fit runs over; drop it from --facet")
    places = locate(metrics, known_metrics(cells, trace, layers))
    require_no_other_varying(cells, ("width",), facets)
    last = {"cells": cells, "layers": _last_step(layers, cells), "trace": _last_step(trace, cells)}
    for facet, part in facet_groups(cells, facets):
        _require_widths(part, facet)
        for metric, table, name in places:
            for keys, found in _by_layer(name, part, last[table]):
                # Theory's metric of that name must be of the same kind, per layer or of the whole cell.
                predictable = (keys["layer"] is not None) == (
                    name.startswith("movement_") or name == "update_size"
                )
                theory = (
                    predicted_slope(name, keys["role"], records(part.head(1))[0]) if predictable else None
                )
                used = sum(len(values) for values in found.values())
                yield _Samples(facet | {"metric": metric} | keys, found, theory, len(part) - used)


def _by_layer(
    metric: str, cells: pd.DataFrame, table: pd.DataFrame
) -> Iterator[tuple[dict[str, Any], dict[int, np.ndarray]]]:
    """Yield the usable values by width, for each layer or once for the whole cell."""
    config = cells[["cell_id", "status", "width", "seed"]]
    parts: Iterator[tuple[tuple[Any, ...], pd.DataFrame]] = iter([((None, None, None), table)])
    if "layer" in table:
        table = table[table["cell_id"].isin(config["cell_id"])]
        parts = groups(table, [table[key] for key in _LAYER_KEYS])
    for (_, layer, role), part in parts:
        joined = config.merge(part[["cell_id", metric]], on="cell_id", how="left")
        value = floats(joined[metric]).to_numpy()
        usable = (joined["status"] == "ok").to_numpy() & np.isfinite(value) & (value > 0)
        yield {"layer": layer, "role": role}, by_width(joined["width"].to_numpy(), value, usable)


def _last_step(table: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of each chosen cell at its last measured step."""
    table = table[table["cell_id"].isin(cells["cell_id"])]
    return table[table["step"] == table.groupby("cell_id", observed=True)["step"].transform("max")]


def _require_widths(part: pd.DataFrame, facet: dict[str, Any]) -> None:
    """Refuse a facet with too few widths for a line."""
    if part["width"].nunique() < LEAST_WIDTHS:
        where = f" in {facet_label(list(facet), list(facet.values()))}" if facet else ""
        raise UserError(
            f"width must have at least {LEAST_WIDTHS} values for a fit, got {show_values(part['width'])}"
            f"{where}; sweep more widths or choose cells with --where"
        )
