"""The training curves of a store, packed small: what a click on a point of the diagram shows."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

TRACE = ("train_loss", "ntk_change", "feature_movement")
LAYERS = ("movement_spectral", "movement_frobenius")
"""The first of these that was measured is shown per layer."""


def layer_measure(layers: pd.DataFrame) -> str | None:
    """Return what is shown per layer; None if nothing was measured."""
    return next((name for name in LAYERS if name in layers and layers[name].notna().any()), None)


def pack_curves(
    cells: pd.DataFrame, points: pd.Series, trace: pd.DataFrame, layers: pd.DataFrame, most_bytes: int
) -> tuple[dict[str, Any], int]:
    """Return the curves of as many cells as fit.

    First come the cells of one seed at each point of the diagram, then those of the next; where a seed does
    not fit whole, its cells are chosen evenly.

    Args:
        cells: Rows of the ``cells`` table.
        points: The point of each cell, on the same index.
        trace: Rows of ``trace``.
        layers: Rows of ``layers``.

    Returns:
        ``{"measures", "layerMeasure", "steps", "cells"}``, the last by point; and for how many cells.
    """
    order = _in_turn(cells, points)
    measure = layer_measure(layers)
    measures = [name for name in TRACE if name in trace and trace[name].notna().any()]
    traces = _Sorted(trace, ["step"], measures)
    layered = _Sorted(layers, ["layer_index", "step"], [measure, "layer"]) if measure else None
    steps: dict[tuple[Any, ...], int] = {}

    def packed(row: Mapping[Any, Any]) -> dict[str, Any] | None:
        part = traces.rows(row["cell_id"])
        if part is None:
            return None
        when = steps.setdefault(tuple(part["step"].tolist()), len(steps))
        found: dict[str, Any] = {"seed": int(row["seed"]), "at": when}
        found["trace"] = [_short(part[name]) for name in measures]
        if measure and layered is not None and (part := layered.rows(row["cell_id"])) is not None:
            names: dict[str, list[Any]] = {}
            for name, value in zip(part["layer"], part[measure], strict=True):
                names.setdefault(str(name), []).append(value)
            found["layers"] = {name: _short(values) for name, values in names.items()}
        return found

    rows = cells.loc[order, ["cell_id", "seed"]].to_dict("records")
    if len(rows) > 50:
        sample = [packed(row) for row in rows[:: len(rows) // 50]]
        each = sum(len(json.dumps(one, separators=(",", ":"))) for one in sample) / len(sample)
        if each * len(rows) > most_bytes:
            chosen = _evenly(order, points, int(most_bytes / each))
            order, rows = chosen, cells.loc[chosen, ["cell_id", "seed"]].to_dict("records")
    kept: dict[str, list[dict[str, Any]]] = {}
    count = 0
    for index, row in zip(order, rows, strict=True):
        if (one := packed(row)) is not None:
            kept.setdefault(str(points[index]), []).append(one)
            count += 1
    return {
        "measures": measures,
        "layerMeasure": measure,
        "steps": [list(key) for key in steps],
        "cells": kept,
    }, count


def _in_turn(cells: pd.DataFrame, points: pd.Series) -> list[Any]:
    """Return the index of the cells: the first seed of every point, then the second, and so on."""
    by_seed = cells.assign(point=points).sort_values(["point", "seed"])
    turn = by_seed.groupby("point").cumcount()
    return list(by_seed.assign(turn=turn).sort_values(["turn", "point"], kind="stable").index)


def _evenly(order: Sequence[Any], points: pd.Series, most: int) -> list[Any]:
    """Return at most so many: whole turns while they fit, then an even choice of the next."""
    per_turn = int(points.nunique())
    whole = (most // per_turn) * per_turn
    rest = order[whole : whole + per_turn]
    left = most - whole
    return [*order[:whole], *(rest[i * len(rest) // left] for i in range(min(left, len(rest))))]


class _Sorted:
    """Columns of a table as arrays, sorted by cell, so that the rows of a cell are a slice of them."""

    def __init__(self, table: pd.DataFrame, by: list[str], columns: list[Any]) -> None:
        table = table.sort_values(["cell_id", *by], kind="stable")
        self._arrays = {name: table[name].to_numpy() for name in dict.fromkeys([*by, *columns])}
        ids = table["cell_id"].to_numpy().astype(str)
        found, starts = np.unique(ids, return_index=True)
        ends = np.append(starts, len(ids))[1:]
        self._slices = {name: slice(a, b) for name, a, b in zip(found.tolist(), starts, ends, strict=True)}

    def rows(self, cell_id: str) -> dict[str, np.ndarray] | None:
        """Return the rows of a cell, None if it has none."""
        place = self._slices.get(cell_id)
        return None if place is None else {name: values[place] for name, values in self._arrays.items()}


def _short(values: Iterable[Any]) -> list[float | None]:
    """Return numbers to four digits, what is missing or not finite as null."""
    return [None if pd.isna(value) or math.isinf(value) else float(f"{value:.4g}") for value in values]
