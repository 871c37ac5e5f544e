"""Data sets: functions of the keys of a ``data`` section that return a :class:`Dataset`."""

from runner.data.dataset import Dataset, Split, Tokens, load
from runner.data.digits import digits
from runner.data.images import images
from runner.data.modular import modular_addition
from runner.data.synthetic import parity, polynomial, single_index, staircase, teacher, xor
from runner.data.text import text

__all__ = [
    "Dataset",
    "Split",
    "Tokens",
    "digits",
    "images",
    "load",
    "modular_addition",
    "parity",
    "polynomial",
    "single_index",
    "staircase",
    "teacher",
    "text",
    "xor",
]
