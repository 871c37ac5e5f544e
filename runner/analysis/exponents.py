"""Exponents against width, or another key: how fast a measure falls or grows as networks widen.

The slope is that of a straight line through (log key, mean over seeds of log metric); its interval is a
percentile bootstrap that resamples the seeds of each value of the key. Where the line may break, pieces and
intervals are those of :mod:`runner.analysis.broken`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from runner.analysis.agreement import VERDICTS, Verdict, beside_theory, rivals_of
from runner.analysis.beside import NOT_STRAIGHT, is_bent, theory_speaks, why_off
from runner.analysis.broken import MOST_PIECES, broken_line
from runner.analysis.columns import (
    facet_groups,
    floats,
    groups,
    locate,
    metric_tables,
    numeric_column,
    show_values,
)
from runner.analysis.selection import facet_label, require_no_other_varying
from runner.analysis.straight import LEAST_WIDTHS, loglog_slope, scatter
from runner.analysis.theory import next_slope, predicted_slope
from runner.errors import UserError, unknown
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
PIECES = ("1", "2", "3", "auto")
"""How many pieces a line may be asked to have."""
_PIECE = ("piece", "first", "last", "break", "break_low", "break_high")
_OFF = ("residual", "noise")
_NOT_METRICS = {*FIELDS, "step", "layer_index"}
_LAYER_KEYS = ("layer_index", "layer", "role")
_OF_LAYERS = ("movement_", "update_", "branch_")
"""How metrics begin of which theory speaks layer by layer."""


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
    x: str = "width",
    pieces: str | int | None = None,
    sparse: bool = False,
) -> pd.DataFrame:
    """Fit log metric against the logarithm of a key.

    Args:
        cells: The chosen rows of ``cells``; nothing may vary but the key, seed and the facets.
        trace: Rows of ``trace``; each cell's last step is read.
        layers: Rows of ``layers``; each cell's last step is read.
        metrics: Numeric columns; ``layers.feature_movement`` where another table has one of that name;
            ``movement_frobenius@input`` for the layers of this name or role alone.
        facets: Keys with one fit per combination of values.
        x: The key, with numbers; where it is not positive a cell is left out.
        pieces: 1, 2 or 3, or ``auto`` for as many as the data support; by default 1 against width, ``auto``
            against other keys.
        sparse: Whether a facet may have fewer than three values, and no slope then.

    Returns:
        One row per facet, metric, (for a metric per layer) layer and piece: the facet keys, ``metric``,
        ``layer``, ``role``, ``slope``, ``low``, ``high`` (95 %; of one piece asked for by a bootstrap, null
        with fewer than two seeds at a value), ``theory`` (null where it says nothing: of several pieces,
        against width the last is what it speaks of, against gamma the first is lazy and the last rich),
        ``widths`` (``values`` of another key), ``seeds`` (fewest at a value), ``cells`` (used) and
        ``left_out`` (diverged, failed, zero or null), ``largest`` (mean over seeds at a value) and
        ``next_term`` (slope of the largest term that theory leaves out), which are those of the whole line,
        ``residual`` (of the points about one straight line, in logarithms) and ``noise`` (what of it the
        seeds' spread explains; both null where there is no bootstrap interval, which knows of seeds alone:
        intervals of pieces are as wide as what they leave), ``verdict`` and ``because`` (null where theory is
        silent, else as :func:`runner.analysis.agreement.beside_theory` says). Unless one piece is asked for,
        also ``piece`` (from 0), ``first`` and ``last`` (the values on it), ``break`` (where it ends),
        ``break_low`` and ``break_high`` (95 %, null where the data do not bound it); all three null for the
        last piece.

    Raises:
        UserError: If a metric or key is unknown, another key varies, the key has no numbers, or fewer than
            three values exist for each piece asked for.
    """
    rows = []
    counted = counted_as(x)
    least, most = piece_bounds(pieces, x)
    for found in _samples(cells, trace, layers, metrics, facets, x, least, sparse):
        lines = _pieces(found.values, least, most)
        counts = {counted: len(found.values), "seeds": min(found.seeds, default=0)}
        means = [float(np.exp(np.log(values).mean())) for values in found.values.values()]
        counts |= {"cells": sum(found.seeds), "left_out": found.left_out}
        bounds = {"largest": max(means, default=np.nan), "next_term": found.next(x)}
        for place, line in enumerate(lines):
            row = {**found.keys, **line, "theory": found.theory(x, place, len(lines)), **counts, **bounds}
            rows.append(row | found.judge(row, x, place)._asdict())
    measured = [
        "slope",
        "low",
        "high",
        "theory",
        counted,
        "seeds",
        "cells",
        "left_out",
        "largest",
        "next_term",
        "residual",
        "noise",
        *VERDICTS,
    ]
    broken = _PIECE if most > 1 else ()
    return pd.DataFrame(rows, columns=[*facets, "metric", "layer", "role", *broken, *measured])


def piece_bounds(pieces: str | int | None, x: str) -> tuple[int, int]:
    """Return the fewest and the most pieces that are asked for.

    Raises:
        UserError: If it is none of :data:`PIECES`.
    """
    asked = str(pieces) if pieces is not None else "1" if x == "width" else "auto"
    if asked not in PIECES:
        raise UserError(
            f"--pieces must be one of {', '.join(PIECES)}, got {pieces}; "
            "auto takes as many as the data support"
        )
    return (1, MOST_PIECES) if asked == "auto" else (int(asked), int(asked))


def _pieces(samples: Mapping[float, np.ndarray], least: int, most: int) -> list[dict[str, Any]]:
    """Return slope, interval and place of each piece; one without a slope where there is none."""
    law = None if most == 1 else broken_line(samples, most, least=least)
    if law is None:
        line = loglog_slope(samples)
        off = dict.fromkeys(_OFF, np.nan) if line.low is None else scatter(samples)
        return [asdict(line) | {"piece": 0} | off]
    ends = [{"break": one.place, "break_low": one.low, "break_high": one.high} for one in law.breaks]
    return [
        asdict(piece) | {"piece": place} | end | dict.fromkeys(_OFF, np.nan)
        for place, (piece, end) in enumerate(zip(law.pieces, [*ends, {}], strict=True))
    ]


def counted_as(x: str) -> str:
    """Return the name of the column that says how many values of a key there are."""
    return "widths" if x == "width" else "values"


def fit_points(
    cells: pd.DataFrame,
    trace: pd.DataFrame,
    layers: pd.DataFrame,
    metrics: Sequence[str] = DEFAULT_METRICS,
    facets: Sequence[str] = ("parameterization",),
    x: str = "width",
) -> pd.DataFrame:
    """Return the points through which :func:`fit`, given the same, draws its lines: one row per value.

    Returns:
        The facet keys, ``metric``, ``layer``, ``role``, the key x, ``value`` (geometric mean over seeds),
        ``low`` and ``high`` (smallest and largest seed) and ``seeds``.
    """
    rows = [
        found.keys
        | {x: place, "value": float(np.exp(np.log(values).mean()))}
        | {"low": float(values.min()), "high": float(values.max()), "seeds": len(values)}
        for found in _samples(cells, trace, layers, metrics, facets, x)
        for place, values in sorted(found.values.items())
    ]
    columns = ["metric", "layer", "role", x, "value", "low", "high", "seeds"]
    return pd.DataFrame(rows, columns=[*facets, *columns])


@dataclass(frozen=True, slots=True)
class _Samples:
    """The usable values of one metric in one facet (and layer), by the key.

    ``metric`` and ``cell``, one of the facet, are what theory is asked about; None where its metric of that
    name is of another kind, per layer or of the whole cell.
    """

    keys: dict[str, Any]
    values: dict[float, np.ndarray]
    metric: str | None
    cell: dict[str, Any]
    left_out: int

    def theory(self, x: str, place: int, pieces: int) -> float | None:
        """Return the slope of a piece that theory predicts, which speaks of limits: the outer pieces."""
        if self.metric is None or not theory_speaks(x, place, pieces):
            return None
        return self._predicted(self.cell, x, place)

    def judge(self, row: Mapping[str, Any], x: str, place: int) -> Verdict:
        """Return whether the slope of a piece is theory's."""
        rivals = rivals_of(row["theory"], self.cell, lambda cell: self._predicted(cell, x, place))
        bent = NOT_STRAIGHT if is_bent(row) else None
        return beside_theory(row, rivals, bent or why_off(row))

    def _predicted(self, cell: dict[str, Any], x: str, place: int) -> float | None:
        assert self.metric is not None, "theory is asked about metrics that it knows"
        return predicted_slope(self.metric, self.keys["role"], cell, x, rich=place > 0)

    def next(self, x: str) -> float | None:
        """Return the slope of the largest term that theory leaves out."""
        return None if self.metric is None or x != "width" else next_slope(self.metric, self.cell)

    @property
    def seeds(self) -> list[int]:
        """How many values there are at each value of the key."""
        return [len(values) for values in self.values.values()]


def by_key(key: np.ndarray, value: np.ndarray, usable: np.ndarray) -> dict[float, np.ndarray]:
    """Return the usable values of the cells at each value of a key."""
    return {n.item(): value[usable & (key == n)] for n in np.unique(key[usable])}


def _samples(
    cells: pd.DataFrame,
    trace: pd.DataFrame,
    layers: pd.DataFrame,
    metrics: Sequence[str],
    facets: Sequence[str],
    x: str,
    least: int = 1,
    sparse: bool = False,
) -> Iterator[_Samples]:
    """Yield what is to be fitted with at least so many pieces; raises as :func:`fit` says."""
    if x in facets:
        raise UserError(f"--facet must not be {x}, which the fit runs over; drop it from --facet")
    chosen = [metric.partition("@")[::2] for metric in metrics]
    places = locate([metric for metric, _ in chosen], known_metrics(cells, trace, layers))
    key = cells["width"] if x == "width" else numeric_column(cells, x, "--x")
    require_no_other_varying(cells, (x,), facets)
    last = {"cells": cells, "layers": _last_step(layers, cells), "trace": _last_step(trace, cells)}
    for facet, part in facet_groups(cells, facets):
        if not sparse:
            _require_values(key[part.index], x, facet, least)
        example = {str(name): value for name, value in part.iloc[0].items()}
        for (metric, table, name), (_, layer) in zip(places, chosen, strict=True):
            rows = _only_layers(last[table], layer, metric) if layer else last[table]
            for keys, found in _by_layer(name, part, key[part.index], rows):
                predictable = (keys["layer"] is not None) == name.startswith(_OF_LAYERS)
                used = sum(len(values) for values in found.values())
                yield _Samples(
                    facet | {"metric": metric} | keys, found, name if predictable else None,
                    example, len(part) - used,
                )  # fmt: skip


def _by_layer(
    metric: str, cells: pd.DataFrame, key: pd.Series, table: pd.DataFrame
) -> Iterator[tuple[dict[str, Any], dict[float, np.ndarray]]]:
    """Yield the usable values by the key, for each layer or once for the whole cell."""
    config = cells[["cell_id", "status"]].assign(key=key)
    parts: Iterator[tuple[tuple[Any, ...], pd.DataFrame]] = iter([((None, None, None), table)])
    if "layer" in table:
        table = table[table["cell_id"].isin(config["cell_id"])]
        parts = groups(table, [table[key] for key in _LAYER_KEYS])
    for (_, layer, role), part in parts:
        joined = config.merge(part[["cell_id", metric]].set_axis(["cell_id", "value"], axis=1), how="left")
        value, place = floats(joined["value"]).to_numpy(), joined["key"].to_numpy()
        usable = (joined["status"] == "ok").to_numpy() & np.isfinite(value) & (value > 0) & (place > 0)
        yield {"layer": layer, "role": role}, by_key(place, value, usable)


def _only_layers(table: pd.DataFrame, layer: str, metric: str) -> pd.DataFrame:
    """Return the rows of the layers of a name or role."""
    if "layer" not in table:
        raise UserError(f"--metric {metric}@{layer} must be per layer, but {metric} is of the whole network")
    kept = (table["layer"].astype(object) == layer) | (table["role"].astype(object) == layer)
    if not kept.any():
        names = {str(name) for column in ("role", "layer") for name in table[column].dropna().unique()}
        raise unknown(f"the layer of --metric {metric}@LAYER", layer, sorted(names))
    return table[kept]


def _last_step(table: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of each chosen cell at its last measured step."""
    table = table[table["cell_id"].isin(cells["cell_id"])]
    return table[table["step"] == table.groupby("cell_id", observed=True)["step"].transform("max")]


def _require_values(key: pd.Series, x: str, facet: dict[str, Any], pieces: int) -> None:
    """Refuse a facet with too few values of the key for a line of so many pieces."""
    found, least = key[key > 0], LEAST_WIDTHS * pieces
    if found.nunique() < least:
        where = f" in {facet_label(list(facet), list(facet.values()))}" if facet else ""
        more = "widths" if x == "width" else f"values of {x}"
        asked = "a fit" if pieces == 1 else f"{pieces} pieces"
        raise UserError(
            f"{x} must have at least {least} {'' if x == 'width' else 'positive '}values for {asked}, "
            f"got {show_values(key)}{where}; sweep more {more} or choose cells with --where"
        )
