"""Widths of figures for print."""

COLUMN, PAGE = 3.25, 6.75
SIZES = {"column": COLUMN, "page": PAGE}
"""In inches: one column of a two-column paper, and its whole text."""
