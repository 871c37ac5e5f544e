"""The axes of a figure: scale, domain, ticks and title, shared by all its panels."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from runner.analysis.columns import distinct, is_exponent
from runner.analysis.phase import edges, is_log
from runner.schema import CELLS
from runner.views import alt

_MOST_TICKS = 9


@dataclass(frozen=True, slots=True)
class Scale:
    """One axis of every panel: its domain, kind and ticks."""

    title: str
    log: bool
    domain: tuple[float, float]
    ticks: list[float]

    def encode(self, channel: type, field: str, labels: bool = True) -> Any:
        """Return the Altair channel that draws this axis."""
        axis = alt.Axis(
            values=self.ticks,
            format=self._format(),
            labels=labels,
            title=self.title if labels else None,
        )
        scale = number_scale(self.log, domain=list(self.domain), nice=False)
        return channel(f"{field}:Q", scale=scale, axis=axis)

    def _format(self) -> str:
        """Return how ticks are written: whole numbers whole, others to digits that tell them apart."""
        if all(tick.is_integer() and abs(tick) < 1e6 for tick in self.ticks):
            return "d"
        # To a number of digits: without one they would be those of evenly spaced ticks.
        return ".3~g" if self.log else ".6~g"


def number_scale(log: bool, **more: Any) -> Any:
    """Return a logarithmic scale, or a linear one that need not begin at zero."""
    return alt.Scale(type="log", **more) if log else alt.Scale(type="linear", zero=False, **more)


def value_channel(log: bool, title: str | None = None, field: str = "value") -> Any:
    """Return the channel of a measured value upwards."""
    axis = alt.Axis(title=title, format="~g", tickCount=4)
    return alt.Y(f"{field}:Q", scale=number_scale(log), axis=axis)


def range_bars(base: Any, x: Any, color: Any) -> Any:
    """Return bars from ``low`` to ``high`` on a logarithmic axis."""
    y = alt.Y("low:Q", scale=number_scale(log=True))
    return base.mark_rule(strokeWidth=1.4).encode(x=x, y=y, y2=alt.Y2("high"), color=color)


def shared_scale(
    grid: pd.DataFrame, key: str, panels: Sequence[tuple[Any, pd.DataFrame]], title: str
) -> Scale:
    """Return the scale that all panels share, so that they can be compared by eye."""
    borders = [edges(np.array(distinct(part[key]), float), key) for _, part in panels]
    domain = (float(min(border[0] for border in borders)), float(max(border[-1] for border in borders)))
    values = [float(value) for value in distinct(grid[key])]
    log = is_log(values, key)
    return Scale(title, log, domain, _ticks(values, log))


def _ticks(values: list[float], log: bool) -> list[float]:
    """Return the values themselves where they are few, else decades, else an even choice of them."""
    if len(values) <= _MOST_TICKS:
        return values
    whole = all(value.is_integer() for value in values)  # widths are powers of two more often than of ten
    if log and not whole and values[-1] / values[0] >= 100:
        first, last = math.ceil(math.log10(values[0]) - 1e-9), math.floor(math.log10(values[-1]) + 1e-9)
        step = math.ceil((last - first + 1) / _MOST_TICKS)
        return [10.0**power for power in range(first, last + 1, step)]
    return values[:: math.ceil(len(values) / _MOST_TICKS)]


def column_title(key: str, lr_unit: str | None = None) -> str:
    """Return the axis title of a key: its words and its unit."""
    if key == "lr" and lr_unit == "sharpness":
        return "learning rate times λmax at init"
    words = {
        "lr": "learning rate η",
        "lr_absolute": "learning rate η",
        "lr_sharpness": "learning rate times λmax at init",
    }
    unit = next((column.unit for column in CELLS if column.name == key), "")
    named = f" ({unit})" if unit not in ("", "1", "lr", "lr_unit", "fraction", "loss", "JSON") else ""
    if is_exponent(key):
        _, exponent, role = key.split(".", 2)
        return f"exponent {exponent} of {role.replace('.', ' ')}"
    if key.startswith("model.sigma."):
        return f"init std of {key.rpartition('.')[2]} weights, factor"
    return words.get(key, key.rpartition(".")[2].replace("_", " ")) + named


def lr_unit(cells: pd.DataFrame) -> str | None:
    """Return the unit of the learning rate, None where there are several."""
    units = cells["lr_unit"].unique()
    return str(units[0]) if len(units) == 1 else None


def width_scale(widths: pd.Series) -> Scale:
    """Return the logarithmic axis of the width."""
    return log_scale(widths, "width")


def log_scale(values: pd.Series, key: str) -> Scale:
    """Return the logarithmic axis of a key with positive values, with a little room at its ends."""
    found = [float(value) for value in distinct(values)]
    room = 1.12 if len(found) > 1 else 2.0
    return Scale(column_title(key), True, (found[0] / room, found[-1] * room), _ticks(found, True))
