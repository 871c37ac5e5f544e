"""The coordinate check of a plain torch module, under a training loop of one's own."""

from runner.coordinates.check import CoordinateCheck, coordinate_check

__all__ = ["CoordinateCheck", "coordinate_check"]
