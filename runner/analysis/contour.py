"""Where a quantity known on a grid is zero: lines interpolated between neighbouring points.

Each rectangle of four known neighbours is parted into four triangles about its centre, which has their mean;
in a triangle the quantity is linear, its zero a segment, and the segments join at the edges. Marching
triangles have no ambiguous case, as marching squares have.
"""

from collections.abc import Iterator, Mapping
from itertools import groupby

import numpy as np

Node = tuple[str, int, int]
Edge = frozenset[Node]
Point = tuple[float, float]


def zero_lines(x: np.ndarray, y: np.ndarray, values: np.ndarray) -> list[list[Point]]:
    """Return the lines along which a quantity passes through zero, never over a hole of the grid.

    Args:
        x: Places across, sorted, of shape (columns,).
        y: Places upwards, sorted, of shape (rows,).
        values: Of shape (rows, columns); NaN is a hole.

    Returns:
        The points of each line in order; a closed one ends where it begins. A value of exactly zero counts as
        positive, and the line goes through it.
    """
    joined: dict[Edge, list[Edge]] = {}
    points: dict[Edge, Point] = {}
    for nodes in _triangles(x, y, values):
        names = list(nodes)
        crossed = []
        for one, other in ((0, 1), (1, 2), (2, 0)):
            (x0, y0, start), (x1, y1, end) = nodes[names[one]], nodes[names[other]]
            if (start >= 0) != (end >= 0):
                part, edge = start / (start - end), frozenset((names[one], names[other]))
                points[edge] = (x0 + part * (x1 - x0), y0 + part * (y1 - y0))
                crossed.append(edge)
        if crossed:
            first, second = crossed  # a sign changes along two sides of a triangle, or along none
            joined.setdefault(first, []).append(second)
            joined.setdefault(second, []).append(first)
    # Where a line goes through a node, the edges that meet there have the same point.
    return [[point for point, _ in groupby(points[edge] for edge in chain)] for chain in _chains(joined)]


def _triangles(
    x: np.ndarray, y: np.ndarray, values: np.ndarray
) -> Iterator[Mapping[Node, tuple[float, float, float]]]:
    """Yield the three corners of each triangle: place across, place upwards, value."""
    for row in range(len(y) - 1):
        for column in range(len(x) - 1):
            corners = [(row, column), (row, column + 1), (row + 1, column + 1), (row + 1, column)]
            nodes = [(("corner", i, j), (float(x[j]), float(y[i]), float(values[i, j]))) for i, j in corners]
            middle = np.mean([place for _, place in nodes], axis=0)
            if not np.isfinite(middle[2]):
                continue
            centre = (("centre", row, column), tuple(middle.tolist()))
            for side in range(4):
                yield dict([centre, nodes[side], nodes[(side + 1) % 4]])


def _chains(joined: Mapping[Edge, list[Edge]]) -> Iterator[list[Edge]]:
    """Yield the edges along each line: open lines from an end of theirs, then closed ones."""
    seen: set[Edge] = set()
    for edge in sorted(joined, key=lambda edge: len(joined[edge])):
        if edge in seen:
            continue
        chain = [edge]
        seen.add(edge)
        while following := [near for near in joined[chain[-1]] if near not in seen]:
            chain.append(following[0])
            seen.add(following[0])
        closed = len(joined[edge]) == 2
        yield [*chain, edge] if closed else chain
