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
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

_ROUNDING = 2.0**-24
"""Relative error of a number in float32."""
_LARGEST_ERROR = 1e-4
"""Relative error of f in float32 beyond which a cell is trained in float64; squared, that of a loss."""

CHANGED = " with "
"""Between the name of a parameterization and the exponents that are not those of its file."""
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
        seed: Seed of the init, and of the batch order or of fresh samples.
        steps: Optimizer steps.
        batch_size: Samples per step; None for full batch.
        loss: ``mse`` or ``cross_entropy``.
        dtype: ``float32``, ``float64``, or ``tf32``: float32 multiplied in TF32 by a GPU.
        model: Name of the model.
        data: Name of the data set.
        optimizer: Name of the optimizer.
        parameterization: Its name, and what differs from the file of that name: ``ntk with a.output=1``.
        exponents: The parameterization's abc table, canonical JSON.
        settings: The other keys of the groups (model, data, optimizer, measure), canonical JSON.
        base_depth: Depth at which every parameterization is the same network; None is 1, and where the
            parameterization does not depend on depth.
        loss_limit: Multiple of its loss at init beyond which it counts as diverged; None for what a catapult
            of its width, gamma and exponents cannot reach (:mod:`runner.training.divergence`).
        sigma: Factors on the init standard deviation of weights by role, JSON; None where all are 1.
        symmetric_init: True where units start in pairs that cancel in f (:mod:`runner.layers.symmetry`), else
            None.
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
    base_depth: int | None = None
    loss_limit: float | None = None
    sigma: str | None = None
    symmetric_init: bool | None = None

    @property
    def cell_id(self) -> str:
        """Versioned hash of the resolved values; a field that has its default is left out."""
        # The text is canonical_json of these values, put together from cached pieces: 10 times faster.
        # `Cells.ids` does the same for a whole grid.
        text, values = _id_parts(
            tuple(name for name, default in OPTIONAL.items() if getattr(self, name) != default)
        )
        text %= tuple(map(encoded, values(self)))
        return f"{ID_VERSION}-{hashlib.sha256(text.encode()).hexdigest()[:20]}"

    @property
    def _table(self) -> str:
        return table_name(self.parameterization)

    @property
    def precision(self) -> str:
        """The dtype in which the cell is trained: its own, or float64 where float32 cannot tell f from zero.

        f = (h - h at init) / gamma is a difference of numbers of order one, and a weight moves by about
        gamma / sqrt(width) of its size: in float32 both lose what is below 2^-24 sqrt(width) / gamma.
        """
        return "float64" if imprecise(self.width, self.gamma) else self.dtype

    @property
    def pack_key(self) -> tuple[object, ...]:
        """What cells must share to be trained as one ensemble: shapes, data and schedule.

        Learning rate, gamma, seed, parameterization, base width and the factors of its init are per-cell
        numbers inside a pack.
        """
        return tuple(getattr(self, name) for name in PACK_FIELDS)

    @property
    def start_key(self) -> tuple[object, ...]:
        """What cells must share, beside the pack, to start as the same network: weights and raw outputs.

        Learning rate and gamma do not matter: all that is computed at init is computed once for them.
        """
        return tuple(getattr(self, name) for name in START_FIELDS)

    def row(self) -> dict[str, Any]:
        """Return the fields as a dict, in declaration order."""
        return {name: getattr(self, name) for name in FIELDS}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Cell:
        """Build a cell from a mapping that holds at least its fields."""
        return cls(**{name: row[name] for name in FIELDS if name in row or name not in OPTIONAL})


FIELDS = tuple(field.name for field in dataclasses.fields(Cell))
OPTIONAL = {
    field.name: field.default
    for field in dataclasses.fields(Cell)
    if field.default is not dataclasses.MISSING
}
"""Fields that came later, with the values that they have where they are not given; older stores lack them."""
START_FIELDS = (
    "parameterization", "exponents", "base_width", "base_depth", "seed", "sigma", "symmetric_init",
)  # fmt: skip
PER_CELL_FIELDS = frozenset({"lr", "lr_unit", "gamma", "loss_limit", *START_FIELDS})
PACK_FIELDS = tuple(
    "precision" if name == "dtype" else name for name in FIELDS if name not in PER_CELL_FIELDS
)


def imprecise(width: Any, gamma: Any) -> Any:
    """Return whether float32 is too coarse for a network of this width and richness; numbers or arrays."""
    return _ROUNDING * width**0.5 > _LARGEST_ERROR * gamma


@functools.lru_cache
def _id_parts(given: tuple[str, ...]) -> tuple[str, Callable[[Cell], tuple[object, ...]]]:
    """Return the text that is hashed, with places for values, and what takes them from a cell."""
    names = sorted(name for name in FIELDS if name not in OPTIONAL or name in given)
    sources = ("_table" if name == "parameterization" else name for name in names)
    return "{" + ",".join(f'"{name}":%s' for name in names) + "}", operator.attrgetter(*sources)


def table_name(parameterization: str) -> str:
    """Return the name without what was changed: ids know that from ``exponents``."""
    return parameterization.partition(CHANGED)[0]


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
