"""The command of a picture: its options are its parameters, its output the forms of its view."""

import argparse
import sys
from functools import partial
from typing import Any

from runner.commands.command import Command
from runner.commands.options import Extend, Parser, add_figure, add_selection, add_store, store_of
from runner.store import load
from runner.views.figures import check_figure_path
from runner.views.picture import Picture, names
from runner.views.progress import working
from runner.views.terminal import console

_OF_EVERY_COMMAND = ("where", "all")


def command_of(picture: Picture) -> Command:
    """Return the command that prints and draws a picture."""
    return Command(
        picture.name,
        picture.description,
        picture.examples,
        partial(_add_options, picture),
        partial(_run, picture),
    )


def _add_options(picture: Picture, parser: Parser) -> None:
    """Add STORE, the picture's own parameters, the choice of cells and the figure."""
    add_store(parser, csv=True)
    for parameter, option, meaning in picture.parameters():
        if parameter.name in _OF_EVERY_COMMAND:
            continue
        flag, shown = f"--{parameter.name}", parameter.default
        meaning += f" ({shown})" if isinstance(shown, str) else ""
        words: dict[str, Any] = {"dest": parameter.name, "metavar": option.metavar, "help": meaning}
        if parameter.default is False:
            parser.add_argument(flag, dest=parameter.name, action="store_true", default=None, help=meaning)
        elif option.several:
            parser.add_argument(flag, type=names, action=Extend, **words)
        else:
            parser.add_argument(flag, type=option.read, **words)
    add_selection(parser)
    add_figure(parser)


def _run(picture: Picture, options: argparse.Namespace) -> int:
    """Print the picture in the form asked for, and draw it if asked to."""
    if options.out:
        check_figure_path(options.out)
    store = load(store_of(options))
    given = {parameter.name: getattr(options, parameter.name) for parameter, *_ in picture.parameters()}
    with working(f"{picture.name} of {store.path}"):
        view = picture.make(store, **{name: value for name, value in given.items() if value is not None})
    if options.out:
        with working(f"drawing {options.out}"):
            view.save(options.out, options.size)
    if options.json:
        print(view.json())
    elif options.csv:
        view.table.to_csv(sys.stdout, index=False)
    else:
        view.print(console())
        if note := view.asked.get("at"):
            console().print(note, style="dim")
        if options.out:
            print(f"figure: {options.out}, {options.out.with_suffix('.caption.txt')}")
    return 0
