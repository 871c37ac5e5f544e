"""The axes of a figure: scale, domain, ticks and title, shared by all its panels."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from runner.analysis.columns import distinct, is_exponent
from runner.analysis.phase import edges, is_log
from runner.schema import CELLS
from runner.views import alt

_MOST_TICKS = 9
_SMALL, _LARGE = 1e-3, 1e5
"""A logarithmic axis that reaches beyond these is written as 1e-5."""


@dataclass(frozen=True, slots=True)
class Scale:
    """One axis of every panel: its domain, kind and ticks."""

    title: str | list[str]
    log: bool
    domain: tuple[float, float]
    ticks: list[float]

    def encode(self, channel: type, field: str, labels: bool = True) -> Any:
        """Return the Altair channel that draws this axis."""
        axis = alt.Axis(
            values=self.ticks,
            **self._written(),
            labels=labels,
            labelOverlap="parity",
            labelSeparation=2,
            title=(self.title or None) if labels else None,
        )
        scale = number_scale(self.log, domain=list(self.domain), nice=False)
        return channel(f"{field}:Q", scale=scale, axis=axis)

    def _written(self) -> dict[str, Any]:
        """Return how ticks are written: whole numbers whole, others to digits that tell them apart."""
        if self.log and any(tick < _SMALL or (tick >= _LARGE and tick % 10 == 0) for tick in self.ticks):
            return {"labelExpr": "replace(format(datum.value, '.3~e'), '+', '')"}
        if all(tick.is_integer() and abs(tick) < 1e6 for tick in self.ticks):
            return {"format": "d"}
        # To a number of digits: without one they would be those of evenly spaced ticks.
        short = all(tick == float(f"{tick:.3g}") for tick in self.ticks)
        return {"format": ".6~g" if short or not self.log else ".3~g"}

    def at_decades(self) -> "Scale":
        """Return the axis with its ticks at powers of ten, where there are three of them."""
        decades = _decades(*self.domain) if self.log else []
        whole = all(tick.is_integer() for tick in self.ticks)  # widths are powers of two more often
        return self if whole or len(decades) < 3 else replace(self, ticks=decades)


def number_scale(log: bool, **more: Any) -> Any:
    """Return a logarithmic scale, or a linear one that need not begin at zero."""
    return alt.Scale(type="log", **more) if log else alt.Scale(type="linear", zero=False, **more)


def value_scale(values: Any, title: str = "", log: bool = True) -> Scale:
    """Return the axis of measured values that panels share: with a little room, and a tick on every decade.

    Args:
        values: All that is drawn, bars and bands included; what is missing or not finite does not count.
        log: Whether it is logarithmic, where all values are positive.
    """
    found = np.asarray(pd.to_numeric(pd.Series(np.ravel(np.asarray(values, dtype=object)))), float)
    found = found[np.isfinite(found) & ((found > 0) | (not log))]
    if not len(found):
        return Scale(title, log, (0.1, 10.0) if log else (0.0, 1.0), [0.1, 1.0, 10.0] if log else [0.0, 1.0])
    low, high = float(found.min()), float(found.max())
    if log:
        room = max((high / low) ** _ROOM, 1.05) if high > low else 3.0
        domain = (low / room, high * room)
        return Scale(title, True, _short_ends(domain), _log_ticks(*domain))
    room = (_ROOM * (high - low)) or 0.1 * abs(high) or 1.0
    domain = (low - room, high + room)
    return Scale(title, False, _short_ends(domain), _linear_ticks(*domain))


_ROOM = 0.05


def _short_ends(domain: tuple[float, float]) -> tuple[float, float]:
    """Return a domain to nine digits, so that the same table gives the same bytes on any machine."""
    return float(f"{domain[0]:.9g}"), float(f"{domain[1]:.9g}")


def _decades(low: float, high: float) -> list[float]:
    """Return the powers of ten of a domain."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    return [float(f"1e{power}") for power in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Return every power of ten, and where there are not two of them what lies between in steps of 1, 2, 5.

    >>> _log_ticks(0.002, 30), _log_ticks(0.3, 4), _log_ticks(3.1, 4.2)
    ([0.01, 0.1, 1.0, 10.0], [0.5, 1.0, 2.0], [3.25, 3.5, 3.75, 4.0])
    """
    decades = _decades(low, high)
    if len(decades) > 1:
        return decades
    powers = range(math.floor(math.log10(low)), math.floor(math.log10(high)) + 1)
    between = [float(f"{step}e{power}") for power in powers for step in (1, 2, 5)]
    found = [tick for tick in between if low <= tick <= high]
    return found if len(found) > 1 else _linear_ticks(low, high)


def _linear_ticks(low: float, high: float) -> list[float]:
    """Return two to five round numbers, evenly spaced.

    >>> _linear_ticks(0, 1), _linear_ticks(-0.13, 0.31)
    ([0.0, 0.25, 0.5, 0.75, 1.0], [-0.1, 0.0, 0.1, 0.2, 0.3])
    """
    power = 10.0 ** math.floor(math.log10(high - low))
    for step in (0.1, 0.2, 0.25, 0.5, 1.0, 2.0):
        first, last = math.ceil(low / (step * power) - 1e-9), math.floor(high / (step * power) + 1e-9)
        if last - first < 5:
            return [round(place * step * power, 12) + 0.0 for place in range(first, last + 1)]
    return [low, high]


def ticks_of(low: float, high: float, log: bool) -> list[float]:
    """Return round numbers in a range, every power of ten of a logarithmic one; the one of an empty range."""
    if low == high:
        return [low]
    return _log_ticks(low, high) if log else _linear_ticks(low, high)


def value_channel(log: bool, title: str | None = None, field: str = "value") -> Any:
    """Return the channel of a measured value upwards."""
    axis = alt.Axis(title=title, format="~g", tickCount=4)
    return alt.Y(f"{field}:Q", scale=number_scale(log), axis=axis)


def range_bars(base: Any, x: Any, y: Scale, **color: Any) -> Any:
    """Return bars from ``low`` to ``high``."""
    return base.mark_rule(strokeWidth=1.4).encode(x=x, y=y.encode(alt.Y, "low"), y2=alt.Y2("high"), **color)


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
        decades = _decades(values[0], values[-1])
        return decades[:: math.ceil(len(decades) / _MOST_TICKS)]
    return values[:: math.ceil(len(values) / _MOST_TICKS)]


_WORDS = {
    "lr": "learning rate η",
    "lr_absolute": "learning rate η",
    "lr_sharpness": "learning rate times λmax at init",
    "param_movement": "relative parameter movement",
}
"""What columns are called where their names do not say it."""


def column_words(name: str) -> str:
    """Return what people call a column of any table, or a measure of one's own.

    >>> column_words("ntk_change"), column_words("param_movement"), column_words("optimizer.momentum")
    ('ntk change', 'relative parameter movement', 'momentum')
    """
    return _WORDS.get(name, name.rpartition(".")[2].replace("_", " "))


def column_title(key: str, lr_unit: str | None = None) -> str:
    """Return the axis title of a key: its words and its unit."""
    if key == "lr" and lr_unit == "sharpness":
        return _WORDS["lr_sharpness"]
    unit = next((column.unit for column in CELLS if column.name == key), "")
    named = f" ({unit})" if unit not in ("", "1", "lr", "lr_unit", "fraction", "loss", "JSON") else ""
    if is_exponent(key):
        _, exponent, role = key.split(".", 2)
        return f"exponent {exponent} of {role.replace('.', ' ')}"
    if key.startswith("model.sigma."):
        return f"init std of {key.rpartition('.')[2]} weights, factor"
    return column_words(key) + named


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
    room = max(1.12, (found[-1] / found[0]) ** 0.06) if len(found) > 1 else 2.0
    return Scale(column_title(key), True, (found[0] / room, found[-1] * room), _ticks(found, True))
