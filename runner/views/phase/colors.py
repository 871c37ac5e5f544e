"""The colours of a diagram: regimes by name, or a number on viridis, with their legends."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from runner.analysis.phase import Axes
from runner.analysis.regime import COLORS, LETTERS, REGIMES
from runner.views import alt
from runner.views.scales import column_title, number_scale, ticks_of
from runner.views.style import Layout, legend

_TICK_ROOM, _BAR = 28, 200
"""Pixels that a tick of a colour bar takes, and the length of a bar where none is set."""


def color_channel(axes: Axes, grid: pd.DataFrame, layout: Layout) -> Any:
    """Return the color channel: regimes by name, or a number on viridis."""
    if axes.color != "regime":
        return _numeric_color(grid["value"], "value", column_title(axes.color), layout.paper)
    present = [regime for regime in REGIMES if (grid["regime"] == regime).any()] or list(REGIMES)
    scale = alt.Scale(domain=present, range=[COLORS[regime] for regime in present])
    labels = " : ".join(f"datum.value == '{regime}' ? '{LETTERS[regime]}  {regime}'" for regime in REGIMES)
    written = [f"{LETTERS[regime]}  {regime}" for regime in present]
    more: dict[str, Any] = {} if layout.paper else {"offset": 2}
    names = legend(
        written, layout, columns=len(present), symbolType="square", symbolStrokeWidth=0,
        labelExpr=f"{labels} : datum.value", **more,
    )  # fmt: skip
    return alt.Color("regime:N", scale=scale, legend=names)


def gradient_legend(title: str | list[str], paper: bool, number_format: str = ".3~g") -> Any:
    """Return the legend of a color of numbers: in print above the panels, which keep their width."""
    place: dict[str, Any] = {"orient": "top", "gradientLength": 110, "gradientThickness": 7} if paper else {}
    return alt.Legend(title=title, format=number_format, tickCount=5, **place)


def with_ends(bar: Any, low: float, high: float, log: bool) -> Any:
    """Return the legend of a color of numbers with a tick at the largest, and round ones well below it."""
    scale = np.log if log else float
    long = _BAR if bar.gradientLength is alt.Undefined else bar.gradientLength
    room = (scale(high) - scale(low)) * _TICK_ROOM / long
    ticks = [tick for tick in ticks_of(low, high, log) if scale(high) - scale(tick) > room]
    bar.values = [*ticks[:: math.ceil(len(ticks) * _TICK_ROOM / long) or 1], high]
    return bar


def _numeric_color(column: pd.Series, field: str, title: str, paper: bool = False) -> Any:
    """Return the color channel of a number, on a logarithmic scale where it spans a decade."""
    values = column.dropna()
    log = bool(len(values) > 0 and values.min() > 0 and values.max() > 10 * values.min())
    bar, more = gradient_legend(title, paper), {}
    if len(values):
        low, high = float(values.min()), float(values.max())
        bar, more = with_ends(bar, low, high, log), {"domain": [low, high], "clamp": True}
    scale = number_scale(log, scheme="viridis", nice=False, **more)
    return alt.Color(f"{field}:Q", scale=scale, legend=bar)
