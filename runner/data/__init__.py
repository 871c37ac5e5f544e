"""Data sets: functions of the keys of a ``data`` section that return a :class:`Dataset`."""

from runner.data.dataset import Dataset, Split, load
from runner.data.digits import digits
from runner.data.images import images
from runner.data.modular import modular_addition
from runner.data.synthetic import parity, polynomial, single_index, staircase, teacher, xor

__all__ = [
    "Dataset",
    "Split",
    "digits",
    "images",
    "load",
    "modular_addition",
    "parity",
    "polynomial",
    "single_index",
    "staircase",
    "teacher",
    "xor",
]
