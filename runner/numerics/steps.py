"""Steps of small networks, as operations that compiled code carries out.

A library takes some microseconds to begin a batch of products, and factors, nonlinearities and their
derivatives each take a pass over memory. Here all of it is one call for several steps, one cell after the
other, whose numbers stay in registers and in the nearest caches.
"""

import ctypes
from collections.abc import Sequence
from typing import Any, NamedTuple

from jaxtyping import Float, Float64, Int64
from torch import Tensor

from runner.numerics.compiled import function_of


class Operation(NamedTuple):
    """``out = [out +] factor * each * also * now * left @ right [* above]``, of every cell.

    Attributes:
        out: Written; its rows are contiguous, and so are those of ``above``.
        left: Any strides.
        right: Its rows or its columns are contiguous.
        factor: Of all cells.
        each: Factor of each cell.
        also: The same again.
        now: Column of the table of steps that has the factor of each step, if any.
        add: Whether what is in ``out`` is added.
        sums: Whether it is in all blocks of a step but the first, see :class:`Repeat`.
        rectify: Whether what is at or below 0 then becomes 0, as by relu.
        above: Where these are at or below 0 the product is 0, before it is added: relu's derivative.
        times: Whether the product is multiplied by ``above`` instead.
    """

    out: Float[Tensor, "cell row column"]
    left: Float[Tensor, "cell row inner"]
    right: Float[Tensor, "cell inner column"]
    factor: float = 1.0
    each: Float[Tensor, "cell 1 1"] | None = None
    also: Float[Tensor, "cell 1 1"] | None = None
    now: int | None = None
    add: bool = False
    sums: bool = False
    rectify: bool = False
    above: Float[Tensor, "cell row column"] | None = None
    times: bool = False


class Repeat(NamedTuple):
    """The next operations several times, each time on other samples of a batch: blocks that caches hold.

    Attributes:
        rows: How many operations.
        columns: How many times.
    """

    rows: int
    columns: int


class Transpose(NamedTuple):
    """A matrix with contiguous rows, transposed.

    Attributes:
        out: Written.
        left: The matrix.
    """

    out: Float[Tensor, "cell row column"]
    left: Float[Tensor, "cell column row"]


class Pick(NamedTuple):
    """Rows of a table, others at every step and in every block of it.

    Attributes:
        out: Written.
        left: The table; its rows are contiguous.
        places: Of the rows of all blocks.
    """

    out: Float[Tensor, "cell row column"]
    left: Float[Tensor, "#cell table column"]
    places: Int64[Tensor, "#step #cell place"]


class Loss(NamedTuple):
    """The loss of f = (left - right) / each, as in :mod:`runner.numerics.losses`, and its gradient.

    Attributes:
        name: Of the loss.
        out: The gradient with respect to ``left``.
        left: Outputs of the network.
        above: The targets, which under cross-entropy mark classes.
        each: gamma.
        total: The loss at every step.
        inner: Samples of the batch, of which these may be a block.
        right: Outputs at init, where they are subtracted.
    """

    name: str
    out: Float[Tensor, "cell sample output"]
    left: Float[Tensor, "cell sample output"]
    above: Float[Tensor, "#cell sample output"]
    each: Float[Tensor, "cell 1 1"]
    total: Float[Tensor, "step cell"]
    inner: int
    right: Float[Tensor, "#cell sample output"] | None = None


class Norm(NamedTuple):
    """``out = each * right * (left - mean) / sqrt(variance + factor)``, row by row.

    Attributes:
        out: Written.
        left: Rows to be standardized.
        right: Gain of every column.
        kept: Standardized rows, for :class:`NormBack`.
        more: One over the root, of every row, likewise.
        factor: Epsilon.
        each: Factor of each cell.
    """

    out: Float[Tensor, "cell row column"]
    left: Float[Tensor, "cell row column"]
    right: Float[Tensor, "cell 1 column"]
    kept: Float[Tensor, "cell row column"]
    more: Float[Tensor, "cell 1 row"]
    factor: float
    each: Float[Tensor, "cell 1 1"] | None = None


class NormBack(NamedTuple):
    """The gradients of what :class:`Norm` was given.

    Attributes:
        out: That of ``left`` there, is added to ``keep`` times what is here.
        left: Gradient with respect to what it wrote.
        right: As there.
        above: What it kept.
        more: As there.
        kept: That of the gain.
        each: As there.
        keep: 0 or 1.
        sums: Whether ``kept`` is a sum over the blocks of a step.
    """

    out: Float[Tensor, "cell row column"]
    left: Float[Tensor, "cell row column"]
    right: Float[Tensor, "cell 1 column"]
    above: Float[Tensor, "cell row column"]
    more: Float[Tensor, "cell 1 row"]
    kept: Float[Tensor, "cell 1 column"]
    each: Float[Tensor, "cell 1 1"] | None = None
    keep: float = 0.0
    sums: bool = False


class Attend(NamedTuple):
    """``softmax(each * queries @ keys^T) @ values`` in every head of every sample.

    Attributes:
        out: Written.
        left: Queries, keys and values side by side, in heads.
        kept: The softmax, of all positions of all heads of all samples.
        inner: Numbers of a head.
        positions: Rows of a sample.
        causal: Whether a position sees only itself and those before it.
        each: Factor of each cell.
    """

    out: Float[Tensor, "cell row column"]
    left: Float[Tensor, "cell row 3*column"]
    kept: Float[Tensor, "cell row*head position"]
    inner: int
    positions: int
    causal: bool
    each: Float[Tensor, "cell"]


class AttendBack(NamedTuple):
    """The gradient of what :class:`Attend` was given.

    Attributes:
        out: Written.
        left: As there.
        right: Gradient with respect to what it wrote.
        above: What it kept.
        more: Room.
        inner: As there; so are the next.
        positions: Rows of a sample.
        each: Factor of each cell.
    """

    out: Float[Tensor, "cell row 3*column"]
    left: Float[Tensor, "cell row 3*column"]
    right: Float[Tensor, "cell row column"]
    above: Float[Tensor, "cell row*head position"]
    more: Float[Tensor, "cell position position"]
    inner: int
    positions: int
    each: Float[Tensor, "cell"]


class Curve(NamedTuple):
    """A function of every number, and its derivative.

    Attributes:
        name: ``relu``, without a gain, ``gelu``, ``tanh`` or ``erf``.
        out: Written.
        left: The numbers.
        kept: The derivative; may be ``left``.
    """

    name: str
    out: Float[Tensor, "cell row column"]
    left: Float[Tensor, "cell row column"]
    kept: Float[Tensor, "cell row column"]


class Blend(NamedTuple):
    """``out = keep * out + factor * each * now * term``, number by number; rows are contiguous.

    Attributes:
        term: ``itself``, ``square`` or ``sign`` of ``left``; ``ratio``: left / (sqrt(right) + also * then);
            ``times``: left * right.
        out: Written; may be an operand.
        keep: What remains of it; with 0 it is not read.
        factor: Of all cells.
        each: Factor of each cell.
        now: Column of the table of steps that has the factor of each step, if any.
        also: Of each cell.
        then: Column of the table of steps that has its factor, if any.
    """

    term: str
    out: Float[Tensor, "cell ..."]
    left: Float[Tensor, "cell ..."]
    right: Float[Tensor, "cell ..."] | None = None
    keep: float = 1.0
    factor: float = 1.0
    each: Float[Tensor, "cell 1 1"] | None = None
    now: int | None = None
    also: Float[Tensor, "cell 1 1"] | None = None
    then: int | None = None


Step = Operation | Transpose | Repeat | Pick | Loss | Norm | NormBack | Attend | AttendBack | Curve | Blend

_KINDS = (
    Operation, Transpose, Pick, Repeat, "mse", "cross_entropy", Norm, NormBack, Attend, AttendBack,
    "relu", "gelu", "tanh", "erf", "itself", "square", "sign", "ratio", "times",
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


_WHOLE = (
    "kind", "rows", "columns", "inner", "add", "sums", "rectify", "times", "now", "then", "positions",
    "causal",
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


class _Record(ctypes.Structure):
    """An operation as ``steps.c`` reads it."""

    _fields_ = _FIELDS


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
