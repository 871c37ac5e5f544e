"""Data sets: functions of the keys of a ``data`` section that return a :class:`Dataset`."""

from runner.data.dataset import Dataset, Split, load
from runner.data.digits import digits
from runner.data.synthetic import parity, single_index, staircase, teacher, xor

__all__ = ["Dataset", "Split", "digits", "load", "parity", "single_index", "staircase", "teacher", "xor"]
