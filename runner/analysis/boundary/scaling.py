"""How the place of a boundary scales with another key: exponents with intervals, breaks, and theory."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from runner.analysis.agreement import VERDICTS, Verdict, beside_theory, rivals_of
from runner.analysis.beside import theory_speaks
from runner.analysis.broken import LEAST, MOST_PIECES, broken_line
from runner.analysis.columns import facet_groups, records
from runner.analysis.theory import predicted_crossover, predicted_edge

_EDGES = (
    ("diverged", "begins"), ("c_max", "begins"), ("trained", "ends"), ("controlled_divergence", "ends"),
)  # fmt: skip
"""Properties, and ends of them, at the largest learning rate at which training is stable."""
_OF_LOGITS = (("c_loss", "begins"), ("controlled_divergence", "begins"))
"""The same at that at which outputs stay of order one."""


def exponents(
    seeds: pd.DataFrame,
    cells: pd.DataFrame,
    of: str,
    along: str,
    x: str,
    keys: Sequence[str],
    most: int = MOST_PIECES,
) -> pd.DataFrame:
    """Return the slopes of log place against log key, as a broken power law.

    Args:
        seeds: As :func:`runner.analysis.boundary.places.seed_places` returns them, for ``[x, *keys]``; places
            and keys positive.
        cells: The cells behind them.
        of: The property.
        along: The key along which it changes.
        x: The key that the place may depend on.
        keys: Keys with one law per combination of values.
        most: The largest number of pieces.

    Returns:
        One row per combination, end and piece: ``keys``, ``change``, ``piece`` (from 0), ``slope``,
        ``slope_low``, ``slope_high`` (95 %), ``theory``, ``first`` and ``last`` (the range of x), ``break``
        (where the piece ends; null for the last), ``break_low``, ``break_high``, ``values`` (of x), ``seeds``
        (fewest at one), ``reason``, where there is no slope, ``verdict`` and ``because``, beside theory.
    """
    rows: list[dict[str, Any]] = []
    for values, part in facet_groups(seeds, keys):
        config = records(of_facet(cells, values).head(1))[0]
        for change in ("begins", "ends"):
            if not (part["change"] == change).any():
                continue
            there = inside(part, change, x)
            head = {**values, "change": change, "values": there[x].nunique()}
            head["seeds"] = int(there.groupby(x).size().min()) if len(there) else 0
            samples, quantum = samples_of(there, x)
            law = broken_line(samples, most, quantum)
            if law is None:
                reason = f"all seeds have a place at {head['values']} values of {x}, fewer than {LEAST}"
                rows.append({**head, "piece": 0, "reason": reason})
                continue
            for number, piece in enumerate(law.pieces):
                row = {
                    **head,
                    "piece": number,
                    "slope": piece.slope,
                    "slope_low": piece.low,
                    "slope_high": piece.high,
                    "first": piece.first,
                    "last": piece.last,
                }
                if number < len(law.breaks):
                    end = law.breaks[number]
                    row |= {"break": end.place, "break_low": end.low, "break_high": end.high}
                asked = (of, along, x, number, len(law.pieces), change)
                row["theory"] = predicted(config, *asked)
                rows.append(row | _judged(row, config, asked)._asdict())
    columns = [
        "change",
        "piece",
        "slope",
        "slope_low",
        "slope_high",
        "theory",
        "first",
        "last",
        "break",
        "break_low",
        "break_high",
        "values",
        "seeds",
        "reason",
        *VERDICTS,
    ]
    table = pd.DataFrame(rows, columns=[*keys, *columns])
    return table.astype(dict.fromkeys(columns[2:11], float) | dict.fromkeys(("reason", *VERDICTS), object))


def _judged(row: dict[str, Any], config: dict[str, Any], asked: tuple[Any, ...]) -> Verdict:
    """Return whether the slope of a piece is theory's, of :func:`predicted`."""
    rivals = rivals_of(row["theory"], config, lambda cell: predicted(cell, *asked))
    return beside_theory(row | {"low": row["slope_low"], "high": row["slope_high"]}, rivals)


def inside(seeds: pd.DataFrame, change: str, x: str) -> pd.DataFrame:
    """Return the places of one end at those positive values of a key at which every seed has one.

    Where some seeds have theirs beyond the grid, the others are no fair sample.
    """
    there = seeds[(seeds["change"] == change) & (seeds[x] > 0)]
    beyond = seeds.loc[seeds["where"].isin(["nowhere", "everywhere"]), x]
    return there[~there[x].isin(beyond)]


def samples_of(there: pd.DataFrame, x: str) -> tuple[dict[float, np.ndarray], dict[float, float]]:
    """Return the places by the key, and the width in logarithms within which each is known to lie.

    Args:
        there: Places of one end, one row per value of the key and seed.
    """
    place, error, at = (there[name].to_numpy(float) for name in ("place", "error", x))
    values = [float(one) for one in np.unique(at)]
    return {one: place[at == one] for one in values}, {
        one: float(2 * error[at == one].mean()) for one in values
    }


def of_facet(rows: pd.DataFrame, values: dict[str, Any]) -> pd.DataFrame:
    """Return the rows of one combination of keys."""
    for found, part in facet_groups(rows, list(values)):
        if found == values:
            return part
    return rows.iloc[:0]


def predicted(
    cell: dict[str, Any],
    of: str,
    along: str,
    x: str,
    piece: int = 0,
    pieces: int = 1,
    change: str = "begins",
) -> float | None:
    """Return the slope that theory gives of a boundary's place, None where it is silent.

    Along a learning rate, against width or gamma: the edge of divergence, which ends what trains, and where
    the loss or the logits leave their order; under the MSE both are one, under the cross-entropy controlled
    divergence lies between them. The crossover from lazy to rich along gamma, against width. Which piece is a
    limit says :func:`runner.analysis.beside.theory_speaks`.

    Args:
        cell: Any cell, as for :func:`runner.analysis.theory.predicted_edge`.
        change: Whether the property ``begins`` or ``ends`` there.

    References:
        Haas et al. (2025), arXiv 2505.22491, for the cross-entropy.
    """
    if of in ("lazy_rich", "lazy", "rich") and along == "gamma" and x == "width":
        return predicted_crossover(cell)
    units = {"lr_absolute": "absolute", "lr_sharpness": "sharpness"}
    where = (of, change)
    if where not in (*_EDGES, *_OF_LOGITS) or along not in ("lr", *units):
        return None
    if not theory_speaks(x, piece, pieces):
        return None
    there = cell | {"lr_unit": units.get(along, cell["lr_unit"])}
    if where in _OF_LOGITS:  # must stay of order one there, as under the MSE everywhere
        there["loss"] = "mse"
    return predicted_edge(there, x, rich=piece > 0)
