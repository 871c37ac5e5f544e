"""``runner report``: one self-contained page."""

import argparse
from pathlib import Path

from runner.commands.command import Command
from runner.commands.options import Parser, add_selection, add_store, store_of
from runner.errors import unknown
from runner.store import load
from runner.views.page import write_page
from runner.views.progress import working

SUFFIXES = (".html", ".htm")


def run(options: argparse.Namespace) -> int:
    """Write the page and say where it is."""
    if options.out and options.out.suffix.lower() not in SUFFIXES:
        raise unknown("--out suffix", options.out.suffix, SUFFIXES)
    store = load(store_of(options))
    path = options.out or store.path / "report.html"
    with working(f"writing {path}"):
        page = write_page(store, path, options.where, options.all)
    print(f"report: {path} ({page.size / 1e6:.1f} MB)")
    for line in page.left_out:
        print(f"  {line}")
    return 0


def _options(parser: Parser) -> None:
    add_store(parser, json=False)
    add_selection(parser)
    parser.add_argument("--out", type=Path, metavar="FILE", help="the page (STORE/report.html)")


COMMAND = Command(
    "report",
    (
        "One HTML file that works offline: phase diagram at every step, maps of measures, curves of every "
        "cell, filters and comparisons, boundaries, fits and best learning rates beside theory, provenance."
    ),
    (
        "runner report",
        "runner report outputs/digits --out digits.html",
        "runner report --where data=xor --all",
    ),
    _options,
    run,
)
