"""``runner fit``: exponents against width."""

from __future__ import annotations

import argparse

from runner.commands.options import (
    Extend,
    Parser,
    add_figure,
    add_selection,
    add_store,
    check_out,
    keys,
    put_out,
    say_figure,
    store_of,
)


def run(options: argparse.Namespace) -> int:
    """Print and draw the exponents."""
    from runner.analysis.exponents import DEFAULT_METRICS
    from runner.analysis.selection import default_facets
    from runner.store import load
    from runner.views.progress import working
    from runner.views.terminal import console, print_fit
    from runner.views.views import fit_view

    check_out(options)
    store = load(store_of(options))
    facets = default_facets(store, ("width",)) if options.facet is None else options.facet
    with working("fitting"):
        view = fit_view(store, options.metric or DEFAULT_METRICS, facets, options.where, options.all)
    if not put_out(options, view, {"facets": facets}):
        print_fit(view.table, facets, console())
        say_figure(options)
    return 0


def parser_of(parser: Parser) -> Parser:
    """Return the parser of the command."""
    parser.description = "Exponents: log-log slopes against width, with bootstrap intervals, beside theory."
    parser.epilog = """\
examples:
  runner fit outputs/width_scaling
  runner fit --metric ntk_change,feature_movement --where lr=1 --out fit.pdf
  runner fit --metric layers.feature_movement --facet parameterization,depth --json"""
    add_store(parser, csv=True)
    parser.add_argument(
        "--metric", type=keys, action=Extend, metavar="M[,M]", help="numeric columns of any table"
    )
    add_selection(parser)
    add_figure(parser)
    return parser
