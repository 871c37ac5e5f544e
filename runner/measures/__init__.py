"""What is measured: functions ``measure(now, start) -> Measurement``, one file per family.

Each is given a snapshot of the pack at a measured step and one of its init, and returns one value per cell,
or per layer and cell, by column. ``catalog`` declares each of them: columns, requirements, cost, what cells
that start alike share. Names are loaded when they are asked for: the catalog can be read without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from runner.measures.catalog import BY_NAME
from runner.measures.declaration import Cost, Sizes, declare

if TYPE_CHECKING:
    from runner.measures.snapshot import Measurement, Snapshot

__all__ = ["Cost", "Measurement", "Sizes", "Snapshot", "declare"]

_MODULES = {
    "Measurement": "snapshot",
    "Snapshot": "snapshot",
    "empirical_ntk": "kernel",
    "limit_kernels": "limit",
}


def __getattr__(name: str) -> Any:
    module = BY_NAME[name].module if name in BY_NAME else _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module 'runner.measures' has no attribute {name!r}")
    return getattr(import_module(f"runner.measures.{module}"), name)
