"""Panels as a journal prints them: lettered, and an axis that neighbours share is labelled once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from runner.views import alt
from runner.views.lettering import letter_of, text_width, wrapped

LETTER, HEADING = "panel_letter", "panel_heading"
"""What the names of the marks of a heading begin with."""
_LEAST_ROOM = 25
"""Points of a heading, for half a name beside the letters of a narrow panel."""
_ABOVE = 3.0
_LINE_HEIGHT = 1.15


def printed(charts: Sequence[Any], columns: int, width: float, font: float) -> list[Any]:
    """Return panels with their letters and without the labels that a neighbour has.

    Args:
        charts: Layered panels, in rows.
        columns: Panels side by side.
        width: Of a panel, in points.
        font: Size of the labels in points; a heading's is the next.
    """
    keys = [{channel: _axis_key(chart, channel) for channel in ("x", "y")} for chart in charts]
    found = []
    for place, chart in enumerate(charts):
        below, left = place + columns, place - 1
        bare = []
        if below < len(charts) and _same(keys[place]["x"], keys[below]["x"]):
            bare.append("x")
        if place % columns and _same(keys[place]["y"], keys[left]["y"]):
            bare.append("y")
        # A column of the same facet is named at its top.
        title = _title(chart)
        if place >= columns and _title(charts[place - columns]) == title:
            title = ""
        letter = letter_of(place) if len(charts) > 1 else ""
        found.append(_headed(_without_labels(chart, bare), place, letter, title, width, font))
    return found


def _same(one: Any, other: Any) -> bool:
    return one is not None and one == other


def _layers(chart: Any) -> list[Any]:
    return list(chart.layer)


def _channel(layer: Any, name: str) -> Any:
    """Return a channel of a layer that has an axis of its own, None where it has not."""
    found = layer.encoding[name] if layer.encoding is not alt.Undefined else alt.Undefined
    # By the subscript: as attributes they are what sets them.
    if found is alt.Undefined or isinstance(found, dict) or "axis" not in found._kwds:
        return None
    return None if found["axis"] is alt.Undefined or found["axis"] is None else found


def _axis_key(chart: Any, channel: str) -> Any:
    """Return scale and axis of a panel, None where the scale is the data's to choose."""
    for layer in _layers(chart):
        found = _channel(layer, channel)
        if found is None:
            continue
        shown = found.to_dict()
        scale = shown.get("scale") or {}
        return (scale, shown.get("axis")) if "domain" in scale else None
    return None


def _without_labels(chart: Any, channels: Sequence[str]) -> Any:
    """Return a panel that has ticks but neither labels nor title on some axes."""
    if not channels:
        return chart
    layers = []
    for layer in _layers(chart):
        encoding = layer.encoding.copy(deep=False)
        for channel in channels:
            found = _channel(layer, channel)
            if found is None:
                continue
            found, axis = found.copy(deep=False), found["axis"].copy(deep=False)
            axis.labels, axis.title = False, None
            found.axis = axis
            setattr(encoding, channel, found)
        layer = layer.copy(deep=False)
        layer.encoding = encoding
        layers.append(layer)
    chart = chart.copy(deep=False)
    chart.layer = layers
    return chart


def _title(chart: Any) -> str:
    """Return the title of a panel without what stands below it."""
    title = chart.title if isinstance(chart.title, str) else getattr(chart.title, "_kwds", {}).get("text", "")
    return title if isinstance(title, str) else ""


def _headed(chart: Any, place: int, letter: str, title: str, width: float, font: float) -> Any:
    """Return a panel with its letter and its title at its upper left corner, always equally far above it.

    Marks in place of a title: a title stands above all labels of the axis, which may reach over the panel.
    """
    size = font + 1
    lead = text_width(f"{letter} ", size, bold=True) + 1 if letter else 0.0
    lines = wrapped(title, max(width - lead, _LEAST_ROOM), size)
    height = _LINE_HEIGHT * size
    top = -_ABOVE - height * max(len(lines) - 1, 0)
    chart = chart.copy(deep=False)
    chart.title = alt.Undefined
    if letter:
        chart.layer = [*chart.layer, _text(f"{LETTER}{place}", [letter], 0.0, top, size, "bold")]
    if lines:
        weight = "normal" if letter else "bold"
        chart.layer = [*chart.layer, _text(f"{HEADING}{place}", lines, lead, top, size, weight)]
    return chart


def _text(name: str, lines: Sequence[str], x: float, y: float, size: float, weight: Any) -> Any:
    """Return a text at a place of its panel, in points from the upper left corner."""
    mark = alt.Chart(pd.DataFrame({"at": [0]}), name=name).mark_text(
        text=list(lines) if len(lines) > 1 else lines[0], align="left", baseline="alphabetic",
        fontSize=size, fontWeight=weight, lineHeight=_LINE_HEIGHT * size, color=alt.ExprRef("ink"),
    )  # fmt: skip
    return mark.encode(x=alt.value(x), y=alt.value(y))
