"""``runner transfer``: the best learning rate at each width."""

from __future__ import annotations

import argparse

from runner.commands.options import (
    Parser,
    add_figure,
    add_selection,
    add_store,
    check_out,
    put_out,
    say_figure,
    store_of,
)


def run(options: argparse.Namespace) -> int:
    """Print and draw the best learning rates."""
    from runner.analysis.selection import default_facets
    from runner.store import load
    from runner.views.terminal import console, print_transfer
    from runner.views.views import transfer_view

    check_out(options)
    store = load(store_of(options))
    facets = default_facets(store, ("width", "lr")) if options.facet is None else options.facet
    view = transfer_view(store, options.metric, facets, options.where, options.all)
    if not put_out(options, view, {"facets": facets, "metric": options.metric}):
        print_transfer(view.table, facets, options.metric, console())
        say_figure(options)
    return 0


def parser_of(parser: Parser) -> Parser:
    """Return the parser of the command."""
    parser.description = "The best learning rate at each width, and whether it transfers."
    parser.epilog = """\
examples:
  runner transfer
  runner transfer outputs/digits --metric test_loss --out transfer.pdf
  runner transfer --where parameterization=sp,mup --json"""
    add_store(parser, csv=True)
    parser.add_argument(
        "--metric", default="train_loss", metavar="COLUMN", help="what shall be small (train_loss)"
    )
    add_selection(parser)
    add_figure(parser)
    return parser
