"""``runner export``: a store's cells as runs of an experiment tracker, or as CSV."""

import argparse
import json
from pathlib import Path

from runner.analysis.selection import choose
from runner.commands.command import Command
from runner.commands.options import Parser, add_selection, add_store, store_of
from runner.errors import unknown
from runner.export import export
from runner.store import load
from runner.views.progress import working

FORMATS = ("csv", "mlflow", "tensorboard", "wandb")


def run(options: argparse.Namespace) -> int:
    """Write the cells in the format asked for."""
    if options.to not in FORMATS:
        raise unknown("--to", options.to, FORMATS)
    store = load(store_of(options))
    cells = choose(store, options.where, options.all)
    out = options.out or store.path / "export" / options.to
    with working(f"writing {len(cells)} cells to {out}") as tell:
        place = export(store, cells, options.to, out, tell)
    if options.json:
        print(json.dumps({"to": options.to, "cells": len(cells), "out": str(out)}))
    else:
        print(f"{len(cells)} cells: {place}")
    return 0


def _options(parser: Parser) -> None:
    add_store(parser)
    parser.add_argument("--to", required=True, metavar="|".join(FORMATS), help="the format")
    add_selection(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder (STORE/export/FORMAT)")


COMMAND = Command(
    "export",
    (
        "A store's cells as CSV or as runs of an experiment tracker, each with its config, curves and "
        "results. Nothing is sent anywhere: the files are for the tracker's own tools."
    ),
    (
        "runner export --to csv",
        "runner export outputs/digits --to tensorboard --where parameterization=mup",
        "runner export outputs/digits --to mlflow --out runs     # then: mlflow ui --backend-store-uri sqlite:///runs/mlflow.db",
        "runner export --to wandb --out runs                     # then: wandb sync runs/wandb/offline-*",
    ),
    _options,
    run,
)
