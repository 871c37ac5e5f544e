"""The coordinate check: whether each layer changes by the same amount at any width, and which does not."""

from runner.analysis.coordinates.blame import Blame
from runner.analysis.coordinates.judge import Judged, judge
from runner.analysis.coordinates.points import Group, groups_of
from runner.analysis.coordinates.slopes import BOUND, COLUMNS, PARTS

__all__ = ["BOUND", "COLUMNS", "PARTS", "Blame", "Group", "Judged", "groups_of", "judge"]
