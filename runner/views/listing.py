"""What needs neither pandas nor rich and answers in a blink: a store's status, the columns of its tables."""

from __future__ import annotations

import dataclasses
import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.schema import SCHEMA_VERSION, TABLES

if TYPE_CHECKING:
    from runner.store.status import Counts, StatusReport

_WIDTH = 100
_MOST_LAUNCHES = 10


def status_lines(report: StatusReport, failures: bool) -> Iterator[str]:
    """Yield how far a store is, line by line.

    Args:
        report: As returned by :func:`runner.store.status.status`.
        failures: Whether to show every failed cell, not only how many there are.
    """
    yield f"store     {report.path}"
    yield f"newest    {_counts(report.newest)}"
    if report.all != report.newest:
        yield f"all       {_counts(report.all)}"
    if report.launches:
        newest = report.launches[-1]
        running = [shard for shard in newest.shards if shard.state == "running"]
        states = {
            state: sum(shard.state == state for shard in newest.shards)
            for state in ("queued", "waiting", "preempted", "stopped")
        }
        words = [f"{len(running)} running"] + [f"{count} {state}" for state, count in states.items() if count]
        if running or any(states.values()):
            yield f"shards    {', '.join(words)} of {len(newest.shards)}"
        for shard in running:
            yield (
                f"          shard {shard.shard}: {shard.cells_done} of {shard.cells} cells, "
                f"{shard.host} pid {shard.pid}"
            )
        if newest.counts.missing and not running and not states["queued"]:
            yield f"resume    {newest.command}"
    yield "launches"
    hidden = len(report.launches) - _MOST_LAUNCHES
    if hidden > 0:
        yield f"  ... {hidden} earlier"
    for launch in report.launches[-_MOST_LAUNCHES:]:
        yield f"  {launch.started[:19].replace('T', ' ')}  {_counts(launch.counts)}"
        yield f"    {launch.command}"
    if report.failures and not failures:
        yield f"failed    {report.failures[-1].error}"
        yield f"          runner status {report.path} --failures shows all"
    elif failures:
        yield "failures" if report.failures else "failures  none"
        for failure in report.failures:
            yield f"  {failure.cell_id}  {failure.error}"
            if failure.traceback:
                yield f"    {failure.traceback}"


def status_json(report: StatusReport) -> str:
    """Return the report as JSON."""
    content = dataclasses.asdict(report) | {"running": report.running}
    return json.dumps(
        content, indent=1, default=lambda value: str(value) if isinstance(value, Path) else value
    )


def schema_lines(tables: list[str]) -> Iterator[str]:
    """Yield the columns of tables: name, type, unit, meaning."""
    for table in tables:
        columns = TABLES[table]
        name, unit = (max(len(getattr(column, key)) for column in columns) for key in ("name", "unit"))
        yield f"{table}: one row per {_ROWS[table]}"
        for column in columns:
            lead = f"  {column.name:<{name}}  {column.type:<7}  {column.unit:<{unit}}  "
            meaning = column.meaning + ("" if column.nullable else " (never null)")
            yield from textwrap.wrap(
                meaning,
                _WIDTH,
                initial_indent=lead,
                subsequent_indent=" " * len(lead),
                break_on_hyphens=False,
            )
        yield ""
    yield "Columns of your own measures follow these. --where, --facet, --x and --y also take the dotted keys"
    yield "of a config's groups: model.activation, data.train_size, parameterization.a.hidden."


def schema_json(tables: list[str]) -> str:
    """Return the columns of tables as JSON."""
    content: dict[str, Any] = {
        table: [dataclasses.asdict(column) for column in TABLES[table]] for table in tables
    }
    return json.dumps({"version": SCHEMA_VERSION, "tables": content}, indent=1)


_ROWS = {"cells": "cell", "trace": "cell and measured step", "layers": "cell, measured step and layer"}


def _counts(counts: Counts) -> str:
    """Return counts of cells in words; what there is none of is left out, but not what was planned."""
    parts = [f"{counts.done} of {counts.planned} cells done"]
    for name in ("diverged", "failed", "missing"):
        if getattr(counts, name):
            parts.append(f"{getattr(counts, name)} {name}")
    return ", ".join(parts)
