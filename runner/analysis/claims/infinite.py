"""The rule on the mean-field limit: C18."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd

from runner.analysis.claims.slopes import part_of, require_widths
from runner.analysis.claims.verdict import Check, Frames, below, within
from runner.analysis.columns import column
from runner.analysis.estimate import Estimate, Tables, Unsupported, over_seeds, require_seeds
from runner.analysis.grouped import grouped, places
from runner.analysis.limit import adjusted, gaps, mean_slope, spread_slope
from runner.analysis.straight import LEAST_WIDTHS
from runner.errors import UserError

CLOSE = 0.05
"""Mean deviation of the widest networks from their limit."""
RICH = 10.0
"""Richness of the linear networks of which that is asked; the kernel grows four times and more."""
_LINES = ("depth", "gamma")


def mean_field(frames: Frames) -> Sequence[Check]:
    """C18: the mean deviation falls as 1/width, the spread as 1/sqrt(width), down to a few percent."""
    data = frames["claim_infinite"]
    linear, tanh = (part_of(data, model__activation=name) for name in ("linear", "tanh"))
    rich = part_of(linear, gamma=RICH)
    gammas = "linear, gamma 0.1 and 10"
    mean, spread = (
        f"slope of the {of}, {gammas}" for of in ("mean deviation of the loss", "spread of the {}")
    )
    return [
        within(mean, partial(_mean_slope, linear), -1.2, -0.8, 0),
        *(
            within(spread.format(name), partial(_spread, linear, name), -0.6, -0.4, 0)
            for name in ("loss", "kernel")
        ),
        *(
            below(f"deviation of the {name}, widest, {of}", partial(_widest, tables, name), CLOSE)
            for of, tables in (("linear, gamma 10", rich), ("tanh, gamma 1", tanh))
            for name in ("loss", "kernel")
        ),
    ]


def _gaps(tables: Tables) -> pd.DataFrame:
    """Return the gaps of the cells; their lines, widths and seeds beside them."""
    if tables.cells.empty:
        raise Unsupported("no cells")
    try:
        found = gaps(tables.cells, tables.trace)
    except UserError as error:
        raise Unsupported("nothing was measured against a limit") from error
    require_seeds(found)
    require_widths(found)
    keys = {name: column(found, name, "claims").astype(float) for name in _LINES}
    names = ["seed", "width", "loss_gap", "kernel_gap", "loss_start", "kernel_start", "sampling_error"]
    rows = found[names].assign(**keys)
    return pd.concat([adjusted(part) for _, part in rows.groupby([*_LINES])], ignore_index=True)


def _mean_slope(tables: Tables) -> Estimate:
    """Return the slope of the mean deviation of the loss, what the start explains of it taken out.

    It is common to all depths and gammas.
    """

    def statistic(part: pd.DataFrame) -> float:
        found = grouped(part, "loss_adjusted", [*_LINES, "width"])
        there = found.spread > 0
        *lines, width = (key[there].astype(float) for key in found.keys)
        if len(np.unique(width)) < LEAST_WIDTHS:
            return float("nan")
        error = found.spread[there] / found.size[there] ** 0.5
        slope, *_ = mean_slope(width, found.mean[there], error, places(lines))
        return slope

    rows = _gaps(tables)
    return replace(over_seeds(rows, statistic, 200), cells=len(rows))


def _spread(tables: Tables, name: str) -> Estimate:
    """Return the slope of the spread over seeds, common to all depths and gammas."""
    rows = _gaps(tables)
    found = over_seeds(rows, lambda part: spread_slope(part, f"{name}_gap", _LINES), 200)
    return replace(found, cells=len(rows))


def _widest(tables: Tables, name: str) -> Estimate:
    """Return how far the mean of the widest networks is from its limit, mean over depths and gammas."""
    rows = _gaps(tables)
    rows = rows[rows["width"] == rows["width"].max()]

    def statistic(part: pd.DataFrame) -> float:
        return float(np.abs(grouped(part, f"{name}_gap", _LINES).mean).mean())

    found = over_seeds(rows, statistic, 200)
    sampled = 2 * float(rows["sampling_error"].max())
    return replace(
        found, low=max(0.0, min(found.low, found.value) - sampled), high=found.high + sampled, cells=len(rows)
    )
