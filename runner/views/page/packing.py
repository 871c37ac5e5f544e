"""The training curves of a store, packed small: what a chosen cell shows, and the diagram at any step."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

TRACE = ("train_loss", "ntk_change", "feature_movement")
"""Measures that a reader sees first, and the only ones kept where all would not fit."""
LAYERS = ("movement_spectral", "movement_frobenius")
"""The first of these that was measured is shown per layer."""


def layer_measure(layers: pd.DataFrame) -> str | None:
    """Return what is shown per layer; None if nothing was measured."""
    return next((name for name in LAYERS if name in layers and layers[name].notna().any()), None)


def pack_curves(
    cells: pd.DataFrame, points: pd.Series, trace: pd.DataFrame, layers: pd.DataFrame, most_bytes: int
) -> tuple[dict[str, Any], int]:
    """Return the curves of as many cells as fit.

    Every measure of the trace is there if all fit, else those of :data:`TRACE`. First come the cells of one
    seed at each point of the diagram, then those of the next; where a seed does not fit whole, its cells are
    chosen evenly.

    Args:
        cells: Rows of the ``cells`` table.
        points: The point of each cell, on the same index.
        trace: Rows of ``trace``.
        layers: Rows of ``layers``.

    Returns:
        ``{"measures", "layerMeasure", "steps", "cells"}``, the last by the place of a cell in the table; and
        for how many cells.
    """
    order = _in_turn(cells, points)
    packer = _Packer(trace, layers, _measured(trace))
    rows = cells.loc[order, ["cell_id"]].to_dict("records")
    if len(rows) > 50:
        sample = rows[:: len(rows) // 50]
        if _size(packer, sample) * len(rows) > most_bytes:
            packer = _Packer(trace, layers, [name for name in TRACE if name in packer.measures])
        each = _size(packer, sample)
        if each * len(rows) > most_bytes:
            order = _evenly(order, points, int(most_bytes / each))
    places = {index: place for place, index in enumerate(cells.index)}
    kept = {}
    for index in order:
        if (one := packer.curves(str(cells.at[index, "cell_id"]))) is not None:
            kept[str(places[index])] = one
    return {
        "measures": packer.measures,
        "layerMeasure": packer.layer_measure,
        "steps": [list(key) for key in packer.steps],
        "cells": kept,
    }, len(kept)


def _measured(trace: pd.DataFrame) -> list[str]:
    """Return what the trace holds beside the step, those of :data:`TRACE` first."""
    numbers = [str(name) for name in trace.select_dtypes("number") if name != "step"]
    order = [*TRACE, *(name for name in numbers if name not in TRACE)]
    return [name for name in order if name in trace and (trace.loc[trace["step"] > 0, name]).notna().any()]


class _Packer:
    """The curves of one cell after the other; steps that cells share are kept once."""

    def __init__(self, trace: pd.DataFrame, layers: pd.DataFrame, measures: list[str]) -> None:
        self.measures = measures
        self.layer_measure = layer_measure(layers)
        self.steps: dict[tuple[Any, ...], int] = {}
        self._traces = _Sorted(trace, ["step"], measures)
        self._layers = self.layer_measure and _Sorted(
            layers, ["layer_index", "step"], [self.layer_measure, "layer"]
        )

    def curves(self, cell_id: str) -> dict[str, Any] | None:
        """Return what was measured of a cell at each step, None if nothing was."""
        part = self._traces.rows(cell_id)
        if part is None:
            return None
        when = self.steps.setdefault(tuple(part["step"].tolist()), len(self.steps))
        found: dict[str, Any] = {"at": when, "trace": [short(part[name]) for name in self.measures]}
        if self._layers and self.layer_measure and (part := self._layers.rows(cell_id)) is not None:
            names: dict[str, list[Any]] = {}
            for name, value in zip(part["layer"], part[self.layer_measure], strict=True):
                names.setdefault(str(name), []).append(value)
            found["layers"] = {name: short(values) for name, values in names.items()}
        return found


def _size(packer: _Packer, rows: Sequence[Mapping[Any, Any]]) -> float:
    """Return the bytes that a cell takes on average."""
    sizes = [len(json.dumps(packer.curves(str(row["cell_id"])), separators=(",", ":"))) for row in rows]
    return sum(sizes) / len(sizes)


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


def short(values: Iterable[Any], digits: int = 4) -> list[float | None]:
    """Return numbers to some digits, what is missing or not finite as null."""
    if isinstance(values, np.ndarray):
        values = values.tolist()  # numbers of Python are looked at in half of the time
    return [
        None if value is None or value is pd.NA or not math.isfinite(value) else float(f"{value:.{digits}g}")
        for value in values
    ]
