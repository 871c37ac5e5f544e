"""How the parts of every layer's change scale with width or depth, at its first change and at the last step.

After one step the slopes are those of theory: no layer has felt yet what the others became. After the last
one a fault has reached all layers that it reaches. Both are looked at.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from runner.analysis.columns import floats, plain
from runner.analysis.straight import LEAST_WIDTHS, Line, loglog_slope

PARTS = ("update_own", "update_passed", "update_size")
BOUND = "logits_bound"
"""The part of attention logits that says what they can become."""
PLACES = ("first", "middle", "last")
"""What the number of a block becomes in a layer's name where depths differ."""
KEYS = ("layer_index", "layer", "role")
COLUMNS = (*KEYS, "size", "seed", "step", *PARTS, BOUND)
"""Of the table that is judged: a row per layer, size (width, or depth), seed and measured step after init."""
_LEAST_SEEDS = 2


def part_slopes(points: pd.DataFrame) -> pd.DataFrame:
    """Return the slope of log part against log size, of each layer and part, at two moments.

    The lines weigh a size by itself: what differs between seeds falls as width^(-1/2), so that this is the
    weight of the least variance, and corrections of finite size count less. Intervals are bootstraps over the
    seeds of each size, whose deviations are made (n / (n - 1))^(1/2) as large: a bootstrap of n draws
    has (n - 1) / n of their variance.

    Args:
        points: With the columns of :data:`COLUMNS`, of one optimizer and parameterization.

    Returns:
        One row per layer, part and moment, layers in forward order: ``layer_index``, ``layer``, ``role``,
        ``part``, ``moment`` (``first``: the step at which the part is first above zero; ``last``), ``step``,
        ``slope``, ``low``, ``high`` (95 %), ``sizes`` and ``seeds`` (fewest at a size). A part that is zero
        throughout has one row without a slope.
    """
    rows: list[dict[str, Any]] = []
    for key, part in points.groupby([*KEYS], dropna=False, observed=True, sort=True):
        named = dict(zip(KEYS, map(plain, key), strict=True))
        for name in (*PARTS, BOUND):
            values = floats(part[name])
            if values.isna().all():
                continue
            usable = np.isfinite(values) & (values > 0)
            found = part.loc[usable, ["size", "seed", "step"]].assign(value=values[usable])
            moments = list(_moments(found))
            for moment, step, samples in moments:
                line = _late_slope(samples)
                counts = {"sizes": len(samples), "seeds": min(map(len, samples.values()))}
                ends = {"slope": line.slope, "low": line.low, "high": line.high}
                rows.append(named | {"part": name, "moment": moment, "step": step} | ends | counts)
            if not moments:
                rows.append(named | {"part": name, "moment": "last", "sizes": 0, "seeds": 0})
    numbers = dict.fromkeys(("step", "slope", "low", "high"), "float64")
    columns = [*KEYS, "part", "moment", "step", "slope", "low", "high", "sizes", "seeds"]
    return pd.DataFrame(rows, columns=columns).astype(numbers)


def _moments(values: pd.DataFrame) -> Iterator[tuple[str, int, Mapping[float, np.ndarray]]]:
    """Yield the first and the last step at which the part is there at as many sizes as at any step."""
    if values.empty:
        return
    at_size = values.groupby(["step", "size"])["seed"].size()
    at_size = at_size[at_size >= min(_LEAST_SEEDS, at_size.max())]
    sizes = at_size.groupby("step").size()
    full = [int(step) for step in sizes.index[sizes == sizes.max()]]
    for moment, step in zip(("first", "last"), dict.fromkeys((full[0], full[-1])), strict=False):
        here = values[values["step"] == step]
        sizes_here = here["size"].to_numpy(float)
        samples = {
            float(size): here["value"].to_numpy(float)[sizes_here == size]
            for size in np.unique(sizes_here)
            if (step, size) in at_size.index
        }
        yield moment, step, samples


def _late_slope(samples: Mapping[float, np.ndarray]) -> Line:
    """Return the line through the seeds' geometric means, larger sizes counting more."""
    if len(samples) < LEAST_WIDTHS:
        return Line(None, None, None)
    return loglog_slope({size: _spread(values) for size, values in samples.items()}, late=True)


def _spread(values: np.ndarray) -> np.ndarray:
    """Return values with the same geometric mean, and deviations from it as large as the bootstrap needs."""
    count = len(values)
    logs = np.log(values)
    factor = np.sqrt(count / (count - 1)) if count > 1 else 1.0
    spread: np.ndarray = np.exp(logs.mean() + factor * (logs - logs.mean()))
    return spread
