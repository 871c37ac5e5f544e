import numpy as np
import pytest

from runner.analysis.contour import zero_lines


def _zeros(x, y, function):
    x, y = np.array(x, float), np.array(y, float)
    return zero_lines(x, y, np.array([[function(a, b) for a in x] for b in y], float))


def test_a_plane_has_a_straight_line():
    (line,) = _zeros([0, 2, 3], [0, 1, 5], lambda x, y: x - 1)
    assert [x for x, _ in line] == pytest.approx([1] * len(line))
    assert {line[0][1], line[-1][1]} == {0, 5}
    assert sorted(y for _, y in line) in ([y for _, y in line], [y for _, y in line[::-1]])
    (line,) = _zeros([0, 1, 2], [0, 1, 2], lambda x, y: x + y - 1.5)
    assert [x + y for x, y in line] == pytest.approx([1.5] * len(line))


def test_a_line_goes_through_values_of_zero():
    (line,) = _zeros([0, 1, 2], [0, 1], lambda x, y: x - 1)
    assert [x for x, _ in line] == pytest.approx([1] * len(line))


def test_a_circle_is_closed():
    axis = np.linspace(-2, 2, 41)
    (line,) = _zeros(axis, axis, lambda x, y: x**2 + y**2 - 1.03)
    assert line[0] == line[-1]
    assert [x**2 + y**2 for x, y in line] == pytest.approx([1.03] * len(line), abs=0.01)
    assert len(set(line)) == len(line) - 1


def test_a_saddle_has_two_lines_that_do_not_cross():
    lines = _zeros([-1, 1], [-1, 1], lambda x, y: x * y + 0.1)
    assert len(lines) == 2
    assert sorted(np.sign(line[0][0] * line[0][1]) for line in lines) == [-1, -1]


def test_no_line_over_a_hole_nor_where_nothing_changes():
    values = np.array([[-1.0, 1.0, 1.0], [-1.0, np.nan, 1.0], [-1.0, 1.0, 1.0]])
    assert zero_lines(np.arange(3.0), np.arange(3.0), values) == []
    assert _zeros([0, 1], [0, 1], lambda x, y: 1 + x) == []
    assert _zeros([0, 1, 2], [0], lambda x, y: x - 1) == []  # a row is no plane
