"""``runner phase``: the phase diagram, in the terminal or as a figure."""

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
    """Print and draw the phase diagram."""
    from runner.analysis.phase import Axes, boundary
    from runner.analysis.selection import default_facets
    from runner.store import load
    from runner.views.terminal import console, print_phase
    from runner.views.views import phase_view

    check_out(options)
    store = load(store_of(options))
    facets = default_facets(store, (options.x, options.y)) if options.facet is None else options.facet
    axes = Axes(options.x, options.y, facets, options.color)
    view = phase_view(store, axes, options.where, options.all, options.regime)
    head = {"x": axes.x, "y": axes.y, "facets": axes.facets, "color": axes.color}
    if not put_out(options, view, head, boundary=boundary(view.table, axes)):
        print_phase(view.table, axes, console())
        say_figure(options)
    return 0


def parser_of(parser: Parser) -> Parser:
    """Return the parser of the command."""
    parser.description = "The phase diagram: which regime at each point of the grid."
    parser.epilog = """\
examples:
  runner phase
  runner phase outputs/digits --out phase.pdf
  runner phase --color ntk_change --where parameterization=ntk,mup
  runner phase --y lr_sharpness --facet parameterization,depth --where model.activation=relu
  runner phase --x gamma --where width=256 --regime my_thresholds.yaml"""
    add_store(parser, csv=True)
    parser.add_argument("--x", default="width", metavar="KEY", help="numeric key across (width)")
    parser.add_argument("--y", default="lr", metavar="KEY", help="numeric key upwards (lr)")
    add_selection(parser)
    parser.add_argument(
        "--color", default="regime", metavar="COLUMN", help="regime, or a numeric column (regime)"
    )
    parser.add_argument(
        "--regime", metavar="NAME|FILE", help="judge anew with conf/regime/NAME.yaml or a YAML file"
    )
    add_figure(parser)
    return parser
