"""Rules on which regime a cell is in: C7, C10, C17."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd

from runner.analysis.claims.slopes import part_of, slope, widest
from runner.analysis.claims.verdict import Check, Frames, above
from runner.analysis.crossover import crossover_gamma, movement
from runner.analysis.estimate import (
    Estimate,
    Tables,
    Unsupported,
    over_seeds,
    require_seeds,
    share,
    trained,
)
from runner.analysis.exponents import LEAST_WIDTHS
from runner.grid.config import load_thresholds

MAJORITY = 0.5


def width_and_scaling(frames: Frames) -> Sequence[Check]:
    """C7: with width most networks become lazy under ntk and sp; most are rich at every width under mup."""
    data = frames["claim_width"]
    checks = []
    for name in ("ntk", "sp"):
        cells = part_of(data, parameterization=name)
        checks.append(
            above(
                f"share lazy at the largest width, {name}",
                partial(_top_share, cells, "lazy"),
                MAJORITY,
            )
        )
        checks.append(
            above(f"share lazy, largest less smallest width, {name}", partial(_gain, cells, "lazy"), 0)
        )
    for name in ("mup", "mean_field"):
        cells = part_of(data, parameterization=name)
        checks.append(
            above(
                f"share rich at the width that has fewest, {name}",
                partial(_least_share, cells, "rich"),
                MAJORITY,
            )
        )
    return checks


def time_makes_features(frames: Frames) -> Sequence[Check]:
    """C10: one cell is lazy after a short training and rich after a long one."""
    mup = part_of(frames["claim_kernel"], parameterization="mup")
    return [
        above(
            "share of mup cells lazy at the first step",
            lambda: share(_moved(mup, 0) < _thresholds()[0]),
            MAJORITY,
        ),
        above(
            "share of mup cells rich at the last step",
            lambda: share(_moved(mup, -1) > _thresholds()[1]),
            MAJORITY,
        ),
    ]


def width_does_not_decide(frames: Frames) -> Sequence[Check]:
    """C17: the widest network learns features under mup, and under ntk with a large gamma."""
    mup = widest(part_of(frames["claim_width"], parameterization="mup"))
    ntk = part_of(frames["claim_richness"], parameterization="ntk")
    return [
        above("share rich at the largest width, mup", lambda: _share(mup, "rich"), MAJORITY),
        above(
            "share rich at the largest width and gamma, ntk",
            lambda: _share(_richest(widest(ntk)), "rich"),
            MAJORITY,
        ),
        above(
            "share lazy at the largest width and gamma 1, ntk",
            lambda: _share(_plain(widest(ntk)), "lazy"),
            MAJORITY,
        ),
        above("slope of the crossover gamma, ntk", lambda: _crossover_slope(ntk), 0),
    ]


def _wide(tables: Tables) -> Tables:
    """Return the tables as they are, refused if they hold fewer than three widths."""
    widths = tables.cells["width"].nunique()
    if widths < LEAST_WIDTHS:
        raise Unsupported(f"{widths} widths, fewer than {LEAST_WIDTHS}")
    return tables


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
    return _share(widest(_wide(tables)), regime)


def _least_share(tables: Tables, regime: str) -> Estimate:
    """Return the smallest of the shares at each width."""
    hits = _regime(tables) == regime
    require_seeds(trained(tables.cells))
    shares = [share(part) for _, part in hits.groupby(_wide(tables).cells["width"])]
    return min(shares, key=lambda found: (found.value, found.low))


def _gain(tables: Tables, regime: str) -> Estimate:
    """Return the share at the largest width less that at the smallest."""
    cells = trained(_wide(tables).cells).assign(hit=_regime(tables) == regime)

    def statistic(part: pd.DataFrame) -> float:
        top = part.groupby("depth")["width"].transform("max") == part["width"]
        low = part.groupby("depth")["width"].transform("min") == part["width"]
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
    return Tables(cells[cells["gamma"] == cells["gamma"].max()], tables.trace, tables.layers)


def _plain(tables: Tables) -> Tables:
    cells = tables.cells
    return Tables(cells[cells["gamma"] == 1], tables.trace, tables.layers)


def _crossover_slope(tables: Tables) -> Estimate:
    """Return the log-log slope of the crossover gamma against width."""
    lazy, rich = _thresholds()
    level = float(np.sqrt(lazy * rich))
    found = crossover_gamma(trained(tables.cells), level).assign(status="ok")
    found["cell_id"] = [f"{width}-{seed}" for width, seed in zip(found["width"], found["seed"], strict=True)]
    if found["gamma"].isna().all():
        raise Unsupported("no width crosses over within the gammas of the grid")
    line = slope(Tables(found, found, found), "gamma")
    return Estimate(line.value, line.low, line.high, len(trained(tables.cells)))


def _thresholds() -> tuple[float, float]:
    """Return below what a cell is lazy and above what it is rich; a crossover is their geometric middle."""
    limits = load_thresholds("default")
    return limits["lazy"], limits["rich"]
