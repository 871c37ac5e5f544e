"""What the boundaries of a diagram answer in short: where each is at the ends of x, beside theory's rate."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from runner.analysis.columns import column, distinct, groups, plain, records, show
from runner.analysis.critical import critical_sharpness
from runner.analysis.phase import Axes, critical_rates
from runner.analysis.selection import facet_label, with_series
from runner.views.captions import MOVEMENT, NO_CONTRADICTION
from runner.views.phase.critical import critical_name
from runner.views.picture import Answer
from runner.views.terminal import MISSING, short

_ANSWERS = ("rich", "diverged")
"""Boundaries that are told in short, by the names of :data:`runner.analysis.boundary.regimes.WORDS`."""
_ABSENT = "not seen"


class Told(NamedTuple):
    """A boundary of a diagram.

    Attributes:
        name: Of the regime that it bounds.
        change: Whether the regime ``begins`` or ``ends``.
        title: What it is called, with its level.
        places: Rows of :func:`runner.analysis.boundary.places.places`.
        rows: The same as text: heading of a facet, name, a place for each x, slope.
    """

    name: str
    change: str
    title: str
    places: pd.DataFrame
    rows: Sequence[Sequence[str]]


def boundary_answers(
    told: Sequence[Told], cells: pd.DataFrame, axes: Axes
) -> tuple[list[list[str]], list[Answer]]:
    """Return rows of theory's critical rate as those of boundaries, and the answers of all."""
    values, rows = distinct(cells[axes.x]), []
    panels = [
        facet_label(axes.facets, facet)
        for facet, _ in groups(cells, [column(cells, key, "") for key in axes.facets])
    ]
    answers = [
        _answer(one.title, one.rows, axes, values, panels, MOVEMENT * (one.name != "diverged"))
        for one in told
        if one.name in _ANSWERS
    ]
    if critical := _critical(cells, axes):
        name = f"{critical_name(cells.assign(critical_sharpness=critical_sharpness(cells)))} at init"
        rows = [
            [label, name, *(short(own[value]) if value in own else MISSING for value in values), ""]
            for label, own in critical.items()
        ]
        answer = _answer(name, rows, axes, values, list(critical))
        words = {
            label: text + _beside_edge(critical[label], _edge_of(told, axes, label), values)
            for label, text in answer.words.items()
        }
        answers.append(Answer(answer.heading, words, NO_CONTRADICTION))
    return rows, answers


def place_words(row: Mapping[str, Any] | None, of: float | None = None) -> str:
    """Return a place with its interval, with one seed what was measured around it.

    Args:
        of: What they are multiples of, to two digits; themselves by default.
    """
    if row is None:
        return MISSING
    low, high = plain(row["low"]), plain(row["high"])
    if low is None:
        low, high = plain(row["last"]), plain(row["first"])
    place, *ends = (
        short(value) if of is None else f"{value / of:.2g}"
        for value in (row["place"], *(() if low is None else (low, high)))
    )
    return place + (f" [{', '.join(ends)}]" if ends else "")


def _answer(
    title: str, rows: Sequence[Sequence[str]], axes: Axes, values: Sequence[Any], panels: Sequence[str],
    rule: str = "",
) -> Answer:  # fmt: skip
    """Return what is known at the smallest and the largest x."""
    first, last = (show(values[place]) for place in (0, -1))
    where = f"at {axes.x} {first}" + (f" → {last}" if len(values) > 1 else "")
    words = dict.fromkeys(panels, _ABSENT)
    for label, _, *places, _ in rows:
        ends = (places[0], places[-1]) if len(values) > 1 else places
        words[label] = " → ".join(_ABSENT if place == MISSING else place for place in ends)
    return Answer(f"{title}, {where}", words, rule)


def _critical(cells: pd.DataFrame, axes: Axes) -> dict[str, dict[Any, float]]:
    """Return the median critical learning rate at init of each facet and x; nothing where y is no rate."""
    known = cells.assign(critical=critical_rates(cells, axes.y)).dropna(subset=["critical"])
    return {
        facet_label(axes.facets, facet): {
            plain(x): float(rate) for x, rate in part.groupby(axes.x)["critical"].median().items()
        }
        for facet, part in groups(known, [column(known, key, "") for key in axes.facets])
    }


def _edge_of(told: Sequence[Told], axes: Axes, label: str) -> dict[Any, dict[str, Any]]:
    """Return the rows that say from where training diverges in a panel, by x."""
    return {
        plain(row[axes.x]): row
        for one in told
        if (one.name, one.change) == ("diverged", "begins")
        for row in records(with_series(one.places, axes.facets))
        if row["series"] == label
    }


def _beside_edge(
    critical: Mapping[Any, float], edge: Mapping[Any, Mapping[str, Any]], values: Sequence[Any]
) -> str:
    """Return at how many times the critical rate training diverges at the ends of x, where that is known."""
    ends = tuple(dict.fromkeys((values[0], values[-1])))
    if not all(x in edge and x in critical for x in ends):
        return ""
    times = " → ".join(place_words(edge[x], of=critical[x]) for x in ends)
    return f"; training diverges at {times} times that"
