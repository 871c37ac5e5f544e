"""Rules on which regime a cell is in: C7, C10, C17."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd

from runner.analysis.boundary.places import seed_places
from runner.analysis.boundary.properties import Property, movement
from runner.analysis.claims.slopes import fitted_slope, part_of, require_widths, widest
from runner.analysis.claims.verdict import Check, Frames, above, within
from runner.analysis.estimate import (
    Estimate,
    Tables,
    Unsupported,
    numbers,
    over_seeds,
    require_seeds,
    share,
    trained,
)
from runner.analysis.theory import r_exponent
from runner.grid.config import load_thresholds

MAJORITY = 0.5
SLOPES = (0.7, 1.3)
"""How far from theory's a fitted exponent may be at these widths, as a share of it."""


def width_and_scaling(frames: Frames) -> Sequence[Check]:
    """C7: with width most networks become lazy under ntk and sp; most are rich at every width under mup."""
    data = frames["claim_width"]
    checks = []
    for name in ("ntk", "sp"):
        cells = part_of(data, parameterization=name)
        top, gain = partial(_top_share, cells, "lazy"), partial(_gain, cells, "lazy")
        checks += [
            above(f"share lazy at the largest width, {name}", top, MAJORITY),
            above(f"share lazy, largest less smallest width, {name}", gain, 0),
        ]
    for name in ("mup", "mean_field"):
        least = partial(_least_share, part_of(data, parameterization=name), "rich")
        checks.append(above(f"share rich at the width that has fewest, {name}", least, MAJORITY))
    return checks


def time_makes_features(frames: Frames) -> Sequence[Check]:
    """C10: one cell is lazy after a short training and rich after a long one."""
    mup = part_of(frames["claim_kernel"], parameterization="mup")
    lazy, rich = _thresholds()
    return [
        above("share of mup cells lazy at the first step", lambda: share(_moved(mup, 0) < lazy), MAJORITY),
        above("share of mup cells rich at the last step", lambda: share(_moved(mup, -1) > rich), MAJORITY),
    ]


def width_does_not_decide(frames: Frames) -> Sequence[Check]:
    """C17: the widest network learns features under mup, and under ntk with a large gamma.

    Features change by gamma width^-r (T4), so that they begin to form at a gamma that grows as width^r.
    """
    mup = widest(part_of(frames["claim_width"], parameterization="mup"))
    ntk = part_of(frames["claim_richness"], parameterization="ntk")
    top = widest(ntk)
    return [
        above("share rich at the largest width, mup", lambda: _share(mup, "rich"), MAJORITY),
        above(
            "share rich at the largest width and gamma, ntk", lambda: _share(_richest(top), "rich"), MAJORITY
        ),
        above(
            "share lazy at the largest width and gamma 1, ntk",
            lambda: _share(top.of(top.cells[top.cells["gamma"] == 1]), "lazy"),
            MAJORITY,
        ),
        within(
            "slope of the crossover gamma over theory's, ntk", lambda: _crossover_slope(ntk), *SLOPES, rival=0
        ),
    ]


def _regime(tables: Tables) -> pd.Series:
    cells = trained(tables.cells)
    regime = cells["regime"].astype(object)
    if regime.isna().all():
        raise Unsupported("no cell has a regime")
    return regime


def _share(tables: Tables, regime: str) -> Estimate:
    """Return the share of trained cells in a regime."""
    require_seeds(trained(tables.cells))
    return share(_regime(tables) == regime)


def _top_share(tables: Tables, regime: str) -> Estimate:
    """Return the share at the largest width of several."""
    require_widths(tables.cells)
    return _share(widest(tables), regime)


def _least_share(tables: Tables, regime: str) -> Estimate:
    """Return the smallest of the shares at each width."""
    hits = _regime(tables) == regime
    require_seeds(trained(tables.cells))
    require_widths(tables.cells)
    shares = [share(part) for _, part in hits.groupby(tables.cells["width"])]
    return min(shares, key=lambda found: (found.value, found.low))


def _gain(tables: Tables, regime: str) -> Estimate:
    """Return the share at the largest width less that at the smallest."""
    require_widths(tables.cells)
    cells = trained(tables.cells).assign(hit=_regime(tables) == regime)

    def statistic(part: pd.DataFrame) -> float:
        widths = part.groupby("depth")["width"]
        top, low = widths.transform("max") == part["width"], widths.transform("min") == part["width"]
        return float(part.loc[top, "hit"].mean() - part.loc[low, "hit"].mean())

    return over_seeds(cells, statistic)


def _moved(tables: Tables, place: int) -> pd.Series:
    """Return the movement of each cell at the first (0) or last (-1) measured step after init."""
    require_seeds(trained(tables.cells))
    rows = tables.trace[tables.trace["step"] > 0]
    if rows.empty:
        raise Unsupported("no step after init was measured")
    rows = rows.assign(moved=movement(rows)).sort_values("step")
    by = rows.groupby("cell_id", observed=True)["moved"]
    return by.first() if place == 0 else by.last()


def _richest(tables: Tables) -> Tables:
    """Return the cells of the largest gamma at which any was trained."""
    cells = trained(tables.cells)
    return tables.of(cells[cells["gamma"] == cells["gamma"].max()])


def _crossover_slope(tables: Tables) -> Estimate:
    """Return the log-log slope of the crossover gamma against width, over the r of the cells' exponents."""
    exponents = {r_exponent(str(text)) for text in tables.cells["exponents"].unique()}
    theory = exponents.pop() if len(exponents) == 1 else None
    if not theory:
        raise Unsupported("theory gives these exponents no crossover that moves with width")
    lazy, rich = _thresholds()
    level = float(np.sqrt(lazy * rich))
    cells = trained(tables.cells)
    moved = Property("movement", "", movement(cells), level, smooth=True)
    found = seed_places(cells, moved, "gamma", ["width"])
    found = found[found["change"] != "ends"]
    if found["place"].isna().all():
        raise Unsupported("no width crosses over within the gammas of the grid")
    slope = fitted_slope(found, numbers(found, "place").to_numpy())
    value, low, high = (part / theory for part in (slope.value, slope.low, slope.high))
    return replace(slope, value=value, low=low, high=high, cells=len(cells))


def _thresholds() -> tuple[float, float]:
    """Return the movement below which a cell is lazy and the one above which it is rich."""
    limits = load_thresholds("default")
    return limits["lazy"], limits["rich"]
