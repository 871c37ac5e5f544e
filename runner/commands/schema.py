"""``runner schema``: the columns of the tables; needs neither pandas nor rich, and answers in a blink."""

import argparse
import dataclasses
import json
import textwrap
from collections.abc import Iterator

from runner.commands.command import Command
from runner.commands.options import Parser, add_json
from runner.errors import unknown
from runner.schema import DERIVED, SCHEMA_VERSION, TABLES

_WIDTH = 100
_ROWS = {
    "cells": "one row per cell",
    "trace": "one row per cell and measured step",
    "layers": "one row per cell, measured step and layer",
    "outputs": "one row per cell, measured step, sample and output, kept by the measure predictions",
    "derived": "no table: of each cell, read off trace for `runner phase --color` and `runner fit --metric`",
}
_SHOWN = {**TABLES, "derived": DERIVED}


def run(options: argparse.Namespace) -> int:
    """Print the columns of one table or of all."""
    if options.table is not None and options.table not in _SHOWN:
        raise unknown("TABLE", options.table, _SHOWN)
    tables = [options.table] if options.table else list(_SHOWN)
    if options.json:
        content = {table: [dataclasses.asdict(column) for column in _SHOWN[table]] for table in tables}
        derived = {name: content.pop(name) for name in ("derived",) if name in content}
        print(json.dumps({"version": SCHEMA_VERSION, "tables": content, **derived}, indent=1))
    else:
        print("\n".join(_lines(tables)))
    return 0


def _lines(tables: list[str]) -> Iterator[str]:
    """Yield the columns of tables: name, type, unit, meaning."""
    for table in tables:
        columns = _SHOWN[table]
        name, unit = (max(len(getattr(column, key)) for column in columns) for key in ("name", "unit"))
        yield f"{table}: {_ROWS[table]}"
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
    yield "Columns of your own measures follow these. cells also has each key of a cell's groups as a column"
    yield "under its dotted name, of the type of its values (lists as JSON), null where a cell has no such"
    yield "key: model.activation, data.train_size, measure.points, parameterization.a.hidden."


def _options(parser: Parser) -> None:
    parser.add_argument("table", nargs="?", metavar="TABLE", help="cells, trace, layers, outputs or derived")
    add_json(parser)


COMMAND = Command(
    "schema",
    "Every column of the tables: type, unit, meaning.",
    ("runner schema", "runner schema layers", "runner schema cells --json"),
    _options,
    run,
)
