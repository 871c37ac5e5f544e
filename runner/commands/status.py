"""``runner status``: how far a store is; needs neither pandas nor rich, and answers in a blink."""

import argparse
import dataclasses
import json
from collections.abc import Iterator
from typing import Any

from runner.commands.command import Command
from runner.commands.options import Parser, add_store, store_of
from runner.errors import printable
from runner.store.status import Counts, StatusReport, status

_MOST_LAUNCHES = 10


def run(options: argparse.Namespace) -> int:
    """Print how far a store is."""
    report = status(store_of(options))
    if options.json:
        print(json.dumps(dataclasses.asdict(report) | {"running": report.running}, indent=1, default=str))
    else:
        print("\n".join(map(printable, _lines(report, options.failures))))
    return 0


def _lines(report: StatusReport, failures: bool) -> Iterator[str]:
    """Yield how far a store is, line by line; every failed cell, or only the last error."""
    yield f"store     {report.path}"
    yield f"newest    {_counts(report.newest)}"
    if report.all != report.newest:
        yield f"all       {_counts(report.all)}"
    if report.launches:
        newest = report.launches[-1]
        if newest.refine:
            yield f"refining  {_round(newest.refine)}"
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


def _round(refine: dict[str, Any]) -> str:
    """Return in words which round of a refinement a launch is."""
    known = "" if refine["known_to"] is None else f", known to {refine['known_to']:.3g} before it"
    return (
        f"round {refine['round']}: {refine['of']} along {refine['along']} to {refine['tolerance']:g}{known}"
    )


def _counts(counts: Counts) -> str:
    """Return counts of cells in words; what there is none of is left out, but not what was planned."""
    parts = [f"{counts.done} of {counts.planned} cells done"]
    for name in ("diverged", "failed", "missing"):
        if getattr(counts, name):
            parts.append(f"{getattr(counts, name)} {name}")
    return ", ".join(parts)


def _options(parser: Parser) -> None:
    add_store(parser)
    parser.add_argument(
        "--failures", action="store_true", help="show every failed cell and where its traceback is"
    )


COMMAND = Command(
    "status",
    "How far a store is: cells done, diverged, failed and missing, jobs at work.",
    ("runner status", "runner status outputs/digits --failures"),
    _options,
    run,
)
