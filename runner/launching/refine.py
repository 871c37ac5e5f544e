"""Refining sweeps: rounds of cells that narrow the place where a property changes along a key.

A round is a launch like any other, of all cells so far and those that it adds. What a round adds follows
from the results of the cells before it alone, so that a sweep that was killed goes through the same rounds
again, finds most of their cells finished, and ends with the same tables.

Each line of cells, which differ by the key alone, is halved by itself: along one key nothing that asks one
cell at a time needs fewer, and rounds over all lines keep the packs full. (Learners of two dimensions, as in
the package `adaptive`, triangulate the plane and ask near the boundary everywhere: more cells for places
that theory wants per width.)
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from runner.analysis.boundary.crossing import crossings
from runner.errors import UserError
from runner.grid.cell import Cell, canonical_json
from runner.grid.cells import Cells
from runner.grid.config import cell_from_config, check_refinement, config_of_cell
from runner.grid.rules import REFINE_RULES
from runner.schema import CELLS, EXTREMES
from runner.store.files import disk_errors, try_lock

if TYPE_CHECKING:
    from runner.analysis.boundary.properties import Property
    from runner.store import Store

_ROUNDING = 1e-6
"""Decades that values lose in six digits."""
Ended = Literal["tolerance", "most", "absent", "stuck"]


@dataclass(frozen=True, slots=True)
class Refinement:
    """What is to be narrowed, and how far.

    Attributes:
        along: Dotted key.
        of: The property, as :func:`runner.analysis.boundary.properties.property_of` reads it.
        tolerance: How far apart the two cells around a place may be: decades, or units of a key that is not
            positive.
        most: Cells beyond those of the grid; None is no limit.
    """

    along: str
    of: str
    tolerance: float
    most: int | None

    @classmethod
    def read(cls, section: Mapping[str, Any]) -> Refinement | None:
        """Return what the config's ``refine`` asks for; None where it asks for nothing.

        Raises:
            UserError: If a key is unknown or wrong, or one of ``along`` and ``of`` is missing.
        """
        keys = check_refinement(section)
        along, of, level = (keys.get(name) for name in ("along", "of", "level"))
        if along is None and of is None and level is None:
            return None
        if along is None or of is None:
            name = "along" if along is None else "of"
            remedy = REFINE_RULES[f"refine.{name}"].remedy
            raise UserError(f"refine.{name} must be set to refine, got null; {remedy}")
        return cls(along, of if level is None else f"{of}={level!r}", keys["tolerance"], keys["most"])


class Rounds:
    """The rounds of a refinement, one after the other.

    Args:
        how: What is narrowed.
        grid: The cells of the first round.

    Attributes:
        number: Of the round, from 1.
        cells: All cells of this round and those before it.
        ended: Why no round follows: ``tolerance`` (every place is known well enough), ``most`` (no cells are
            left to ask for), ``stuck`` (the cells that would narrow a place failed) or ``absent`` (the
            property changes nowhere); None if one does.
    """

    def __init__(self, how: Refinement, grid: Cells) -> None:
        self.how, self.number, self.cells = how, 1, Cells.join([grid])
        self.ended: Ended | None = None
        self._start = self._before = len(self.cells)
        self._lines = self._found = self._stuck = 0
        self._widest = math.nan

    def go_on(self, store: Store) -> None:
        """Go to the next round, whose cells follow from the results of all before, or end.

        In each line of cells, and at each end of the property there, the two neighbours around the place are
        halved while they are farther apart than the tolerance; where the cells allowed do not suffice, the
        widest first.

        Args:
            store: Holds the results of the cells so far.
        """
        from runner.analysis.boundary.properties import property_of

        asked = set(self.cells.ids().to_pylist())
        rows = store.cells
        rows = rows[rows["cell_id"].isin(asked)]
        what = property_of(store, rows, self.how.of)
        score = dict(zip(rows["cell_id"].astype(str), what.score.astype(float), strict=True))
        lines = _lines(self.cells, self.how.along)
        log = all(value > 0 for line in lines for value in line.values)
        gaps = [list(line.gaps(score, what, log)) for line in lines]
        wanted = [
            (gap.width, middle)
            for line, found in zip(lines, gaps, strict=True)
            for gap in found
            if gap.width > self.how.tolerance + _ROUNDING and (middle := line.between(gap, log))
        ]
        self._lines, self._found = len(lines), sum(map(bool, gaps))
        self._widest = max((gap.width for found in gaps for gap in found), default=math.nan)
        self._before = len(self.cells)
        # A cell in the middle that failed, or has no value there, says nothing by being asked for again.
        fresh = [one for one in wanted if one[1].cell_id not in asked]
        most = self.how.most
        allowed = len(fresh) if most is None else max(most - (self._before - self._start), 0)
        chosen = [cell for _, cell in sorted(fresh, key=lambda one: -one[0])[:allowed]]
        if chosen:
            self.number += 1
            self.cells = Cells.join([self.cells, Cells.of(chosen)])
        else:
            self._stuck = len(wanted) - len(fresh)
            ended: Ended = "most" if fresh else "stuck" if wanted else "tolerance"
            self.ended = ended if self._found else "absent"

    def announcement(self) -> str:
        """Return in a line what the round is for."""
        return (
            f"round {self.number}: {len(self.cells) - self._before} cells to narrow {self._what}, "
            f"known to {self._width} in {self._found} of {self._lines} lines"
        )

    def verdict(self) -> str:
        """Return in a line why refining ended, and what it found."""
        if self.ended == "absent":
            return f"not refined: {self._what} changes nowhere between the cells of the grid; widen its range"
        ended = {
            "most": f"refining ended at refine.most={self.how.most}",
            "stuck": f"refining ended at {self._stuck} cells that failed or say nothing",
        }.get(str(self.ended), "refined")
        lacking = self._lines - self._found
        return (
            f"{ended}: {self._what} is known to {self._width}; {self.number} "
            f"round{'s' if self.number > 1 else ''}, {len(self.cells) - self._start} cells beyond the grid's"
            + (f"; {lacking} of {self._lines} lines of cells have no such place" if lacking else "")
        )

    def record(self) -> dict[str, Any]:
        """Return what the record of the round's launch says of it."""
        known = None if math.isnan(self._widest) else self._widest
        return {**asdict(self.how), "round": self.number, "known_to": known, "start": self._start}

    @property
    def _what(self) -> str:
        return f"{self.how.of} along {self.how.along}"

    @property
    def _width(self) -> str:
        positive = all(_value(cell, self.how.along) > 0 for cell in self.cells)
        return f"{self._widest:.3g} {'decades' if positive else f'of {self.how.along}'}"


def outlook(how: Refinement) -> str:
    """Return in a line what follows the first round."""
    count = "cells" if how.most is None else f"at most {how.most} cells"
    return f"then rounds of {count} that narrow {how.of} along {how.along} to {how.tolerance:g}"


def check(how: Refinement, cells: Cells, ties: list[list[str]]) -> None:
    """Refuse, before anything is trained, a refinement that these cells cannot have.

    Args:
        cells: The grid.
        ties: Groups of keys whose axes run together.

    Raises:
        UserError: If the key is no axis with numbers, is tied, or the property is unknown or not measured.
    """
    from runner.analysis.boundary.properties import required_columns

    if any(how.along in group for group in ties):
        raise UserError(f"refine.along must be an axis of its own, got {how.along}, which zip ties; untie it")
    lines = _lines(cells, how.along)
    if max(len(line.values) for line in lines) < 2:
        raise UserError(
            f"refine.along must be an axis with several values to start from, got {how.along} with "
            f"{', '.join(f'{value:g}' for value in lines[0].values)}; e.g. {how.along}='logspace(-3,1,9)'"
        )
    try:
        needed = required_columns(how.of)
    except UserError as error:
        raise UserError(str(error).replace("--of", "refine.of", 1)) from None
    for settings in cells.column("settings").values:
        measured = _columns_of(settings)
        if needed and measured is not None and not measured.intersection(needed):
            raise UserError(
                f"refine.of must be measured, got {how.of} of cells without {' or '.join(needed)}; "
                "choose another measure=..."
            )


@contextmanager
def alone(store: Path) -> Iterator[None]:
    """Hold, in this block, the right to refine a store.

    Raises:
        UserError: If another sweep has it.
    """
    with disk_errors(store):
        store.mkdir(parents=True, exist_ok=True)
        file = (store / ".refine.lock").open("ab")
    with file:
        if try_lock(file) is False:
            raise UserError(
                f"store must be refined by one sweep at a time, got {store}, which another one refines; "
                "wait for it, or choose another store=FOLDER"
            )
        yield


@dataclass(frozen=True, slots=True)
class _Gap:
    """Two neighbours around a place; the width is in decades, or in units of a key that is not positive."""

    low: float
    high: float
    width: float


@dataclass(frozen=True, slots=True)
class _Line:
    """Cells that differ by one key alone, in its order."""

    along: str
    values: list[float]
    cells: list[Cell]

    def gaps(self, score: Mapping[str, float], what: Property, log: bool) -> Iterator[_Gap]:
        """Yield the neighbours around each end of the property, from the scores of its cells by id."""
        known = np.array([score.get(cell.cell_id, math.nan) for cell in self.cells])
        values = np.array(self.values, float)
        at = crossings(values, known, what.level, lasts=what.lasts, smooth=what.smooth, log=log)
        measured = values[~np.isnan(known)]
        for end in (at.begins, at.ends):
            if end:
                place = min(max(int(np.searchsorted(measured, end.place)), 1), len(measured) - 1)
                low, high = float(measured[place - 1]), float(measured[place])
                yield _Gap(low, high, math.log10(high / low) if log else high - low)

    def between(self, gap: _Gap, log: bool) -> Cell | None:
        """Return a cell in the middle, rounded to six digits; None where there is no value between."""
        middle = math.sqrt(gap.low * gap.high) if log else (gap.low + gap.high) / 2
        config = config_of_cell(self.cells[0])
        parent, last = _parent(config, self.along)
        whole = all(isinstance(_value(cell, self.along), int) for cell in self.cells)
        value = round(middle) if whole else float(f"{middle:.6g}")
        if value in (gap.low, gap.high):
            return None
        parent[last] = value
        return cell_from_config(config)


def _lines(cells: Cells, along: str) -> list[_Line]:
    """Return the cells in lines along a key.

    Raises:
        UserError: If a cell has no such key or no number there.
    """
    found: dict[str, list[tuple[float, Cell]]] = {}
    for cell in cells:
        value = _value(cell, along)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise UserError(f"refine.along must be a key with numbers, got {along} with {value!r}")
        config = config_of_cell(cell)
        parent, last = _parent(config, along)
        del parent[last]
        found.setdefault(canonical_json(config), []).append((float(value), cell))
    lines = (sorted(line, key=lambda one: one[0]) for line in found.values())
    return [_Line(along, [value for value, _ in line], [cell for _, cell in line]) for line in lines]


def _value(cell: Cell, along: str) -> Any:
    parent, last = _parent(config_of_cell(cell), along)
    return parent[last]


def _parent(config: dict[str, Any], along: str) -> tuple[dict[str, Any], str]:
    """Return the map that holds a dotted key, and its last part."""
    *parents, last = along.split(".")
    place: Any = config
    for part in parents:
        place = place.get(part) if isinstance(place, dict) else None
    if not isinstance(place, dict) or last not in place:
        raise UserError(f"refine.along must be a key of every cell, got {along}; e.g. refine.along=lr")
    return place, last


def _columns_of(settings: str) -> set[str] | None:
    """Return the columns of ``cells`` that such cells get; None where a measure does not say."""
    from runner.measures.catalog import BY_NAME, MEASURES
    from runner.measures.schedule import scheduled

    of_measures = {column.name for measure in MEASURES for column in (*measure.trace, *measure.init)}
    found = {column.name for column in CELLS} - of_measures
    for one in scheduled(json.loads(settings)["measure"]).values():
        declared = one.declared
        if declared.name not in BY_NAME and not declared.trace and not declared.layers:
            return None
        found |= {column.name for column in (*declared.trace, *declared.init)}
    return found - {name for name, (source, _) in EXTREMES.items() if source in of_measures - found}
