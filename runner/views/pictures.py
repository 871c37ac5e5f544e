"""The pictures that there are: commands, methods and the page know them from here."""

from __future__ import annotations

from runner.views import curves, fit, phase, profile, spectrum, transfer

PICTURES = (phase.PICTURE, fit.PICTURE, curves.PICTURE, transfer.PICTURE, profile.PICTURE)
"""In the order of the list of commands."""
SECTIONS = (fit.SECTION, transfer.SECTION, profile.SECTION, *spectrum.SECTIONS)
"""In the order of the page, below the diagram and its curves."""
