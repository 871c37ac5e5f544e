"""Lines drawn with braille dots: a chart of curves on a terminal."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from rich.text import Text

from runner.views.scales import Scale

_DOTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
"""Bits of a braille character's dots, rows downwards."""
_BLANK = 0x2800
BLOCKS = "▁▂▃▄▅▆▇█"
LEAST_WIDTH = 34


@dataclass(frozen=True, slots=True)
class Line:
    """A curve of a chart: its name, style, and its places."""

    name: str
    style: str
    x: np.ndarray
    y: np.ndarray


def chart(
    lines: Sequence[Line], title: str, across: tuple[Callable[[np.ndarray], np.ndarray], Sequence[float]],
    up: Scale, width: int, height: int,
) -> Text:  # fmt: skip
    """Return lines with axes, each named at its right end.

    Args:
        lines: Those drawn later lie on top.
        title: Stands above.
        across: From places to fractions of the width, and the ticks.
        up: The axis of the values.
        width: Characters of the whole.
        height: Rows of the lines.
    """
    labels = {_row(tick, up, height): f"{tick:g}" for tick in reversed(up.ticks)}
    lead = max([len(label) for label in labels.values()], default=0)
    tail = 1 + max([len(line.name) for line in lines], default=0)
    columns = max(8, width - lead - tail - 2)
    bits, owner = np.zeros((height, columns), int), np.full((height, columns), -1)
    for place, line in enumerate(lines):
        for row, column in _dots(line, across[0], up, 4 * height, 2 * columns):
            bits[row // 4, column // 2] |= int(_DOTS[row % 4, column % 2])
            owner[row // 4, column // 2] = place
    ends = _ends(lines, up, height)
    text = Text.assemble((title, "bold"))
    for row in range(height):
        text.append(f"\n{labels.get(row, ''):>{lead}} {'┤' if row in labels else '│'}", style="dim")
        for bit, place in zip(bits[row].tolist(), owner[row].tolist(), strict=True):
            text.append(chr(_BLANK + bit) if bit else " ", style=lines[place].style if bit else "")
        if row in ends:
            text.append(f" {ends[row].name}", style=ends[row].style)
    text.append(f"\n{'':>{lead}} └{'─' * columns}", style="dim")
    text.append(f"\n{'':>{lead + 2}}{_below(across, columns)}", style="dim")
    return text


def _row(value: float, up: Scale, height: int) -> int:
    """Return the row of a value, from the top."""
    return min(height - 1, max(0, int((1 - _fraction(np.array([value]), up)[0]) * height)))


def _fraction(values: np.ndarray, up: Scale) -> np.ndarray:
    ends = np.array(up.domain)
    if up.log:
        with np.errstate(divide="ignore", invalid="ignore"):
            values, ends = np.log(values), np.log(ends)
    return np.asarray((values - ends[0]) / (ends[1] - ends[0]))


def _dots(
    line: Line, across: Callable[[np.ndarray], np.ndarray], up: Scale, rows: int, columns: int
) -> list[tuple[int, int]]:
    """Return the dots of a line, nothing where its value is missing."""
    x = across(line.x.astype(float)) * (columns - 1)
    y = (1 - _fraction(line.y.astype(float), up)) * (rows - 1)
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    found = [(round(y[0]), round(x[0]))] if len(x) == 1 else []
    for i in range(len(x) - 1):
        steps = max(1, math.ceil(max(abs(x[i + 1] - x[i]), abs(y[i + 1] - y[i]))))
        places = np.linspace(0, 1, steps + 1)
        found += [
            (round(y[i] + t * (y[i + 1] - y[i])), round(x[i] + t * (x[i + 1] - x[i])))
            for t in places.tolist()
        ]
    return [(row, column) for row, column in found if 0 <= row < rows and 0 <= column < columns]


def _ends(lines: Sequence[Line], up: Scale, height: int) -> dict[int, Line]:
    """Return the row at which each line is named: about where it ends, in the order of the ends."""
    ends = [(line, line.y[np.isfinite(line.y.astype(float))]) for line in lines]
    known = sorted(
        ((float(values[-1]), line) for line, values in ends if len(values)), key=lambda end: -end[0]
    )
    rows: list[int] = []
    for value, _ in known[:height]:
        rows.append(max(_row(value, up, height), rows[-1] + 1 if rows else 0))
    last = height
    for place in reversed(range(len(rows))):
        last = rows[place] = min(rows[place], last - 1)
    return {row: line for row, (_, line) in zip(rows, known, strict=False)}


def _below(across: tuple[Callable[[np.ndarray], np.ndarray], Sequence[float]], columns: int) -> str:
    """Return the ticks of the axis across, those that have room."""
    line = [" "] * columns
    taken = -1
    for tick in across[1]:
        label = f"{tick:g}"
        at = round(float(across[0](np.array([float(tick)]))[0]) * (columns - 1))
        start = min(max(at - len(label) // 2, 0), columns - len(label))
        if start > taken:
            line[start : start + len(label)] = label
            taken = start + len(label)
    return "".join(line).rstrip()


def sparkline(values: Sequence[float], low: float, high: float, most: int) -> str:
    """Return values as blocks, those that are missing as a space.

    Args:
        values: At most so many are shown, evenly chosen.
        low: Value of the lowest block; both must be of one sign for a logarithm, which is taken then.
        high: Value of the highest.

    >>> sparkline([1, 10, 100, 1000], 1, 1000, 4), sparkline([0.0, 0.5, 1.0], 0.0, 1.0, 3)
    ('▁▃▆█', '▁▅█')
    """
    log = low > 0
    chosen = list(values)
    if len(chosen) > most:
        chosen = [chosen[round(i * (len(chosen) - 1) / (most - 1))] for i in range(most)]
    text = ""
    for value in chosen:
        if not math.isfinite(value) or (log and value <= 0):
            text += " "
            continue
        a, b, c = (math.log(one) for one in (low, value, high)) if log else (low, value, high)
        share = (b - a) / (c - a) if c > a else 0.0
        text += BLOCKS[min(7, max(0, round(share * 7)))]
    return text
