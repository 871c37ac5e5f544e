"""The command line: the first word chooses, and only what that word needs is imported."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence

from runner.commands import claims, curves, export, fit, phase, report, transfer, verify
from runner.commands.options import Parser, add_store, store_of
from runner.errors import UserError, printable, unknown

EPILOGUE = """\
STORE is a folder written by `runner sweep`; the newest under outputs/ if left out.
`runner COMMAND --help` shows the options of a command, with examples."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 done, 1 cells failed or missing, 2 the user's mistake.

    Args:
        argv: Words after ``runner``; those of the process by default.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] in ("-sc", "--shell-completion"):
        words.insert(0, "sweep")  # Hydra's completion calls the bare program
    if words[:1] == ["sweep"]:
        from runner.commands import sweep

        return sweep.main(words[1:])
    debug = "--debug" in words
    try:
        code = _dispatch([word for word in words if word != "--debug"])
        sys.stdout.flush()
        return code
    except UserError as error:
        if debug:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader, `head` say, has seen enough; keep the interpreter from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


def _dispatch(words: list[str]) -> int:
    """Run the command that the first word names."""
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if words[0] in ("-V", "--version"):
        from runner import __version__

        print(f"runner {__version__}")
        return 0
    if words[0] not in COMMANDS:
        raise unknown("command", words[0], ["sweep", *COMMANDS])
    run, parser_of = COMMANDS[words[0]][1:]
    parser = parser_of(
        Parser(prog=f"runner {words[0]}", formatter_class=argparse.RawDescriptionHelpFormatter)
    )
    return run(parser.parse_args(words[1:]))


def _status(options: argparse.Namespace) -> int:
    from runner.store.status import status
    from runner.views.listing import status_json, status_lines

    report = status(store_of(options))
    if options.json:
        print(status_json(report))
    else:
        print("\n".join(map(printable, status_lines(report, options.failures))))
    return 0


def _schema(options: argparse.Namespace) -> int:
    from runner.schema import TABLES
    from runner.views.listing import schema_json, schema_lines

    if options.table is not None and options.table not in TABLES:
        raise unknown("TABLE", options.table, TABLES)
    tables = [options.table] if options.table else list(TABLES)
    print(schema_json(tables) if options.json else "\n".join(schema_lines(tables)))
    return 0


def _status_parser(parser: Parser) -> Parser:
    parser.description = "How far a store is: cells done, diverged, failed and missing, jobs at work."
    parser.epilog = "examples:\n  runner status\n  runner status outputs/digits --failures"
    add_store(parser)
    parser.add_argument(
        "--failures", action="store_true", help="show every failed cell and where its traceback is"
    )
    return parser


def _schema_parser(parser: Parser) -> Parser:
    parser.description = "Every column of the tables: type, unit, meaning."
    parser.epilog = "examples:\n  runner schema\n  runner schema layers\n  runner schema cells --json"
    parser.add_argument("table", nargs="?", metavar="TABLE", help="cells, trace or layers")
    parser.add_argument("--json", action="store_true", help="for machines")
    return parser


def _overview() -> str:
    lines = ["usage: runner COMMAND ...", "", "Phase diagrams of lazy and feature-learning training.", ""]
    rows = [
        ("sweep [OVERRIDES]", "train a grid: runner sweep width=64,256 lr=0.1,1 parameterization=ntk,mup")
    ]
    rows += [(usage, help) for usage, help in ((COMMANDS[name][0], _HELP[name]) for name in COMMANDS)]
    return "\n".join([*lines, *(f"  {usage:<20}{help}" for usage, help in rows), "", EPILOGUE])


_HELP = {
    "status": "how far a store is, and what failed",
    "phase": "the phase diagram, in the terminal or as SVG, PNG, PDF",
    "fit": "exponents against width, with intervals, beside theory",
    "curves": "measures over training, in the terminal or as a figure",
    "transfer": "the best learning rate at each width, and its drift",
    "report": "one HTML page to look at, offline: diagram, curves, fits, provenance",
    "export": "the cells as CSV, or as runs for wandb, mlflow, tensorboard",
    "claims": "the theory put to the test: 17 claims, measured, with verdicts",
    "verify": "whether a store can be trusted: every byte read, and held against the plans",
    "schema": "every column of the tables: type, unit, meaning",
}
COMMANDS: dict[str, tuple[str, Callable[[argparse.Namespace], int], Callable[[Parser], Parser]]] = {
    "status": ("status [STORE]", _status, _status_parser),
    "phase": ("phase [STORE]", phase.run, phase.parser_of),
    "fit": ("fit [STORE]", fit.run, fit.parser_of),
    "curves": ("curves [STORE]", curves.run, curves.parser_of),
    "transfer": ("transfer [STORE]", transfer.run, transfer.parser_of),
    "report": ("report [STORE]", report.run, report.parser_of),
    "export": ("export [STORE]", export.run, export.parser_of),
    "claims": ("claims [IDS]", claims.run, claims.parser_of),
    "verify": ("verify [STORE]", verify.run, verify.parser_of),
    "schema": ("schema [TABLE]", _schema, _schema_parser),
}

if __name__ == "__main__":
    sys.exit(main())
