"""Which measures a cell asks for, and at which of the measured steps."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from runner.errors import UserError, unknown
from runner.grid import instantiate
from runner.grid.rules import check_value
from runner.measures.catalog import declaration_of
from runner.measures.declaration import Measure
from runner.measures.requirements import Setting

SCHEDULES = ("every", "ends", "init")
"""Every measured step; init and the last step; init alone."""
POINTS = 12
"""Measured steps of a run whose config does not say how many."""


@dataclass(frozen=True, slots=True)
class Scheduled:
    """A measure and when it is taken.

    Attributes:
        function: Compares now with the start; its options are bound.
        at: ``every``, ``ends`` or ``init``.
        declared: What the measure says of itself.
        options: Keyword arguments of the function that the config gives.
    """

    function: Callable[..., Any]
    at: str
    declared: Measure
    options: Mapping[str, Any]

    def due(self, step: int, last: int) -> bool:
        """Return whether it is taken at a measured step of a run that ends at step ``last``."""
        return step == 0 or self.at == "every" or (self.at == "ends" and step == last)

    def times(self, points: int) -> int:
        """Return how often it is taken after init in a run with so many measured steps."""
        return {"every": points - 1, "ends": 1, "init": 0}[self.at]


def scheduled(settings: Mapping[str, Any]) -> dict[str, Scheduled]:
    """Return the measures that a ``measure`` section names.

    Args:
        settings: The section: which steps are measured, see :func:`measuring_steps`, and ``functions``, each
            with ``_target_``, keyword arguments of it and ``at``.

    Raises:
        UserError: If a measure does not exist, or the section asks for something impossible.
    """
    measuring_steps(1, settings)
    return {
        name: _scheduled(f"measure.functions.{name}", section)
        for name, section in (settings.get("functions") or {}).items()
    }


def measuring_steps(steps: int, settings: Mapping[str, Any]) -> list[int]:
    """Return the measured steps of a run: always 0 and the last, and those between that the section names.

    Args:
        steps: Of the run.
        settings: The ``measure`` section: ``points``, how many at most, with ``spacing`` ``log`` or
            ``linear``; or ``every`` so many steps; or a list ``steps``.

    Raises:
        UserError: If one of them is not what it must be, or two exclude each other.
    """
    defaults = {"points": POINTS, "spacing": "log", "every": None, "steps": None}
    count, spacing, every, listed = (
        check_value(f"measure.{key}", settings.get(key, default)) for key, default in defaults.items()
    )
    if every is not None and listed is not None:
        raise UserError(f"measure.steps must be alone, got measure.every={every} beside it; drop one of them")
    if listed is not None:
        between = listed
    elif every is not None:
        between = range(0, steps, every)
    elif spacing == "linear":
        between = [round(steps * place / (count - 1)) for place in range(count)]
    else:
        spaced = torch.logspace(0, math.log10(steps), count - 1 if count > 2 else 0, dtype=torch.float64)
        between = [int(value) for value in spaced.round().tolist()]
    return sorted({0, steps, *(step for step in between if step < steps)})


def check(measures: Mapping[str, Scheduled], setting: Setting) -> None:
    """Raise UserError for a measure that has no meaning in a setting.

    Args:
        setting: Data, optimizer, loss and batch of the cell.
    """
    for name, measure in measures.items():
        for require in measure.declared.requires:
            require(name, replace(setting, options=measure.options))


def _scheduled(key: str, section: Mapping[str, Any]) -> Scheduled:
    at = section.get("at", "every")
    if at not in SCHEDULES:
        raise unknown(f"{key}.at", str(at), SCHEDULES)
    keys = {name: value for name, value in section.items() if name != "at"}
    function = instantiate.partial(key, keys, now=None, start=None)
    return Scheduled(function, at, declaration_of(function.func), function.keywords)
