"""Which cells an analysis is about, and the refusal to average over what it was not told about."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from runner.analysis.columns import (
    column,
    config_columns,
    distinct,
    groups,
    is_exponent,
    plain,
    show,
    show_values,
)
from runner.errors import UserError

if TYPE_CHECKING:
    from runner.store import Store


class VaryingError(UserError):
    """A config key (all such are ``keys``) varies that is neither an axis nor a facet."""

    def __init__(self, message: str, keys: Sequence[str]) -> None:
        super().__init__(message)
        self.keys = tuple(keys)


def choose(
    store: Store, where: Sequence[str] = (), everything: bool = False, launch: str | None = None
) -> pd.DataFrame:
    """Return the finished cells that an analysis is about.

    Args:
        where: Conditions, as for :func:`select`.
        everything: Take the cells of all launches.
        launch: Take the cells that this launch asked for, whichever launch trained them; null is the newest.

    Raises:
        UserError: If there are none.
    """
    cells = store.cells
    if not everything:
        cells = cells[cells["cell_id"].isin(store.launch_cells(launch))]
        cells.attrs["tied"] = tied_keys(store.config)
    if cells.empty:
        whose = "cells" if everything else "cells of the newest launch"
        raise UserError(
            f"STORE must hold finished {whose}, got none in {store.path}; `runner status` shows how far it is"
        )
    return select(cells, where)


def tied_keys(config: Mapping[str, Any]) -> list[list[str]]:
    """Return the groups of keys whose axes run together in a launch."""
    groups = (config.get("sweep") or {}).get("zip") or []
    return [groups] if groups and isinstance(groups[0], str) else groups


def default_facets(store: Store, axes: Sequence[str], launch: str | None = None) -> tuple[str, ...]:
    """Return the facets that a launch's config asks for, without those that are axes now."""
    from runner.store.launches import read_config

    config = read_config(store.path, launch) if launch else store.config
    facets = config.get("facet", ["parameterization"]) or []
    # An axis of an exponent runs over what the name would part.
    taken = {*axes, *(["parameterization"] if any(is_exponent(axis) for axis in axes) else [])}
    return tuple(
        str(facet) for facet in ([facets] if isinstance(facets, str) else facets) if facet not in taken
    )


def select(cells: pd.DataFrame, where: Sequence[str] = ()) -> pd.DataFrame:
    """Return the cells that meet every condition.

    Args:
        where: Conditions ``key=value`` or ``key=value,value``; a key is a column or a dotted group key.
            Values are compared by type, numbers to six digits, as they are printed.

    Raises:
        UserError: If a condition is malformed, its key unknown, or no cell meets it.
    """
    for condition in where:
        key, equals, text = condition.partition("=")
        if not equals or not key or not text:
            raise UserError(f"--where must be key=value, got {condition!r}; for example --where depth=2")
        values = column(cells, key, "--where")
        wanted = _parts(text)
        keep = [any(_matches(plain(value), part) for part in wanted) for value in values]
        if not any(keep):
            raise UserError(
                f"--where {key} must be one of {show_values(values)}, got {text}; nothing else is here"
            )
        cells = cells[keep]
    return cells


def require_no_other_varying(cells: pd.DataFrame, axes: Sequence[str], facets: Sequence[str]) -> None:
    """Refuse cells that differ by a config key which the analysis would silently average over.

    A key may differ between facets (each data set has its own settings), never inside one, unless it is tied
    to an axis: then there is one value of it at each point.

    Raises:
        UserError: Naming the first such key, its values and the two remedies.
    """
    config = config_columns(cells)
    free = {*axes, *facets, "seed"}
    if free & {"lr_absolute", "lr_sharpness"}:
        free.add("lr")
    for group in cells.attrs.get("tied", ()):
        free |= set(group if free.intersection(axes, group) else ())
    keys = [str(key) for key in config if key not in free]
    if "parameterization" in free and "parameterization" not in facets:
        keys = [key for key in keys if not is_exponent(key)]
    elif any(is_exponent(key) for key in free):
        # The name says what differs from its file, and follows from the exponents.
        keys = [key for key in keys if key != "parameterization"]
    separate = [column(cells, facet, "--facet") for facet in facets]
    varying: dict[str, list[Any]] = {}
    for _, part in groups(config, separate):
        for key in keys:
            values = distinct(part[key])
            if len(values) > 1:
                varying.setdefault(key, values)
    # The settings of a group differ with its name: naming both would only be longer.
    varying = {
        key: values for key, values in varying.items() if key.partition(".")[0] not in {*varying} - {key}
    }
    if not varying:
        return
    key, *others = varying
    values = varying[key]
    also = f", {', '.join(others[:3])}{', ...' if others[3:] else ''} too" if others else ""
    raise VaryingError(
        f"{key} varies ({show_values(values)}){also}; choose one with --where {key}={show(values[0])} "
        f"or separate it with --facet {','.join([key, *facets])}",
        list(varying),
    )


def facet_label(facets: Sequence[str], values: Sequence[Any]) -> str:
    """Return the heading of a facet: names as they are, other values behind their key."""
    parts = [
        show(value) if isinstance(value, str) else f"{facet} {show(value)}"
        for facet, value in zip(facets, values, strict=True)
    ]
    return ", ".join(parts)


def with_series(frame: pd.DataFrame, facets: Sequence[str]) -> pd.DataFrame:
    """Return the rows with the heading of their facet as ``series``.

    Raises:
        UserError: If a facet is unknown.
    """
    keys = [column(frame, facet, "--facet") for facet in facets]
    rows = zip(*keys, strict=True) if keys else [()] * len(frame)
    return frame.assign(series=[facet_label(facets, values) for values in rows])


def _parts(text: str) -> list[str]:
    """Return the values of a condition, which commas part outside brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "[{") - (letter in "]}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]


_WORDS = {"null": None, "none": None, "true": True, "false": False}


def _matches(value: Any, text: str) -> bool:
    """Tell whether a cell's value is the one that the user typed."""
    if isinstance(value, str):
        # A list is kept as JSON, which has spaces where a person has none.
        lists = value.startswith("[") and value.replace(" ", "") == text.replace(" ", "")
        return lists or value == text.strip("'\"")
    if value is None or isinstance(value, bool):
        return text.lower() in _WORDS and _WORDS[text.lower()] is value
    try:
        if isinstance(value, int):
            return value == float(text)
        # Printed values have six digits: what the tool shows must be accepted back.
        return math.isclose(float(value), float(text), rel_tol=1e-5)
    except ValueError:
        return False
