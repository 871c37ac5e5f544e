"""Steps of small networks, as operations that compiled code carries out.

A library takes some microseconds to begin a batch of products, and factors, nonlinearities and their
derivatives each take a pass over memory. Here all of it is one call for several steps, one cell after the
other, whose numbers stay in registers and in the nearest caches.
"""

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from runner.numerics.compiled import function_of
from runner.numerics.images import Convolve, ConvolveBack, Pool, PoolBack
from runner.numerics.operations import (
    Attend,
    AttendBack,
    Blend,
    Curve,
    Loss,
    Norm,
    NormBack,
    OneHot,
    Operation,
    Pick,
    Repeat,
    Step,
    Transpose,
)

_KINDS = (
    Operation, Convolve, ConvolveBack, Pool, PoolBack, Transpose, Pick, OneHot, Repeat,
    "mse", "cross_entropy", Norm, NormBack, Attend, AttendBack,
    "relu", "gelu", "tanh", "erf", "itself", "square", "sign", "ratio", "times", "gate",
)  # fmt: skip
"""In the order of ``kind`` in ``steps.c``."""
_NAMED: dict[type, str] = {Loss: "name", Curve: "name", Blend: "term"}
"""Which attribute has the kind, where it is not that of the class."""


class Program:
    """Operations in order, one cell after the other: what one writes is in the nearest caches for the next.

    Args:
        operations: On tensors that stay where they are, and are kept.
    """

    def __init__(self, operations: Sequence[Step]) -> None:
        self._operations = list(operations)
        out = next(one.out for one in operations if not isinstance(one, Repeat))
        function = function_of(out.dtype)
        assert function is not None
        for operation in operations:
            for name, value in operation._asdict().items():
                if isinstance(value, Tensor) and name != "places":
                    assert value.dtype == out.dtype
                    assert name == "total" or len(value) in {1, len(out)}
                    # Only products take strides between columns.
                    assert isinstance(operation, Operation) or 1 in (value.shape[-1], value.stride(-1))
        self._function, self._cells = function, len(out)
        self._panel = torch.empty(max(_room(one) for one in operations), dtype=torch.uint8)
        self._records = (_Record * len(operations))(*map(_record, operations))

    def bind(self, place: int, **operands: Tensor) -> None:
        """Have an operation take other operands, of the same shape."""
        self._operations[place] = self._operations[place]._replace(**operands)  # type: ignore[arg-type]
        # A ctypes array counts from its start alone.
        self._records[place % len(self._operations)] = _record(self._operations[place])

    def run(self, steps: int = 1, table: Float64[Tensor, "step column"] | None = None) -> None:
        """Carry all of it out, for every cell as often as there are steps.

        Args:
            table: What operations multiply by at each step; needed where one names a column.
        """
        rows, width = (None, 0) if table is None else (table.data_ptr(), table.shape[1])
        self._function(
            self._records, len(self._records), self._cells, steps, rows, width, self._panel.data_ptr()
        )


_WHOLE = (
    "kind", "rows", "columns", "inner", "add", "sums", "rectify", "times", "now", "then", "positions",
    "causal", "height", "breadth", "side", "tiled",
)  # fmt: skip
_STRIDES = {
    "out": 2, "left": 3, "right": 3, "above": 2, "kept": 2, "more": 1, "each": 1, "also": 1, "places": 2,
    "total": 2,
}  # fmt: skip
"""Operands in the order of their pointers in ``steps.c``, and how many strides follow each."""


_FIELDS: list[tuple[str, Any]] = [("factor", ctypes.c_double), ("keep", ctypes.c_double)]
_FIELDS += [(name, ctypes.c_int64) for name in _WHOLE]
for _name, _count in _STRIDES.items():
    _FIELDS += [(_name, ctypes.c_void_p), *((f"{_name}_{axis}", ctypes.c_int64) for axis in range(_count))]


_VECTOR_BYTES, _NUMBER_BYTES = 64, 8
_POINTS, _TILES = 16, 64
"""As in ``images.h``."""


class _Record(ctypes.Structure):
    """An operation as ``steps.c`` reads it."""

    _fields_ = _FIELDS


def _room(operation: Step) -> int:
    """Return the bytes that an operation needs: four vectors of each number that is summed over, or a row.

    Of the widest vectors, and of the longest numbers, that the code may be compiled for.
    """
    if isinstance(operation, Convolve | ConvolveBack) and operation.tiled:
        channels, columns = operation.left.shape[2], operation.out.shape[2]
        matrices = channels * columns + _TILES * (channels + columns) + 3 * _VECTOR_BYTES
        return 4 * _VECTOR_BYTES * max(channels, _TILES) + _NUMBER_BYTES * _POINTS * matrices
    if isinstance(operation, Loss):
        return _NUMBER_BYTES * operation.out.shape[2]
    return 4 * _VECTOR_BYTES * _summed(operation)


def _summed(operation: Step) -> int:
    """Return how many numbers an operation's products sum over at most."""
    if isinstance(operation, Operation):
        return operation.left.shape[2]
    if isinstance(operation, Convolve):
        return operation.inner * operation.side
    if isinstance(operation, Attend | AttendBack):
        return max(operation.inner, operation.positions)
    return operation.breadth if isinstance(operation, ConvolveBack) else 1


def _record(operation: Step) -> _Record:
    named, fields = _NAMED.get(type(operation)), operation._asdict()
    if isinstance(operation, Blend):
        given = {name: fields[name] for name in ("out", "left", "right") if fields[name] is not None}
        # Parameters of any shape, as one row.
        if all(value[0].is_contiguous() for value in given.values()):
            fields |= {name: value.flatten(1).unsqueeze(1) for name, value in given.items()}
    whole = {
        "kind": _KINDS.index(fields[named] if named else type(operation)),
        "inner": 1,
        "now": -1,
        "then": -1,
    }
    if "out" in fields:
        whole["rows"], whole["columns"] = fields["out"].shape[1:]
    if isinstance(operation, Operation):
        whole["inner"] = operation.left.shape[2]
    values: list[Any] = [fields.get(name, 1.0) for name in ("factor", "keep")]
    for name in _WHOLE:
        number = fields.get(name)
        values.append(whole.get(name, 0) if number is None else number)
    for name, count in _STRIDES.items():
        tensor = fields.get(name)
        if tensor is None:
            values += [None, *[0] * count]
        else:
            first, *others = tensor.stride()
            # What all cells, or steps, share is not moved past.
            values += [tensor.data_ptr(), *[first if len(tensor) > 1 else 0, *others][:count]]
    return _Record(*values)
