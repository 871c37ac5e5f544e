"""``runner curves``: measures over training."""

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
    """Print and draw training curves."""
    from runner.analysis.curves import DEFAULT_METRICS
    from runner.analysis.selection import default_facets
    from runner.store import load
    from runner.views.progress import working
    from runner.views.terminal import console, print_curves
    from runner.views.views import curves_view

    check_out(options)
    store = load(store_of(options))
    facets = default_facets(store, (options.by,)) if options.facet is None else options.facet
    metrics = options.metric or DEFAULT_METRICS
    with working("reading the curves"):
        view = curves_view(store, metrics, options.by, facets, options.where, options.all)
    if not put_out(options, view, {"facets": facets, "by": options.by}):
        print_curves(view.table, facets, options.by, console())
        say_figure(options)
    return 0


def parser_of(parser: Parser) -> Parser:
    """Return the parser of the command."""
    parser.description = "Training curves: measures over steps, median and range of the seeds."
    parser.epilog = """\
examples:
  runner curves outputs/digits --where lr=0.1 --where parameterization=ntk,mup
  runner curves --by lr --where width=256 --metric train_loss,ntk_change --out curves.pdf
  runner curves --by seed --where width=256 --where lr=0.1 --metric movement_spectral --csv"""
    add_store(parser, csv=True)
    parser.add_argument(
        "--metric", type=keys, action=Extend, metavar="M[,M]", help="columns of trace or layers"
    )
    parser.add_argument("--by", default="width", metavar="KEY", help="one curve per value (width)")
    add_selection(parser)
    add_figure(parser)
    return parser
