"""``runner report``: one self-contained page."""

from __future__ import annotations

import argparse
from pathlib import Path

from runner.commands.options import Parser, add_selection, store_of


def run(options: argparse.Namespace) -> int:
    """Write the page and say where it is."""
    from runner.store import load
    from runner.views.page import write_page
    from runner.views.progress import working

    store = load(store_of(options))
    path = options.out or store.path / "report.html"
    with working(f"writing {path}"):
        page = write_page(store, path, options.where, options.all)
    print(f"report: {path} ({page.size / 1e6:.1f} MB)")
    for line in page.left_out:
        print(f"  {line}")
    return 0


def parser_of(parser: Parser) -> Parser:
    """Return the parser of the command."""
    parser.description = (
        "One HTML file that works offline: phase diagram, curves of every cell, fits, best learning rates, "
        "provenance."
    )
    parser.epilog = """\
examples:
  runner report
  runner report outputs/digits --out digits.html
  runner report --where data=xor --all"""
    parser.add_argument(
        "store", nargs="?", type=Path, metavar="STORE", help="folder (the newest under outputs/)"
    )
    add_selection(parser, facet=False)
    parser.add_argument("--out", type=Path, metavar="FILE", help="the page (STORE/report.html)")
    return parser
