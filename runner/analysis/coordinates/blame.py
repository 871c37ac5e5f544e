"""Which layer is to blame where changes scale with width, and what is likely wrong with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from runner.analysis.columns import plain, records
from runner.analysis.coordinates.signature import LOGITS, Fault, Kind, Layer, explain
from runner.analysis.coordinates.slopes import BOUND, PARTS
from runner.analysis.coordinates.words import depth_words, fault_words, in_halves, logits_words, power_of


@dataclass(frozen=True, slots=True)
class Blame:
    """What is wrong.

    Attributes:
        layer: The layer to blame; the first one if several are.
        layers: All of them.
        kind: ``rate``, ``multiplier``, ``init``, ``between``, ``logits``, or ``table`` for the whole network.
        power: By which power of the width it is too large.
        words: What is seen and what is likely wrong.
    """

    layer: str
    layers: tuple[str, ...]
    kind: str
    power: float
    words: str


@dataclass(frozen=True, slots=True)
class Moment:
    """The slopes of all layers at a moment, by name: own and passed."""

    own: Mapping[str, float]
    passed: Mapping[str, float]

    @classmethod
    def of(cls, checks: pd.DataFrame, moment: str, names: Sequence[str]) -> Moment:
        """Read them off the checks; what does not change is NaN."""
        rows = checks[checks["moment"] == moment]
        tables = []
        for part in ("update_own", "update_passed"):
            found = rows[rows["part"] == part].set_index("layer")["slope"]
            tables.append({name: float(found.get(name, np.nan)) for name in names})
        return cls(*tables)


def blame(
    layers: pd.DataFrame, moments: Mapping[str, Moment], adam: bool | None, key: str = "width"
) -> Blame:
    """Return the layer to blame: the one whose fault explains the first changes, else the first that fails.

    The first layer in forward order that fails is not always at fault: under SGD all layers below a readout
    that is too large are given gradients that are.

    Args:
        layers: Rows per layer with verdicts, at least one of which is ``fail``.
        moments: The slopes at the ``first`` and the ``last`` moment.
        adam: Whether updates are sign-like; None if nobody knows.
        key: ``depth`` if the slopes are against depth: then the first layer that fails is named.
    """
    failing = layers[layers["verdict"] == "fail"]
    first = records(failing)[0]
    name = str(first["layer"])
    if key == "depth":
        return _in_depth(first)
    if name.endswith(LOGITS):
        part = BOUND if first.get(f"{BOUND}_verdict") == "fail" else "update_size"
        power = in_halves(float(first[part]))
        return Blame(name, (name,), "logits", power, logits_words(power))
    trained = [row for row in records(layers) if not str(row["layer"]).endswith(LOGITS)]
    now = moments["first"]
    known = [
        Layer(row["layer"], plain(row["role"]) or "", now.own[row["layer"]], now.passed[row["layer"]])
        for row in trained
    ]
    fault = explain(known, adam)
    if fault is not None:
        names = tuple(known[place].name for place in fault.layers)
        guilty = [one for one in names if one in set(failing["layer"])]
        if guilty:
            words = fault_words(fault, names[0], known[fault.layers[0]].role)
            return Blame(guilty[0], names, fault.kind, fault.power, words)
    return _first_failing(first)


def _in_depth(row: Mapping[str, Any]) -> Blame:
    """Return the blame of a layer whose change depends on the depth."""
    part = next(part for part in (*PARTS, BOUND) if row.get(f"{part}_verdict") == "fail")
    power = in_halves(float(row[part]))
    name = str(row["layer"])
    return Blame(
        name, (name,), "rate" if part == PARTS[0] else "between", power, depth_words(power, part == PARTS[0])
    )


def _first_failing(row: Mapping[str, Any]) -> Blame:
    """Return the blame of the first layer in forward order that fails, from its own slopes alone."""
    name, role = str(row["layer"]), str(plain(row["role"]) or "")
    part = next(part for part in PARTS if row.get(f"{part}_verdict") == "fail")
    power = in_halves(float(row[part]))
    kind: Kind = "rate" if part == "update_own" else "between"
    words = fault_words(Fault(kind, power, (0,)), name, role)
    if part == "update_size":
        words = (
            f"the change of what follows it goes as {power_of(power)}, while the parts that make it do not"
        )
    return Blame(name, (name,), kind, power, words)
