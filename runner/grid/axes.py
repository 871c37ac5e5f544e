"""Axes over a config, expanded to cells, without Hydra.

Each value of an axis is checked once and applied to a plain dict: nothing is composed or merged per
cell.
"""

import copy
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runner.errors import UserError
from runner.grid.cells import Cells
from runner.grid.config import EXECUTION_KEYS, TOP_KEYS, cell_from_config
from runner.grid.rules import RULES, UNNAMED_KEYS, check_value, shown, unknown_key


@dataclass(frozen=True, slots=True)
class Axis:
    """The values that one key takes over a grid.

    Attributes:
        key: Dotted config key, e.g. ``lr`` or ``model.activation``.
        values: What it takes, in order.
        adds: Whether the key may be new (Hydra's ``+``); otherwise it must exist.
        replaces: Whether a key that is added may also exist (Hydra's ``++``).
    """

    key: str
    values: tuple[Any, ...]
    adds: bool = False
    replaces: bool = False


def expand(config: Mapping[str, Any], axes: Sequence[Axis | Sequence[Axis]]) -> Cells:
    """Return every cell of the product of the axes over one composed config, each once.

    Each value is checked once, not once per cell, and nothing is recomposed: a million cells of
    scalar axes take seconds.

    Args:
        config: Plain nested dict; what the axes do not name is shared by all cells.
        axes: May be empty: the config is then the one cell. Axes that are given as one, of one length, run
            together.

    Raises:
        UserError: If an axis is empty, names an unknown key or holds a wrong value.
    """
    groups = [(axes,) if isinstance(axes, Axis) else tuple(axes) for axes in axes]
    for axis in itertools.chain(*groups):
        check_axis(axis, config)
    scalar = [group[0] for group in groups if len(group) == 1 and group[0].key in RULES]
    nested = [group for group in groups if group and not (len(group) == 1 and group[0].key in RULES)]
    columns = {
        axis.key: tuple(dict.fromkeys(check_value(axis.key, v) for v in axis.values)) for axis in scalar
    }
    products = []
    keys = [axis.key for axis in itertools.chain(*nested)]
    for choice in itertools.product(
        *(zip(*(axis.values for axis in group), strict=True) for group in nested)
    ):
        point = copy.deepcopy(dict(config))
        for key, value in zip(keys, itertools.chain(*choice), strict=True):
            _put(point, key, value)
        point |= {key: values[0] for key, values in columns.items()}
        products.append(Cells.product(cell_from_config(point), columns))
    return Cells.join(products)


def check_axis(axis: Axis, config: Mapping[str, Any]) -> None:
    """Raise UserError if the axis is empty or its key is not one that this config can vary."""
    head = axis.key.split(".")[0]
    if not axis.values:
        raise UserError(f"{axis.key} must have at least one value, got an empty axis; list its values")
    if head in EXECUTION_KEYS:
        values = ",".join(map(shown, axis.values))
        raise UserError(
            f"{axis.key} must have one value, got {values}; it is not part of a cell, so it cannot be an axis"
        )
    parent: Any = config
    path = axis.key.split(".")
    for depth, part in enumerate(path):
        if not isinstance(parent, Mapping) or part not in parent:
            if axis.adds or axis.key in UNNAMED_KEYS:
                return
            known = [str(key) for key in parent] if isinstance(parent, Mapping) else []
            raise unknown_key(".".join(path[: depth + 1]), axis.values[0], known if depth else TOP_KEYS)
        parent = parent[part]
    if axis.adds and not axis.replaces:
        raise UserError(f"{axis.key} must be new to be added with +, got a key that exists; drop the +")


def _put(config: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for part in parents:
        config = config.setdefault(part, {})
    config[last] = value


_LOGSPACE = re.compile(r"logspace\(([^()]*)\)")


def expand_logspace(key: str, text: str) -> str:
    """Replace every ``logspace(a,b,num)`` of an axis by its values, 10^a to 10^b, as numpy's.

    Values are rounded to six significant digits, so that the ids of their cells are the same on
    every machine and a value can be typed by hand.

    >>> expand_logspace("lr", "logspace(-2,0,3),5")
    '0.01,0.1,1,5'
    """

    def values(match: re.Match[str]) -> str:
        try:
            start, stop, count = match.group(1).split(",")
            first, last, number = float(start), float(stop), int(count)
            if number < 1 or not math.isfinite(first) or not math.isfinite(last):
                raise ValueError
            step = (last - first) / max(number - 1, 1)
            return ",".join(f"{10 ** (first + step * index):.6g}" for index in range(number))
        except (ValueError, OverflowError):
            raise UserError(
                f"{key} must give logspace(a,b,num) two exponents and a count >= 1, got {match.group(0)}; "
                "e.g. logspace(-3,1,9) for 0.001 to 10"
            ) from None

    return _LOGSPACE.sub(values, text)
