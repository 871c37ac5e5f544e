"""``runner theory``: what follows from a parameterization's exponents, derived, without training anything."""

import argparse
import dataclasses
import json
from typing import Any

from runner.analysis.predictions import (
    Prediction,
    predictions,
    predictions_in_depth,
    verdict,
    verdict_in_depth,
)
from runner.analysis.theory import NORMALIZED
from runner.commands.command import Command
from runner.commands.options import Parser, add_json
from runner.errors import UserError, unknown
from runner.grid.config import load_exponents, parameterizations
from runner.scaling.optimizers import OPTIMIZERS
from runner.views.terminal import console, plain_table

_LOSSES = ("mse", "cross_entropy")
_UNITS = ("sharpness", "absolute")
_ACTIVATIONS = ("relu", "tanh", "erf", "gelu", "linear")


def run(options: argparse.Namespace) -> int:
    """Print the predictions of one table, or of every one that there is."""
    if options.lr_unit is None:
        options.lr_unit = "absolute" if OPTIMIZERS.get(options.optimizer) == "adam" else "sharpness"
    for name, known in {
        "optimizer": tuple(OPTIMIZERS), "loss": _LOSSES, "activation": _ACTIVATIONS, "lr_unit": _UNITS,
        "model": tuple(NORMALIZED),
    }.items():  # fmt: skip
        if getattr(options, name) not in known:
            raise unknown(f"--{name.replace('_', '-')}", getattr(options, name), known)
    if options.depth < 1:
        raise UserError(f"--depth must be at least 1, got {options.depth}; it counts hidden layers")
    tables = {
        name: load_exponents(name) for name in ([options.table] if options.table else parameterizations())
    }
    cells = {name: _cell(exponents, options) for name, exponents in tables.items()}
    if options.json:
        rows = [
            {"parameterization": name} | dataclasses.asdict(one)
            for name, cell in cells.items()
            for one in _all(cell)
        ]
        verdicts = {name: verdict(cell) for name, cell in cells.items()}
        print(json.dumps({"verdicts": verdicts, "rows": rows}, indent=1))
        return 0
    out = console()
    for name, cell in cells.items():
        words = f"{options.depth} hidden, {options.activation}, {options.optimizer}, {options.loss}"
        out.print(f"{name}: {words}", style="bold")
        out.print(f"at a fixed lr: {verdict(cell)}")
        if _depends_on_depth(cell):
            out.print(f"in depth, {cell['model']}: {verdict_in_depth(cell)}")
        view = plain_table()
        for heading in ("quantity", "against", "slope", "why"):
            justify: Any = "right" if heading == "slope" else "left"
            view.add_column(heading, justify=justify, header_style="dim", no_wrap=heading != "why")
        for one in _all(cell):
            slope = "-" if one.slope is None else f"{round(one.slope, 4) + 0.0:g}"
            layer = f", {one.of}" if one.of else ""
            view.add_row(one.quantity + layer, one.against, slope, one.why)
        out.print(view)
        out.print()
    out.print(
        "slopes of logarithms, of networks trained to a loss of order one at a fixed "
        f"{'lr' if options.lr_unit == 'absolute' else 'lr * lambda_max'}; -: theory is silent",
        style="dim",
    )
    return 0


def _depends_on_depth(cell: dict[str, Any]) -> bool:
    return "depth" in json.loads(cell["exponents"])


def _all(cell: dict[str, Any]) -> list[Prediction]:
    """The predictions for width and gamma, and for depth where the table depends on it."""
    return predictions(cell) + (predictions_in_depth(cell) if _depends_on_depth(cell) else [])


def _cell(exponents: str, options: argparse.Namespace) -> dict[str, Any]:
    return {
        "exponents": exponents,
        "depth": options.depth,
        "optimizer": options.optimizer,
        "lr_unit": options.lr_unit,
        "loss": options.loss,
        "model": options.model,
        "model.activation": options.activation,
    }


def _options(parser: Parser) -> None:
    parser.add_argument(
        "table",
        nargs="?",
        metavar="NAME|FILE",
        help="a parameterization, or a YAML file of one (all there are)",
    )
    parser.add_argument("--depth", type=int, default=2, metavar="L", help="hidden layers (2)")
    parser.add_argument("--optimizer", default="sgd", metavar="NAME", help="sgd, momentum, adam, ... (sgd)")
    parser.add_argument("--loss", default="mse", metavar="NAME", help="mse or cross_entropy (mse)")
    parser.add_argument(
        "--activation", default="relu", metavar="NAME", help=f"{', '.join(_ACTIVATIONS)} (relu)"
    )
    parser.add_argument(
        "--lr-unit",
        metavar="UNIT",
        help="of the lr that is the same at every width (sharpness; adam: absolute)",
    )
    parser.add_argument(
        "--model", default="resmlp", metavar="NAME",
        help=f"whose blocks depth multiplies: {', '.join(NORMALIZED)} (resmlp)",
    )  # fmt: skip
    add_json(parser)


COMMAND = Command(
    "theory",
    "What follows from a parameterization: stability, regime, slopes and boundaries, derived, and why.",
    ("runner theory ntk", "runner theory my.yaml --depth 3 --optimizer adam", "runner theory --json"),
    _options,
    run,
)
