"""A cell: one point of the grid, as resolved values.

A cell is identified by what it *is*, never by how it was asked for: ``cell_id`` hashes the resolved
values, so two launches that reach the same point by other overrides share its result.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ID_VERSION = "c1"
"""Changes whenever the same cell would get another id or other numbers; old results are then not reused."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One training run of the grid, fully resolved.

    Attributes:
        width: Hidden units per layer, channels, or features of a token.
        depth: Hidden layers, or blocks; an MLP has ``depth + 1`` weight matrices.
        lr: The swept learning rate, in the unit of ``lr_unit``.
        lr_unit: ``absolute``, or ``sharpness``: then ``lr`` is lr * lambda_max at init.
        gamma: Richness, f = h / gamma (1 / alpha of Chizat et al., arXiv 1812.07956).
        center_output: Whether f at init is subtracted from f.
        base_width: Width at which every parameterization is the same network.
        seed: Seed of the init and of the batch order.
        steps: Optimizer steps.
        batch_size: Samples per step; None for full batch.
        loss: ``mse`` or ``cross_entropy``.
        dtype: ``float32``, ``float64``, or ``tf32``: float32 multiplied in TF32 by a GPU.
        model: Name of the model.
        data: Name of the data set.
        optimizer: Name of the optimizer.
        parameterization: Name of the parameterization.
        exponents: The parameterization's abc table, canonical JSON.
        settings: The other keys of the groups (model, data, optimizer, measure), canonical JSON.
    """

    width: int
    depth: int
    lr: float
    lr_unit: str
    gamma: float
    center_output: bool
    base_width: int
    seed: int
    steps: int
    batch_size: int | None
    loss: str
    dtype: str
    model: str
    data: str
    optimizer: str
    parameterization: str
    exponents: str
    settings: str

    @property
    def cell_id(self) -> str:
        """Versioned hash of the resolved values."""
        # The text is canonical_json(self.row()), put together from cached pieces: 10 times faster.
        # `Cells.ids` does the same for a whole grid.
        text = _ID_TEXT % tuple(map(encoded, _ID_VALUES(self)))
        return f"{ID_VERSION}-{hashlib.sha256(text.encode()).hexdigest()[:20]}"

    @property
    def pack_key(self) -> tuple[object, ...]:
        """What cells must share to be trained as one ensemble: shapes, data and schedule.

        Learning rate, gamma, seed, parameterization and base width are per-cell numbers inside a pack.
        """
        return tuple(getattr(self, name) for name in PACK_FIELDS)

    def row(self) -> dict[str, Any]:
        """Return the fields as a dict, in declaration order."""
        return {name: getattr(self, name) for name in FIELDS}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Cell:
        """Build a cell from a mapping that holds at least its fields."""
        return cls(**{name: row[name] for name in FIELDS})


FIELDS = tuple(field.name for field in dataclasses.fields(Cell))
PER_CELL_FIELDS = frozenset({"lr", "lr_unit", "gamma", "base_width", "seed", "parameterization", "exponents"})
PACK_FIELDS = tuple(name for name in FIELDS if name not in PER_CELL_FIELDS)
_ID_VALUES = operator.attrgetter(*sorted(FIELDS))
_ID_TEXT = "{" + ",".join(f'"{name}":%s' for name in sorted(FIELDS)) + "}"


def canonical_json(value: object) -> str:
    """Return JSON that is equal for equal values: sorted keys, and 1.0 written as 1."""
    return json.dumps(_canonical(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


@functools.lru_cache(maxsize=1 << 16, typed=True)
def encoded(value: object) -> str:
    """Return the canonical JSON of a field's value, as ids are made of it."""
    return canonical_json(value)


def _canonical(value: object) -> object:
    """Write integral floats as ints, so that ``lr=1`` and ``lr=1.0`` are the same cell."""
    if isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {str(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(item) for item in value]
    return value
