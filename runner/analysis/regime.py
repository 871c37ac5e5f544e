"""The regime of a cell: what its measures say about how it trained.

Thresholds come from ``conf/regime/``, so that old tables can be classified anew without retraining.
"""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from runner.analysis.critical import above_critical
from runner.errors import UserError
from runner.grid.config import load_thresholds

REGIMES = ("lazy", "crossover", "rich", "untrained", "diverged")
LETTERS = {regime: regime[0].upper() for regime in REGIMES}
# From Okabe & Ito's palette: apart in lightness for grey printing, and no two differ by red against green.
COLORS = {
    "lazy": "#56B4E9",
    "crossover": "#F0E442",
    "rich": "#D55E00",
    "untrained": "#DDDDDD",
    "diverged": "#3D3D3D",
}
TEXT_COLORS = {regime: "#FFFFFF" if regime == "diverged" else "#000000" for regime in REGIMES}
JUDGED = ("regime", "catapult", "controlled_divergence")
"""Columns of :func:`classify`."""
MARKS = {"controlled_divergence": "*"}
"""Flags that diagrams show, and the mark of each behind the letter of the regime."""
THRESHOLDS = ("untrained", "lazy", "rich", "catapult")
SINCE = ("saturated", "exploded")
"""Thresholds that came later: where they are missing, they are those of ``conf/regime/default.yaml``."""


def regime_texts(thresholds: Mapping[str, Any]) -> dict[str, str]:
    """Return what each regime means, in a sentence that quotes the thresholds.

    Args:
        thresholds: As in ``conf/regime/default.yaml``.
    """
    limit = check_thresholds(thresholds)
    return {
        "lazy": f"Kernel and features moved by less than {limit['lazy']:.3g} of their size: training is "
        "kernel regression with the tangent kernel of init (Jacot et al., arXiv 1806.07572; Chizat et al., "
        "arXiv 1812.07956).",
        "crossover": "Between the two: the kernel or the features moved, but neither by more than "
        f"{limit['rich']:.3g} of its size.",
        "rich": f"The kernel or the features moved by more than {limit['rich']:.3g} of their size: the "
        "network learned features (Yang & Hu, arXiv 2011.14522; Geiger et al., arXiv 1906.08034).",
        "untrained": f"The loss stayed above {limit['untrained']:.3g} of its start, so that nothing can be "
        "said of the regime: not trained yet where it never rose, at too large a learning rate where it rose "
        f"above {limit['catapult']:.3g} times its start.",
        "diverged": "The loss grew beyond its limit: a learning rate above the stable ones (Lewkowycz et "
        "al., arXiv 2003.02218).",
    }


def rich_words(thresholds: Mapping[str, Any]) -> str:
    """Return what the line ``rich from`` is, and what the letter of the regime needs beside it.

    Args:
        thresholds: As in ``conf/regime/default.yaml``.
    """
    limit = check_thresholds(thresholds)
    return (
        f"kernel or features moved by {limit['rich']:.3g} of their size. The letter {LETTERS['rich']} needs "
        f"more: the loss fell below {limit['untrained']:.3g} of its start, too, else it is "
        f"{LETTERS['untrained']}, and most seeds agree."
    )


def marks_of(point: Mapping[str, Any]) -> str:
    """Return the marks of the flags that most seeds of a point have; none where a flag is not known.

    Args:
        point: A row of :func:`runner.analysis.phase.phase_grid`.
    """
    return "".join(mark for flag, mark in MARKS.items() if point[flag] > 0.5)


def marks_words(grid: pd.DataFrame) -> str:
    """Return what the marks in a diagram stand for, nothing where there are none."""
    there = [f"{mark} {flag.replace('_', ' ')}" for flag, mark in MARKS.items() if (grid[flag] > 0.5).any()]
    return ", ".join(there)


def flag_texts(thresholds: Mapping[str, Any]) -> dict[str, str]:
    """Return what each flag that diagrams show means, in a sentence that quotes the thresholds.

    Args:
        thresholds: As in ``conf/regime/default.yaml``.
    """
    limit = check_thresholds(thresholds)
    return {
        "controlled_divergence": "Under the cross-entropy logits grew until misclassified samples were "
        f"wrong by {limit['saturated']:.3g} on average, while features changed by at most "
        f"{limit['exploded']:.3g} times their size: in such logits the loss is linear, its gradient "
        "bounded, and training survives (Haas et al., arXiv 2505.22491).",
    }


def check_thresholds(thresholds: Mapping[str, Any]) -> dict[str, float]:
    """Return the thresholds as floats; of :data:`SINCE` those of the defaults where they are missing.

    Args:
        thresholds: As in ``conf/regime/default.yaml``; other keys are ignored.

    Raises:
        UserError: If one is missing, not a positive number, or if ``lazy`` exceeds ``rich``.
    """
    checked = {}
    given = {**_later(), **thresholds}
    for name in (*THRESHOLDS, *SINCE):
        value = given.get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < np.inf:
            raise UserError(
                f"regime.{name} must be a positive number, got {value!r}; "
                "conf/regime/default.yaml shows them all"
            )
        checked[name] = float(value)
    if checked["lazy"] > checked["rich"]:
        raise UserError(
            f"regime.lazy must not exceed regime.rich, got {checked['lazy']:g} and {checked['rich']:g}; "
            "crossover lies between them"
        )
    return checked


@functools.cache
def _later() -> dict[str, Any]:
    default = load_thresholds("default")
    return {name: default[name] for name in SINCE}


def thresholds_of(config: Mapping[str, Any], regime: str | Path | None = None) -> dict[str, Any]:
    """Return the thresholds to judge by: those asked for, else those of a launch's config."""
    if regime is None and config.get("regime"):
        return dict(config["regime"])
    return load_thresholds("default" if regime is None else regime)


def classify(cells: pd.DataFrame, thresholds: Mapping[str, Any]) -> pd.DataFrame:
    """Return the regime and the flags of each cell.

    In order: ``diverged`` by status; ``untrained`` if the final train loss exceeds its share of the loss at
    init; ``rich`` if the kernel or the features moved beyond ``rich``; ``lazy`` if neither passed ``lazy``;
    else ``crossover``. A measure that is null is left out of the judgement; with none there is no regime.

    Beside the regime, a cell under cross-entropy is one of ``controlled_divergence`` if at some measured step
    its misclassified samples were wrong by ``saturated`` on average, its features never moved beyond
    ``exploded``, and it trained in the end or is still as wrong. Haas et al. define that regime by growth
    with width, of logits and not of activations; one cell shows it by a softmax which gives the right class
    less than float32 can tell from nothing, so that the gradient no longer depends on the size of the logits.

    Args:
        cells: Columns status, train_loss, initial_train_loss, ntk_change, feature_movement, peak_loss_ratio;
            for the flag of controlled divergence loss, worst_wrong_margin, wrong_margin and
            peak_feature_movement.
        thresholds: As in ``conf/regime/default.yaml``.

    Returns:
        Columns ``regime`` (null where the cell failed or nothing tells), ``catapult`` (nullable bool: the
        cell trained after its loss had peaked above the threshold, at a learning rate above the critical one,
        where ``lr_sharpness`` tells) and ``controlled_divergence`` (nullable bool: false under the MSE and of
        a cell that diverged, null where the margins or the features were not measured), on the index of
        ``cells``.

    References:
        Haas et al. (2025), arXiv 2505.22491, for controlled divergence.
    """
    limit = check_thresholds(thresholds)
    status = cells["status"].astype(object)
    final, initial, peak = (
        _floats(cells, key) for key in ("train_loss", "initial_train_loss", "peak_loss_ratio")
    )
    movement = np.stack([_floats(cells, "ntk_change"), _floats(cells, "feature_movement")])
    measured = ~np.isnan(movement).all(axis=0)
    known = (status == "ok").to_numpy() & ~np.isnan(final) & ~np.isnan(initial)
    untrained = known & (final > limit["untrained"] * initial)
    trained = known & ~untrained
    # Comparisons with NaN are false: a null measure is neither rich nor an obstacle to lazy.
    rich = (movement > limit["rich"]).any(axis=0)
    lazy = ~(movement >= limit["lazy"]).any(axis=0)

    regime = np.full(len(cells), None, dtype=object)
    regime[trained & measured] = "crossover"
    regime[trained & measured & lazy] = "lazy"
    regime[trained & measured & rich] = "rich"
    regime[untrained] = "untrained"
    regime[(status == "diverged").to_numpy()] = "diverged"

    flag = trained & (peak > limit["catapult"]) & above_critical(cells)
    unknown = (status == "failed").to_numpy() | (trained & np.isnan(peak))
    catapult = pd.Series(flag, index=cells.index, dtype="boolean").mask(unknown)
    controlled = _controlled(cells, limit, trained).mask((status == "failed").to_numpy())
    found = (pd.Series(regime, index=cells.index, dtype=object), catapult, controlled)
    return pd.DataFrame(dict(zip(JUDGED, found, strict=True)), index=cells.index)


def _controlled(cells: pd.DataFrame, limit: Mapping[str, float], trained: np.ndarray) -> pd.Series:
    """Return the flag of controlled divergence; see :func:`classify`."""
    worst, last, moved = (
        _floats(cells, key) for key in ("worst_wrong_margin", "wrong_margin", "peak_feature_movement")
    )
    saturated = worst <= -limit["saturated"]
    flag = saturated & (moved <= limit["exploded"]) & (trained | (last <= -limit["saturated"]))
    unknown = np.isnan(worst) | (saturated & np.isnan(moved))
    cannot = (cells["status"] == "diverged").to_numpy()
    if "loss" in cells:
        cannot = cannot | (cells["loss"] == "mse").to_numpy()
    flags = pd.Series(flag & ~cannot, index=cells.index, dtype="boolean")
    return flags.mask(unknown & ~cannot)


def _floats(cells: pd.DataFrame, key: str) -> np.ndarray:
    """Return a column as floats, null as NaN; a pack in which no cell was measured lacks the column."""
    if key not in cells:
        return np.full(len(cells), np.nan)
    return pd.to_numeric(cells[key], errors="coerce").to_numpy(dtype=float, na_value=np.nan)
