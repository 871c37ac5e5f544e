"""What a measure declares of itself: its columns, what it requires, what it costs, what cells share of it.

Free of torch and pandas, so that ``runner schema`` answers at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Literal, TypeVar

if TYPE_CHECKING:
    from runner.measures.requirements import Requirement

ColumnType = Literal["string", "int64", "float64", "bool"]
Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    Attributes:
        name: As in the Parquet files.
        type: Arrow type name.
        unit: Physical or logical unit; ``1`` for a pure ratio, empty for names.
        meaning: One sentence.
        nullable: Whether null (not NaN) is a legitimate value: "not measured" or "does not apply".
    """

    name: str
    type: ColumnType
    unit: str
    meaning: str
    nullable: bool = True


@dataclass(frozen=True, slots=True)
class Sizes:
    """What the cost of a measure follows from; times are those of one cell on the machine planned for.

    Attributes:
        train: Training samples.
        test: Test samples.
        probe: Probe samples.
        outputs: Network outputs.
        positions: Predictions of a sample.
        passes: Seconds of one training step on all training samples.
        kernel: Seconds of a trace kernel, from its rows and columns.
        precise_kernel: Seconds of a kernel of the training set in float64, from its pairs of outputs.
        decomposition: Seconds of all eigenvalues of a matrix, from its rows.
    """

    train: int
    test: int
    probe: int
    outputs: int
    positions: int
    passes: float
    kernel: Callable[[int, int], float]
    precise_kernel: Callable[[int], float]
    decomposition: Callable[[int], float]


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds that a measure takes, by the name of the work: measures that name the same work share it.

    Attributes:
        init: Once for each network at init.
        point: For each cell at each measured step after that.
        step: For each cell at each optimizer step.
    """

    init: Mapping[str, float] = field(default_factory=dict)
    point: Mapping[str, float] = field(default_factory=dict)
    step: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def always(cls, work: str, seconds: float) -> Cost:
        """Return the cost of work that is done at init and at every measured step."""
        return cls({work: seconds}, {work: seconds})


@dataclass(frozen=True, slots=True)
class Measure:
    """The declaration of a measure.

    Attributes:
        name: Name of the function.
        module: Module of :mod:`runner.measures` that holds the function; empty for a user's own.
        trace: Columns of ``trace``, whose last values are also in ``cells``.
        layers: Columns of ``layers``.
        init: Columns of ``cells`` that keep the values of ``trace`` columns at init, named ``<column>_init``.
        best: Those of ``trace`` whose largest value along training ``cells`` has, too, as ``best_<column>``.
        in_cells: Whether the last values of ``trace`` columns are in ``cells``.
        of_init: Whether it says something of the init alone, which holds for a cell that diverges, too.
        requires: What a cell must be for the measure to have a meaning; each raises UserError if it is not.
        requires_cell: The same, called with the measure's name and the cell instead of its groups.
        cost: From sizes and the measure's options to seconds; None if it is small beside a training step on
            all samples.
        rows: From sizes and the measure's options to the rows that a cell gets in ``outputs`` at a measured
            step; None if it keeps no outputs.
        prepare: What computes, of the start alone, all that later calls take from it; called once, with the
            distinct starts of a pack and the options, and kept on the snapshot of the start. A name inside
            :mod:`runner.measures` or a function ``prepare(start, **options)``.
        paper: Paper that defines the quantity.
    """

    name: str
    module: str = ""
    trace: tuple[Column, ...] = ()
    layers: tuple[Column, ...] = ()
    init: tuple[Column, ...] = ()
    best: tuple[str, ...] = ()
    in_cells: bool = True
    of_init: bool = False
    requires: tuple[Requirement, ...] = ()
    requires_cell: tuple[Callable[[str, Any], None], ...] = ()
    cost: Callable[[Sizes, Mapping[str, Any]], Cost] | None = None
    rows: Callable[[Any, Mapping[str, Any]], int] | None = None
    prepare: str | Callable[..., object] | None = None
    paper: str = ""

    def price(self, sizes: Sizes, options: Mapping[str, Any]) -> Cost:
        """Return what the measure takes with these options; nothing where it declares no cost."""
        return Cost() if self.cost is None else self.cost(sizes, options)

    def prepare_start(self, start: Any, options: Mapping[str, Any]) -> None:
        """Compute what later calls take from the start; see ``prepare``.

        Args:
            start: Snapshot of the distinct starts of a pack.
        """
        if self.prepare is not None:
            prepare = _named(self.prepare) if isinstance(self.prepare, str) else self.prepare
            prepare(start, **options)


def columns(**declared: tuple[str, str]) -> tuple[Column, ...]:
    """Return columns of numbers from name to unit and meaning."""
    return tuple(Column(name, "float64", unit, meaning) for name, (unit, meaning) in declared.items())


def declare(
    *,
    trace: Mapping[str, tuple[str, str]] | None = None,
    layers: Mapping[str, tuple[str, str]] | None = None,
    requires: tuple[Requirement, ...] = (),
    cost: Callable[[Sizes, Mapping[str, Any]], Cost] | None = None,
    prepare: Callable[..., object] | None = None,
) -> Callable[[Function], Function]:
    """Return a decorator that declares a measure of one's own; every part of the declaration is optional.

    Args:
        trace: Column of ``trace`` and ``cells`` to its unit and meaning; both go into the Parquet files.
        layers: Column of ``layers`` to its unit and meaning.
        requires: As in :class:`Measure`.
        cost: As in :class:`Measure`.
        prepare: As in :class:`Measure`.
    """

    def decorate(function: Function) -> Function:
        function.__measure__ = Measure(  # type: ignore[attr-defined]
            getattr(function, "__name__", "measure"),
            trace=columns(**trace or {}),
            layers=columns(**layers or {}),
            requires=requires,
            cost=cost,
            prepare=prepare,
        )
        return function

    return decorate


def _named(path: str) -> Any:
    """Return what a dotted name inside :mod:`runner.measures` stands for: a module, then attributes."""
    module, _, rest = path.partition(".")
    return attrgetter(rest)(import_module(f"runner.measures.{module}"))
