"""Whether a store can be trusted: every byte is read, every table compared with the others and the plans.

A repair deletes nothing: what cannot be read is moved to ``damaged/`` inside the store, and the cells that
lost rows by it are dropped from ``cells``, so that the same sweep command trains them again.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from runner.errors import UserError
from runner.grid.cell import ID_VERSION
from runner.grid.cells import Cells
from runner.schema import KEYS, TABLES
from runner.store.arrow import conform
from runner.store.files import disk_errors
from runner.store.launches import (
    launch_ids,
    read_config,
    read_launch,
    read_plan,
    refresh_summary,
    summary_is_read,
)
from runner.store.parts import check_digest, merged_schema, read_part, read_table, readable, scan
from runner.store.tables import compact

DAMAGED = "damaged"
_ROW_COUNTS = {"trace": "trace_rows", "layers": "layer_rows", "outputs": "output_rows"}


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as it was written, on one line, and what to do about it."""

    text: str
    repair: str


@dataclass
class Report:
    """What ``runner verify`` found.

    Attributes:
        rows: Number of rows read, by table.
        trained_twice: Number of cells with a result in more than one part; one of them counts.
    """

    path: Path
    parts: int = 0
    rows: dict[str, int] = field(default_factory=dict)
    launches: int = 0
    trained_twice: int = 0
    problems: list[Problem] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Damage:
    path: Path
    reason: str


def verify(store: Path) -> Report:
    """Read all of a store and return what is wrong with it; changes nothing.

    Raises:
        UserError: There is no store, or it was written by a newer version.
    """
    _check_exists(store)
    report = Report(store)
    damaged = _damage(store, report)
    for damage in damaged:
        name = damage.path.relative_to(store)
        report.problems.append(
            Problem(f"{name} is damaged: {damage.reason}", "`runner verify --repair` sets it aside")
        )
    if any(damage.path.parent.name in TABLES for damage in damaged):
        return report  # tables can be compared only when all can be read
    if report.launches and not summary_is_read(store):
        report.problems.append(
            Problem("sweep.yaml is not that of the newest launch", "`runner verify --repair` writes it anew")
        )
    report.trained_twice = _trained_twice(store)
    if lost := _incomplete(store):
        report.problems.append(
            Problem(
                f"{len(lost)} cells have lost rows of trace or layers, e.g. {min(lost)}",
                "`runner verify --repair` drops them, then the same sweep command trains them again",
            )
        )
    report.problems += _missing(store)
    return report


def repair(store: Path) -> tuple[str, ...]:
    """Set aside what is damaged and drop the cells that lost rows by it.

    Returns:
        What was done, line by line.

    Raises:
        UserError: There is no store, or it cannot be written.
    """
    _check_exists(store)
    done = _set_aside(store, _damage(store, Report(store)))
    if lost := _incomplete(store):
        compact(store, without=lost)
        done.append(f"dropped {len(lost)} cells that had lost rows; the same sweep command trains them again")
    if launch_ids(store) and not summary_is_read(store):
        refresh_summary(store)
        done.append("wrote sweep.yaml anew, from the launches' records")
    return tuple(done)


def set_aside_unreadable(store: Path) -> tuple[str, ...]:
    """Repair at the start of a launch: only what shows without reading every byte."""
    done = _set_aside(store, _damaged(store, _open_part, Report(store)))
    if done and (lost := _incomplete(store)):
        compact(store, without=lost)
        done.append(f"{len(lost)} cells had rows in them and are trained again")
    return tuple(done)


def _check_exists(store: Path) -> None:
    if not any((store / name).is_dir() for name in ("cells", "launches")):
        raise UserError(f"STORE must be a folder written by `runner sweep`, got {store}; run `runner sweep`")


def _set_aside(store: Path, damaged: Iterable[_Damage]) -> list[str]:
    done = []
    for damage in damaged:
        name = damage.path.relative_to(store)
        target = store / DAMAGED / name
        with disk_errors(store):
            target.parent.mkdir(parents=True, exist_ok=True)
            while target.exists():
                target = target.with_name(f"{target.name}.again")
            os.replace(damage.path, target)  # noqa: PTH105 (as in runner.store.files)
        done.append(f"set aside {name} ({damage.reason}), now {target.relative_to(store)}")
    return done


def _damage(store: Path, report: Report) -> list[_Damage]:
    return [*_damaged(store, _check_part, report), *_damaged_launches(store, report)]


def _damaged(store: Path, check: Callable[[Path, str], int], report: Report) -> Iterator[_Damage]:
    """Yield the parts that do not pass a check, and count them and their rows."""
    for table in TABLES:
        for path in sorted((store / table).glob("part-*.parquet")):
            rows = 0
            try:
                rows = check(path, table)
            except FileNotFoundError:
                continue  # a compaction removed it meanwhile
            except UserError as error:
                if "schema version" in str(error):  # written by a newer version, and not damaged
                    raise
                reason = str(error.__cause__ or error).splitlines() or [type(error.__cause__).__name__]
                yield _Damage(path, reason[0])
            report.parts += 1
            report.rows[table] = report.rows.get(table, 0) + rows


def _open_part(path: Path, table: str) -> int:
    """Read what a launch reads, the footer and the keys of ``cells``, and return the number of rows."""
    part = read_part(path, table, ["cell_id", "status"] if table == "cells" else [])
    return int(part.rows.num_rows)


def _check_part(path: Path, table: str) -> int:
    """Read a part whole, compare it with its checksums and the schema, and return the number of rows."""
    check_digest(path)
    part = read_part(path, table)
    with readable(path):
        rows = conform(part.rows, merged_schema(table, [part]))
        for column in TABLES[table]:
            if not column.nullable and column.name in part.names and rows[column.name].null_count:
                raise ValueError(f"column {column.name} has nulls")
        keys = rows.select(list(KEYS[table]))
        if keys.group_by(list(KEYS[table])).aggregate([]).num_rows < rows.num_rows:
            raise ValueError("a row occurs twice")
        if table == "cells":
            _check_ids(rows)
    return int(rows.num_rows)


def _check_ids(rows: pa.Table) -> None:
    """Raise ValueError if a cell's values are not those that its id was made of."""
    ours = rows.filter(pc.starts_with(rows["cell_id"], f"{ID_VERSION}-"))
    wrong = ours["cell_id"].filter(pc.not_equal(ours["cell_id"], Cells.from_arrow(ours).ids()))
    if len(wrong):
        raise ValueError(f"the config of cell {wrong[0]} is not what it was trained with")


def _damaged_launches(store: Path, report: Report) -> Iterator[_Damage]:
    """Yield the folders of launches whose record, config or plan cannot be read."""
    readers: tuple[Callable[[Path, str], Any], ...] = (read_launch, read_config, read_plan)
    for path in sorted((store / "launches").glob("*/launch.json")):
        try:
            for read in readers:
                read(store, path.parent.name)
        except (UserError, FileNotFoundError) as error:
            if "schema version" in str(error):
                raise
            yield _Damage(path.parent, " ".join(str(error.__cause__ or error).split()))
        report.launches += 1


def _trained_twice(store: Path) -> int:
    found: Counter[str] = Counter()
    for part in scan(store, "cells", ["cell_id", "status"])[0]:
        trained = part.rows.filter(pc.not_equal(part.rows["status"], "failed"))
        found.update(trained["cell_id"].to_pylist())
    return sum(count > 1 for count in found.values())


def _incomplete(store: Path) -> set[str]:
    """Return the cells that have fewer rows in the other tables than they had when they were written."""
    lost: set[str] = set()
    cells = read_table(store, "cells", ["cell_id", *_ROW_COUNTS.values()]).to_pydict()
    for table, column in _ROW_COUNTS.items():
        counted = read_table(store, table, ["cell_id"])["cell_id"].value_counts().to_pylist()
        there = {item["values"]: item["counts"] for item in counted}
        pairs = zip(cells["cell_id"], cells[column], strict=True)
        lost |= {cell_id for cell_id, rows in pairs if rows is not None and there.get(cell_id, 0) != rows}
    return lost


def _missing(store: Path) -> Iterator[Problem]:
    """Yield the launches whose cells have no row; a cell counts for the newest launch that asks for it."""
    there = set(read_table(store, "cells", ["cell_id"])["cell_id"].to_pylist())
    for path in sorted((store / "launches").glob("*/launch.json"), reverse=True):
        launch = path.parent.name
        with suppress(UserError):
            asked = set(read_plan(store, launch, ["cell_id"])["cell_id"].to_pylist())
            if gone := asked - there:
                command = read_launch(store, launch)["command"]
                yield Problem(
                    f"{len(gone)} of {len(asked)} cells of launch {launch} are missing", f"run: {command}"
                )
                there |= gone
