"""The pictures that there are: commands, methods and the page know them from here.

A picture's file is loaded when it is asked for: the list of commands needs no pandas.
"""

from importlib import import_module

from runner.views.picture import Picture, Section

PICTURES = {
    "phase": "the phase diagram, in the terminal or as SVG, PNG, PDF",
    "boundary": "where a regime or training itself ends: place, interval, exponent beside theory",
    "fit": "exponents against width or another key, with intervals, beside theory",
    "curves": "measures over training, in the terminal or as a figure",
    "transfer": "the best learning rate at each width, and its drift",
    "profile": "a measure of the layers against their depth, one line per width",
    "limit": "finite networks beside the limit of infinite width, lazy or rich",
    "ensemble": "networks of several seeds averaged: variance, bias and loss against width",
}
"""Name, of the command and of the file, to one line for the list of commands, in its order."""
_ON_PAGE = ("boundary_scaling", "best_rates", "fit", "derived", "ensemble", "profile", "spectrum")
"""Files with sections of the page, in its order, below the diagram and its curves."""


def picture_of(name: str) -> Picture:
    """Return the declaration of a picture."""
    picture: Picture = import_module(f"runner.views.{name}").PICTURE
    return picture


def sections() -> list[Section]:
    """Return the sections of the page."""
    return [section for name in _ON_PAGE for section in import_module(f"runner.views.{name}").SECTIONS]
