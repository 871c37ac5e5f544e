"""The key of a printed diagram's lines, beside that of its colours."""

from __future__ import annotations

from typing import Any

import pandas as pd

from runner.views import alt
from runner.views.phase.critical import DASH, critical_name
from runner.views.style import INK, Layout, legend

CHANGE = "where the regime changes"


def lines_key(grid: pd.DataFrame, changes: bool, layout: Layout) -> list[Any]:
    """Return a layer that draws nothing and has the legend of the lines; none on a screen or without lines.

    Args:
        grid: The points of all panels.
        changes: Whether some line marks where the regime changes.
    """
    known = grid.dropna(subset=["critical"])
    looks = {CHANGE: [1, 0]} if changes else {}
    if len(known):
        looks[f"{critical_name(known)} at init"] = DASH
    if not looks or not layout.paper:
        return []
    scale = alt.Scale(domain=list(looks), range=list(looks.values()))
    names = legend(
        list(looks), layout, symbolType="stroke", symbolSize=120, symbolStrokeColor=INK,
        symbolStrokeWidth=1.4, symbolOpacity=1,
    )  # fmt: skip
    rules = alt.Chart(pd.DataFrame({"line": list(looks)})).mark_rule(opacity=0)
    at = {"x": alt.value(0), "x2": alt.value(0), "y": alt.value(0), "y2": alt.value(0)}
    return [rules.encode(strokeDash=alt.StrokeDash("line:N", scale=scale, legend=names), **at)]
