"""A measured slope beside its points and theory's: whether it is one, and why the two may differ."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from runner.analysis.columns import plain
from runner.scaling.alignment import assumed_alignment

CHANGES = ("ntk_change", "kernel_distance", "feature_movement", "linearization_error", "pattern_change")
"""Measures that are one where all has changed."""
SMALL, NEAR, APART = 0.15, 0.1, 0.5
"""Up to which change theory's slopes hold, how near measured ones must be, and how far apart terms are that
ten-fold widths set apart."""

NOT_STRAIGHT = "no straight line describes the points"
LOOSE = 2.0
"""Times what seeds explain, from which on points do not lie where they should: half a dozen seeds tell their
spread to a third or so."""


def is_bent(row: Mapping[str, Any]) -> bool:
    """Tell whether points lie off their straight line by far more than seeds differ.

    Args:
        row: Of :func:`runner.analysis.exponents.fit`.

    Returns:
        False, too, where nothing tells.
    """
    return is_loose(row)


def is_loose(row: Mapping[str, Any]) -> bool:
    """Tell whether what is left, ``residual``, is far more than the seeds explain, ``noise``."""
    residual, noise = plain(row.get("residual")), plain(row.get("noise"))
    return residual is not None and noise is not None and bool(residual >= LOOSE * noise)


def beside_assumed(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return a line for each layer with a measured alignment that theory assumes: both, over all facets.

    Args:
        rows: Of :func:`fit`; those of other metrics say nothing here.
    """
    found: dict[tuple[str, str, float], list[float]] = {}
    for row in rows:
        metric, layer, largest = row["metric"].rpartition(".")[2], str(row["layer"]), plain(row["largest"])
        assumed = assumed_alignment(metric, plain(row["role"]))
        if assumed is not None and largest is not None:
            found.setdefault((metric, layer, assumed), []).append(largest)
    return [
        f"{metric} of {layer} comes to {_range(values)}, theory assumes {assumed:g} where fan_in is large"
        for (metric, layer, assumed), values in found.items()
    ]


def _range(values: Sequence[float]) -> str:
    """Return the smallest and the largest in words, once where they read the same."""
    return " to ".join(dict.fromkeys(f"{value:.2f}" for value in (min(values), max(values))))


def theory_speaks(x: str, place: int, pieces: int) -> bool:
    """Tell whether a piece is a limit of its key: of width or depth the last, of gamma the outer ones."""
    if x in ("width", "depth"):
        return place == pieces - 1
    return x == "gamma" and pieces > 1 and place in (0, pieces - 1)


def why_off(row: Mapping[str, Any]) -> str | None:
    """Return why a measured slope need not be theory's at these widths; None where it is near or should be.

    Theory's slopes are those of changes that are small against what changes: a change of order one saturates,
    and terms that theory drops are of its size.

    Args:
        row: Of :func:`fit`.
    """
    slope, theory, largest, rival = (plain(row[name]) for name in ("slope", "theory", "largest", "next_term"))
    if slope is None or theory is None or abs(slope - theory) < NEAR:
        return None
    if largest >= SMALL and theory < 0 and row["metric"].rpartition(".")[2] in CHANGES:
        return f"{row['metric']} comes to {largest:.2g}: theory's slope is that of small changes"
    if rival is not None and theory - rival <= APART:
        return f"{row['metric']} has a term of slope {rival:g}, too near at these widths"
    return None
