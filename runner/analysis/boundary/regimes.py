"""The boundaries of the regimes: where the measure that judges them passes their thresholds."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pandas as pd

from runner.analysis.boundary.properties import MOVEMENT
from runner.analysis.columns import column, groups
from runner.analysis.regime import check_thresholds

WORDS = {
    ("lazy", "begins"): "lazy until", ("lazy", "ends"): "lazy from",
    ("rich", "begins"): "rich from", ("rich", "ends"): "rich until",
    ("diverged", "begins"): "diverges from", ("diverged", "ends"): "diverges until",
}  # fmt: skip
"""What a boundary and the end of its property are called: what moves beyond its threshold is lazy no more."""


def boundary_words(name: str, change: str, regimes: Collection[str], thresholds: Mapping[str, Any]) -> str:
    """Return what a boundary is called beside cells of some regimes.

    Movement may pass the threshold of a regime that no cell is in, for those beyond it are untrained: it is
    then called by the threshold.

    Args:
        name: A key of :func:`regime_boundaries`.
        change: Whether the property ``begins`` or ``ends`` there.
        regimes: Of the cells that the line is drawn over.
    """
    if name == "diverged" or name in regimes:
        return WORDS[name, change]
    return f"movement {check_thresholds(thresholds)[name]:.3g}"


def regimes_of(cells: pd.DataFrame, facets: Sequence[str]) -> dict[tuple[Any, ...], set[str]]:
    """Return the regimes that cells are in, by the values of facets."""
    return {
        values: set(part["regime"].dropna().astype(str))
        for values, part in groups(cells, [column(cells, facet, "--facet") for facet in facets])
    }


def regime_boundaries(thresholds: Mapping[str, Any]) -> dict[str, str]:
    """Return the properties whose boundaries part the regimes, by the name of what they bound.

    Where the movement of kernel or features passes the thresholds of lazy and of rich, and where training
    diverges: properties as :func:`runner.analysis.boundary.properties.property_of` reads them.

    Args:
        thresholds: As in ``conf/regime/default.yaml``.
    """
    limit = check_thresholds(thresholds)
    return {
        "lazy": f"{MOVEMENT}={limit['lazy']:.6g}",
        "rich": f"{MOVEMENT}={limit['rich']:.6g}",
        "diverged": "diverged",
    }
