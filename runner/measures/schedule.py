"""Which measures a cell asks for, and at which of the measured steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from runner.errors import UserError, unknown
from runner.grid import instantiate

SCHEDULES = ("every", "ends", "init")
"""Every measured step; init and the last step; init alone."""


@dataclass(frozen=True, slots=True)
class Scheduled:
    """A measure and when it is taken.

    Attributes:
        function: Compares now with the start.
        at: ``every``, ``ends`` or ``init``.
    """

    function: Callable[..., Any]
    at: str

    def due(self, step: int, last: int) -> bool:
        """Return whether it is taken at a measured step of a run that ends at step ``last``."""
        return step == 0 or self.at == "every" or (self.at == "ends" and step == last)


def scheduled(settings: Mapping[str, Any]) -> dict[str, Scheduled]:
    """Return the measures that a ``measure`` section names.

    Args:
        settings: The section: ``points`` and ``functions``, each with ``_target_``, keyword arguments of it
            and ``at``.

    Raises:
        UserError: If a measure does not exist, or the section asks for something impossible.
    """
    points = settings.get("points", 12)
    if not isinstance(points, int) or isinstance(points, bool) or points < 2:
        raise UserError(
            f"measure.points must be an integer >= 2, got {points!r}; give a number of measured steps"
        )
    return {
        name: _scheduled(f"measure.functions.{name}", section)
        for name, section in (settings.get("functions") or {}).items()
    }


def _scheduled(key: str, section: Mapping[str, Any]) -> Scheduled:
    at = section.get("at", "every")
    if at not in SCHEDULES:
        raise unknown(f"{key}.at", str(at), SCHEDULES)
    keys = {name: value for name, value in section.items() if name != "at"}
    return Scheduled(instantiate.partial(key, keys, now=None, start=None), at)
