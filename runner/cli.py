"""The command line: the first word chooses, and only what that word needs is imported."""

from __future__ import annotations

import argparse
import difflib
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from runner import claims
from runner.errors import UserError, unknown

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
        from runner import app

        return app.main(words[1:])
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
        _Parser(prog=f"runner {words[0]}", formatter_class=argparse.RawDescriptionHelpFormatter)
    )
    return run(parser.parse_args(words[1:]))


def _status(options: argparse.Namespace) -> int:
    from runner.report.listing import status_json, status_lines
    from runner.store.status import status

    report = status(_store(options))
    if options.json:
        print(status_json(report))
    else:
        print("\n".join(status_lines(report, options.failures)))
    return 0


def _phase(options: argparse.Namespace) -> int:
    from runner.analysis.phase import Axes, boundary, phase_grid
    from runner.analysis.selection import choose, default_facets
    from runner.report.terminal import console, figure_title, print_phase
    from runner.store import load

    if options.out:
        from runner.report.charts import phase_chart
        from runner.report.figures import check_figure_path, write_figure

        check_figure_path(options.out)
    store = load(_store(options))
    cells = choose(store, options.where, options.all)
    if options.regime:
        from runner.config import load_thresholds
        from runner.regime import classify

        cells = cells.drop(columns=["regime", "catapult"]).join(
            classify(cells, load_thresholds(options.regime))
        )
    facets = default_facets(store, (options.x, options.y)) if options.facet is None else options.facet
    axes = Axes(options.x, options.y, facets, options.color)
    grid = phase_grid(cells, axes)
    if options.out:
        units = cells["lr_unit"].unique()
        chart = phase_chart(grid, axes, figure_title(cells, axes), str(units[0]) if len(units) == 1 else None)
        write_figure(chart, options.out)
    if options.json:
        _print_json(
            {"x": axes.x, "y": axes.y, "facets": axes.facets, "color": axes.color},
            rows=grid,
            boundary=boundary(grid, axes),
        )
        return 0
    print_phase(grid, axes, console())
    if options.out:
        print(f"figure: {options.out}")
    return 0


def _fit(options: argparse.Namespace) -> int:
    from runner.analysis.exponents import DEFAULT_METRICS, fit
    from runner.analysis.selection import choose, default_facets
    from runner.report.terminal import console, print_fit
    from runner.store import load

    store = load(_store(options))
    cells = choose(store, options.where, options.all)
    facets = default_facets(store, ("width",)) if options.facet is None else options.facet
    metrics = options.metric or DEFAULT_METRICS
    table = fit(cells, store.trace, store.layers, metrics, facets)
    if options.json:
        _print_json({"facets": facets}, rows=table)
    else:
        print_fit(table, facets, console())
    return 0


def _schema(options: argparse.Namespace) -> int:
    from runner.report.listing import schema_json, schema_lines
    from runner.schema import TABLES

    if options.table is not None and options.table not in TABLES:
        raise unknown("TABLE", options.table, TABLES)
    tables = [options.table] if options.table else list(TABLES)
    print(schema_json(tables) if options.json else "\n".join(schema_lines(tables)))
    return 0


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are a user's mistake like any other: one line, with the nearest option."""

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print."""
        hint = ""
        if message.startswith("unrecognized arguments:"):
            known = [option for action in self._actions for option in action.option_strings]
            near = difflib.get_close_matches(message.split()[2].partition("=")[0], known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"{message}{hint} (`{self.prog} --help` shows the options)")


def _status_parser(parser: _Parser) -> _Parser:
    parser.description = "How far a store is: cells done, diverged, failed and missing, jobs at work."
    parser.epilog = "examples:\n  runner status\n  runner status outputs/digits --failures"
    _add_store(parser)
    parser.add_argument(
        "--failures", action="store_true", help="show every failed cell and where its traceback is"
    )
    return parser


def _phase_parser(parser: _Parser) -> _Parser:
    parser.description = "The phase diagram: which regime at each point of the grid."
    parser.epilog = """\
examples:
  runner phase
  runner phase outputs/digits --out phase.pdf
  runner phase --color ntk_change --where parameterization=ntk,mup
  runner phase --y lr_sharpness --facet parameterization,depth --where model.activation=relu
  runner phase --x gamma --where width=256 --regime my_thresholds.yaml"""
    _add_store(parser)
    parser.add_argument("--x", default="width", metavar="KEY", help="numeric key across (width)")
    parser.add_argument("--y", default="lr", metavar="KEY", help="numeric key upwards (lr)")
    _add_selection(parser)
    parser.add_argument(
        "--color", default="regime", metavar="COLUMN", help="regime, or a numeric column (regime)"
    )
    parser.add_argument(
        "--regime", metavar="NAME|FILE", help="judge anew with conf/regime/NAME.yaml or a YAML file"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="also draw the figure: .svg, .png or .pdf")
    return parser


def _fit_parser(parser: _Parser) -> _Parser:
    parser.description = "Exponents: log-log slopes against width, with bootstrap intervals, beside theory."
    parser.epilog = """\
examples:
  runner fit outputs/width_scaling
  runner fit --metric ntk_change,feature_movement --where lr=1
  runner fit --metric layers.feature_movement --facet parameterization,depth --json"""
    _add_store(parser)
    parser.add_argument(
        "--metric", type=_keys, action=_Extend, metavar="M[,M]", help="numeric columns of any table"
    )
    _add_selection(parser)
    return parser


def _schema_parser(parser: _Parser) -> _Parser:
    parser.description = "Every column of the tables: type, unit, meaning."
    parser.epilog = "examples:\n  runner schema\n  runner schema layers\n  runner schema cells --json"
    parser.add_argument("table", nargs="?", metavar="TABLE", help="cells, trace or layers")
    parser.add_argument("--json", action="store_true", help="for machines")
    return parser


def _add_store(parser: _Parser) -> None:
    parser.add_argument(
        "store", nargs="?", type=Path, metavar="STORE", help="folder (the newest under outputs/)"
    )
    parser.add_argument("--json", action="store_true", help="for machines")


def _add_selection(parser: _Parser) -> None:
    parser.add_argument(
        "--facet", type=_keys, action=_Extend, metavar="KEY[,KEY]",
        help="one diagram or fit per value; `none` for a single one (the config's `facet`)",
    )  # fmt: skip
    parser.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="K=V[,V]",
        help="only cells with this value; repeatable",
    )
    parser.add_argument("--all", action="store_true", help="cells of all launches (those of the newest)")


class _Extend(argparse.Action):
    """Gathers comma-separated keys over repetitions; ``none`` is no key."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Add the keys to those so far."""
        before = getattr(namespace, self.dest) or ()
        setattr(namespace, self.dest, (*before, *(key for key in values if key not in before)))


def _keys(text: str) -> tuple[str, ...]:
    keys = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    return () if keys == ("none",) else keys


def _store(options: argparse.Namespace) -> Path:
    from runner.store import default_store

    return options.store if options.store is not None else default_store()


def _print_json(head: dict[str, Any], **tables: Any) -> None:
    """Print tables as lists of rows; null and NaN are both null, for JSON knows no NaN."""
    import json

    from runner.analysis.columns import plain, records

    rows = {
        name: [{key: plain(value) for key, value in row.items()} for row in records(table)]
        for name, table in tables.items()
    }
    print(json.dumps(head | rows, indent=1))


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
    "claims": "the theory put to the test: 17 claims, measured, with verdicts",
    "schema": "every column of the tables: type, unit, meaning",
}
COMMANDS: dict[str, tuple[str, Callable[[argparse.Namespace], int], Callable[[_Parser], _Parser]]] = {
    "status": ("status [STORE]", _status, _status_parser),
    "phase": ("phase [STORE]", _phase, _phase_parser),
    "fit": ("fit [STORE]", _fit, _fit_parser),
    "claims": ("claims [IDS]", claims.run, claims.parser_of),
    "schema": ("schema [TABLE]", _schema, _schema_parser),
}

if __name__ == "__main__":
    sys.exit(main())
