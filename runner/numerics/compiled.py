"""Steps of small networks by code of this package, compiled where it runs (``products.c``).

A library takes some microseconds to begin a batch of products, and factors, relu and its derivative
each take a pass over memory. Here all of it is one call for several steps, one cell after the other, whose
numbers stay in registers and in the nearest caches. Without a C compiler, and on processors without AVX2,
torch does the same, to rounding.
"""

import ctypes
import hashlib
import math
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from runner.numerics.processor import cache_folder, processor_features, processor_name

SWITCH = "RUNNER_COMPILED"
"""Environment variable: with 0 nothing is compiled."""
LARGEST = 1 << 16
"""Numbers in a matrix beyond which torch is as fast, which arranges large ones for the caches."""
LARGEST_BATCH = 1 << 18
"""The same of the features of a batch: 2,048 samples of width 256 take torch 0.7 times as long, 512 1.2."""

_SOURCE = Path(__file__).with_name("products.c")
FLAGS = ("-O2", "-march=native", "-fno-math-errno", "-shared", "-fPIC")
_LIBRARIES = ("-lm",)
"""Of the compiler; without -ffast-math, under which NaN may be lost."""
_SECONDS = 60
_NAMES = {torch.float32: "run_float32", torch.float64: "run_float64"}


def who() -> str:
    """Return who multiplies small matrices here, for the record of a launch: ``runner`` or ``torch``."""
    return "torch" if library() is None else "runner"


def takes(matrix: Tensor, rows: int = 1) -> bool:
    """Say whether products with a matrix per cell are done here: small ones, on a CPU, with a compiler.

    It depends on one cell's matrix and on the machine, not on how many cells there are, so that the numbers
    of a cell are the same in any pack.

    Args:
        rows: Of what is multiplied by it.
    """
    sides = matrix.shape[-2:]
    return (
        math.prod(sides) <= LARGEST
        and rows * max(sides) <= LARGEST_BATCH
        and type(matrix) in _PLAIN
        and matrix.device.type == "cpu"
        and function_of(matrix.dtype) is not None
    )


class Operation(NamedTuple):
    """``out = [out +] factor * each * also * now * left @ right``, then zeros, of every cell.

    Attributes:
        out: Written; its rows are contiguous, and so are those of ``above``.
        left: Any strides.
        right: Its rows or its columns are contiguous.
        factor: Of all cells.
        each: Factor of each cell.
        also: The same again.
        now: Column of the table of steps that has the factor of each step, if any.
        add: Whether what is in ``out`` is added.
        rectify: Whether what is at or below 0 then becomes 0, as by relu.
        above: Where these are at or below 0 the result is 0: relu's derivative.
    """

    out: Float[Tensor, "cell row column"]
    left: Float[Tensor, "cell row inner"]
    right: Float[Tensor, "cell inner column"]
    factor: float = 1.0
    each: Float[Tensor, "cell 1 1"] | None = None
    also: Float[Tensor, "cell 1 1"] | None = None
    now: int | None = None
    add: bool = False
    rectify: bool = False
    above: Float[Tensor, "cell row column"] | None = None


class Pick(NamedTuple):
    """Rows of a table, others at every step.

    Attributes:
        out: Written.
        left: The table; its rows are contiguous.
        places: Of the rows.
    """

    out: Float[Tensor, "cell row column"]
    left: Float[Tensor, "#cell table column"]
    places: Int64[Tensor, "step cell row"]


class Loss(NamedTuple):
    """The loss of f = (left - right) / each, as in :mod:`runner.numerics.losses`, and its gradient.

    Attributes:
        name: Of the loss.
        out: The gradient with respect to ``left``.
        left: Outputs of the network.
        above: The targets, which under cross-entropy mark classes.
        each: gamma.
        total: The loss at every step.
        right: Outputs at init, where they are subtracted.
    """

    name: str
    out: Float[Tensor, "cell sample output"]
    left: Float[Tensor, "cell sample output"]
    above: Float[Tensor, "#cell sample output"]
    each: Float[Tensor, "cell 1 1"]
    total: Float[Tensor, "step cell"]
    right: Float[Tensor, "#cell sample output"] | None = None


class Blend(NamedTuple):
    """``out = keep * out + factor * each * now * term``, number by number; all operands are contiguous.

    Attributes:
        term: ``itself``, ``square`` or ``sign`` of ``left``; ``ratio``: left / (sqrt(right) + also * then).
        out: Written; may be an operand.
        keep: What remains of it; with 0 it is not read.
        factor: Of all cells.
        each: Factor of each cell.
        now: Column of the table of steps that has the factor of each step, if any.
        also: Of each cell.
        then: Column of the table of steps that has its factor, if any.
    """

    term: str
    out: Float[Tensor, "cell row column"]
    left: Float[Tensor, "cell row column"]
    right: Float[Tensor, "cell row column"] | None = None
    keep: float = 1.0
    factor: float = 1.0
    each: Float[Tensor, "cell 1 1"] | None = None
    now: int | None = None
    also: Float[Tensor, "cell 1 1"] | None = None
    then: int | None = None


Step = Operation | Pick | Loss | Blend

_KINDS = (Operation, Pick, "mse", "cross_entropy", "itself", "square", "sign", "ratio")
"""In the order of ``kind`` in ``products.c``."""


class Program:
    """Operations in order, one cell after the other: what one writes is in the nearest caches for the next.

    Args:
        operations: On tensors that stay where they are, and are kept.
    """

    def __init__(self, operations: Sequence[Step]) -> None:
        self._operations = list(operations)
        out = operations[0].out
        function = function_of(out.dtype)
        assert function is not None
        for operation in operations:
            for name, value in operation._asdict().items():
                if isinstance(value, Tensor) and name != "places":
                    assert value.dtype == out.dtype
                    assert name == "total" or len(value) in {1, len(out)}
                    # Only products take strides between columns.
                    assert isinstance(operation, Operation) or 1 in (value.shape[-1], value.stride(-1))
                    assert not isinstance(operation, Blend) or value[0].is_contiguous()
        self._function, self._cells = function, len(out)
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
        self._function(self._records, len(self._records), self._cells, steps, rows, width)


_WHOLE = ("kind", "rows", "columns", "inner", "add", "rectify", "now", "then")
_STRIDES = {
    "out": 2, "left": 3, "right": 3, "above": 2, "each": 1, "also": 1, "places": 2, "total": 2,
}  # fmt: skip
"""Operands in the order of their pointers in ``products.c``, and how many strides follow each."""


_FIELDS: list[tuple[str, Any]] = [("factor", ctypes.c_double), ("keep", ctypes.c_double)]
_FIELDS += [(name, ctypes.c_int64) for name in _WHOLE]
for _name, _count in _STRIDES.items():
    _FIELDS += [(_name, ctypes.c_void_p), *((f"{_name}_{axis}", ctypes.c_int64) for axis in range(_count))]


class _Record(ctypes.Structure):
    """An operation as ``products.c`` reads it."""

    _fields_ = _FIELDS


def _record(operation: Step) -> _Record:
    named = {Loss: "name", Blend: "term"}.get(type(operation))
    kind = _KINDS.index(getattr(operation, named) if named else type(operation))
    inner = operation.left.shape[2] if isinstance(operation, Operation) else 1
    values: list[Any] = [getattr(operation, name, 1.0) for name in ("factor", "keep")]
    values += [kind, *operation.out.shape[1:], inner]
    values += [getattr(operation, name, False) for name in ("add", "rectify")]
    columns = [getattr(operation, name, None) for name in ("now", "then")]
    values += [-1 if column is None else column for column in columns]
    for name, count in _STRIDES.items():
        tensor = getattr(operation, name, None)
        if tensor is None:
            values += [None, *[0] * count]
        else:
            first, *others = tensor.stride()
            # What all cells share is not moved past.
            values += [tensor.data_ptr(), *[first if len(tensor) > 1 else 0, *others][:count]]
    return _Record(*values)


@lru_cache(maxsize=4)
def function_of(dtype: torch.dtype) -> Callable[..., None] | None:
    """Return what carries out operations on numbers of a type; its arguments are those of `run` in C."""
    code = library()
    if code is None or dtype not in _NAMES:
        return None
    function = getattr(code, _NAMES[dtype])
    function.argtypes = [ctypes.c_void_p, *[ctypes.c_int64] * 3, ctypes.c_void_p, ctypes.c_int64]
    function.restype = None
    return cast("Callable[..., None]", function)


@lru_cache(maxsize=1)
def library() -> ctypes.CDLL | None:
    """Return the compiled code, from the cache of this processor or compiled now; null where it cannot be."""
    compiler = shutil.which(os.environ.get("CC") or "cc")
    if compiler is None or os.environ.get(SWITCH) == "0" or platform.machine() not in {"x86_64", "AMD64"}:
        return None
    with suppress(OSError, subprocess.SubprocessError):
        key = "\n".join(
            [_SOURCE.read_text("utf-8"), compiler, *FLAGS, processor_name(), processor_features()]
        )
        path = cache_folder() / f"products-{hashlib.sha256(key.encode()).hexdigest()[:16]}.so"
        if not path.is_file():
            _compile(compiler, path)
        return ctypes.CDLL(str(path))
    return None


def _compile(compiler: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Several processes may compile at once; each replaces the file by the same.
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / path.name
        command = [compiler, *FLAGS, "-o", str(made), str(_SOURCE), *_LIBRARIES]
        subprocess.run(command, check=True, capture_output=True, timeout=_SECONDS)
        made.replace(path)


_PLAIN = {Tensor, torch.nn.Parameter}
"""Types whose numbers lie in memory; a subclass may only pretend."""
