"""What compiled code can do in a step of many cells; :class:`runner.numerics.steps.Program` has it done."""

from typing import NamedTuple

from jaxtyping import Float, Int64
from torch import Tensor

from runner.numerics.images import Convolve, ConvolveBack, Pool, PoolBack


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


class OneHot(NamedTuple):
    """A row for every symbol, with 1 in its column.

    Attributes:
        out: Written.
        left: Whole numbers.
        positions: Of a row of ``left``.
    """

    out: Float[Tensor, "cell row*position column"]
    left: Float[Tensor, "#cell row position"]
    positions: int


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
            ``times``: left * right; ``gate``: left where right is not at or below 0.
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


Step = (
    Operation
    | Convolve
    | ConvolveBack
    | Pool
    | PoolBack
    | Transpose
    | Repeat
    | Pick
    | OneHot
    | Loss
    | Norm
    | NormBack
    | Attend
    | AttendBack
    | Curve
    | Blend
)
