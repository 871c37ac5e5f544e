"""``runner verify``: whether a store can be trusted, and what to do where it cannot."""

import argparse
import json
from dataclasses import asdict

from runner.commands.command import Command
from runner.commands.options import Parser, add_store, store_of
from runner.errors import UserError, printable
from runner.store.verify import repair, verify


def run(options: argparse.Namespace) -> int:
    """Run ``runner verify`` and return the exit code: 0 if the store is sound, 1 if not.

    Raises:
        UserError: There is no store, it cannot be written, or a newer version wrote it.
    """
    if options.rerun < 0:
        raise UserError(f"--rerun must be a number of cells >= 0, got {options.rerun}; e.g. --rerun 3")
    store = store_of(options)
    done = repair(store) if options.repair else ()
    report = verify(store)
    compared = 0
    if options.rerun and not report.problems:
        from runner.launching.rerun import rerun

        compared, differences = rerun(store, options.rerun, options.trust)
        report.problems += differences
    if options.json:
        content = {**asdict(report), "path": str(store), "repaired": done, "compared": compared}
        print(json.dumps(content, indent=1))
        return int(bool(report.problems))
    lines = [f"store     {store}", *(f"repaired  {line}" for line in done)]
    rows = ", ".join(f"{count} rows of {table}" for table, count in report.rows.items())
    lines.append(f"read      {report.parts} parts, {report.launches} launches; {rows or 'no rows'}")
    if report.trained_twice:
        lines.append(f"note      {report.trained_twice} cells were trained twice; each counts once")
    if compared:
        lines.append(f"rerun     {compared} cells trained again and compared")
    for problem in report.problems:
        lines += [f"problem   {problem.text}", f"          {problem.repair}"]
    lines.append("not sound" if report.problems else "sound")
    print("\n".join(map(printable, lines)))
    return int(bool(report.problems))


def _options(parser: Parser) -> None:
    add_store(parser)
    parser.add_argument(
        "--repair",
        action="store_true",
        help="set damaged files aside and drop the cells that lost rows by it",
    )
    parser.add_argument(
        "--rerun",
        type=int,
        default=0,
        metavar="N",
        help="train N random finished cells again and compare each bit",
    )
    parser.add_argument(
        "--trust",
        action="store_true",
        help="with --rerun: call code that the store names and that is not runner's",
    )


COMMAND = Command(
    "verify",
    "Read every byte of a store: checksums, schema, ids, rows that are missing or there twice, cells of the "
    "plans that have no result. Says how to repair; changes nothing without --repair.",
    ("runner verify", "runner verify outputs/digits --repair", "runner verify outputs/digits --rerun 3"),
    _options,
    run,
)
