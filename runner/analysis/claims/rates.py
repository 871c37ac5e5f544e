"""Rules on the learning rate: C8, C16."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from runner.analysis.best_lr import best_lr, drift_per_doubling, require_inside
from runner.analysis.boundary.places import seed_places
from runner.analysis.boundary.properties import diverges, movement
from runner.analysis.claims.slopes import fitted_slope, part_of, require_widths
from runner.analysis.claims.verdict import Check, Frames, above, within
from runner.analysis.correlation import spearman
from runner.analysis.critical import critical_lr
from runner.analysis.estimate import (
    Estimate,
    Tables,
    Unsupported,
    numbers,
    over_seeds,
    require_seeds,
    trained,
)
from runner.analysis.matched_loss import at_loss

WIDEST = 4.0
"""Doublings by which the best lr would fall over the widths of theory's T8 if it went as 1/width."""
MATCHED = 0.5
"""Share of the initial train loss at which cells of different lr are compared."""


def larger_is_richer(frames: Frames) -> Sequence[Check]:
    """C8: the movement grows along the lr, and under sp the critical lr and the edge fall as 1/width."""
    sp = part_of(frames["claim_edges"], parameterization="sp")
    return [
        within("slope of 2/lambda_max, sp", lambda: _critical_slope(sp), -1.15, -0.85, 0),
        within("slope of the divergence edge, sp", lambda: _edge_slope(sp), -1.15, -0.85, 0),
        above("rank correlation of lr and movement, same step", lambda: _along_lr(sp, None), 0),
        above("rank correlation of lr and ntk_change, same loss", lambda: _along_lr(sp, MATCHED), 0),
    ]


def best_lr_transfers(frames: Frames) -> Sequence[Check]:
    """C16: the best lr stays within a factor of two in total under mup and ntk, not under sp (T8)."""
    sp, mup, ntk = (part_of(frames["claim_best_lr"], parameterization=name) for name in ("sp", "mup", "ntk"))
    total = partial(_best, total=True)
    return [
        within("doublings of the best lr per doubling of the width, sp", lambda: _best(sp), -1.35, -0.65, 0),
        within("doublings of the best lr over all widths, mup", lambda: total(mup), -1, 1, -WIDEST),
        within("doublings of the best lr over all widths, ntk", lambda: total(ntk), -1, 1, -WIDEST),
    ]


def _critical_slope(tables: Tables) -> Estimate:
    """Return the slope of 2 / lambda_max at init, each network counted once."""
    cells = tables.cells.drop_duplicates(["width", "seed"])
    return fitted_slope(cells, critical_lr(cells).to_numpy())


def _edge_slope(tables: Tables) -> Estimate:
    """Return the slope of the measured edge of divergence."""
    if not (tables.cells["status"].astype(object) == "diverged").any():
        raise Unsupported("no cell diverged: no edge")
    trained(tables.cells)
    edges = seed_places(tables.cells, diverges(tables.cells), "lr_absolute", ["width"])
    return replace(fitted_slope(edges, numbers(edges, "place").to_numpy()), cells=len(tables.cells))


def _along_lr(tables: Tables, fraction: float | None) -> Estimate:
    """Return the rank correlation of lr over critical lr with the movement, over cells that trained."""
    cells = trained(tables.cells)
    require_seeds(cells)
    relative = cells["lr_absolute"].astype(float) / critical_lr(cells)
    if fraction is None:
        return spearman(relative, movement(cells), cells["width"])
    ids = cells["cell_id"].astype(str)
    moved = ids.map(at_loss(tables.trace[tables.trace["cell_id"].isin(ids)], "ntk_change", fraction))
    return spearman(relative, moved.astype(float), cells["width"])


def _best(tables: Tables, total: bool = False) -> Estimate:
    """Return the fitted drift of the best lr in doublings, per doubling of the width or in total."""
    cells = tables.cells
    trained(cells)
    require_widths(cells)
    require_inside(best_lr(cells), cells)
    doublings = float(np.log2(cells["width"].max() / cells["width"].min())) if total else 1.0
    return over_seeds(cells, lambda part: doublings * drift_per_doubling(best_lr(part)), resamples=200)
