"""How the place of a boundary scales with another key: exponents with intervals, breaks, and theory."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from runner.analysis.boundary.places import bracket_widths
from runner.analysis.broken import LEAST, MOST_PIECES, Broken, broken_line
from runner.analysis.columns import facet_groups, records
from runner.analysis.theory import predicted_crossover, predicted_edge


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
        (fewest at one) and ``reason``, where there is no slope.
    """
    rows: list[dict[str, Any]] = []
    for values, part in facet_groups(seeds, keys):
        config = records(_of_facet(cells, values).head(1))[0]
        for change in ("begins", "ends"):
            there = part[(part["change"] == change) & (part[x] > 0)]
            if there.empty:
                continue
            # Where some seeds have their place beyond the grid, the others are no fair sample.
            beyond = part.loc[part["where"].isin(["nowhere", "everywhere"]), x]
            there = there[~there[x].isin(beyond)]
            head = {**values, "change": change, "values": there[x].nunique()}
            head["seeds"] = int(there.groupby(x).size().min()) if len(there) else 0
            law = law_of(there, x, most)
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
                row["theory"] = predicted(config, of, along, x, number, len(law.pieces))
                rows.append(row)
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
    ]
    table = pd.DataFrame(rows, columns=[*keys, *columns])
    return table.astype(dict.fromkeys(columns[2:11], float) | {"reason": object})


def law_of(there: pd.DataFrame, x: str, most: int) -> Broken | None:
    """Return the law through the places of one boundary; None with fewer than three values of x."""
    widths = bracket_widths(there, log=True)
    at = there[x].to_numpy(float)
    samples = {float(one): there["place"].to_numpy(float)[at == one] for one in np.unique(at)}
    quantum = {float(one): float(widths[at == one].mean()) for one in np.unique(at)}
    return broken_line(samples, most, quantum)


def predicted(
    cell: dict[str, Any], of: str, along: str, x: str, piece: int = 0, pieces: int = 1
) -> float | None:
    """Return the slope that theory gives of a boundary's place, None where it is silent.

    The edge of divergence along a learning rate, against width or gamma; the crossover from lazy to rich
    along gamma, against width. Of several pieces against gamma the first is the lazy one, the last the rich.

    Args:
        cell: Any cell, as for :func:`runner.analysis.theory.predicted_edge`.
    """
    if of in ("lazy_rich", "lazy", "rich") and along == "gamma" and x == "width":
        return predicted_crossover(cell)
    units = {"lr_absolute": "absolute", "lr_sharpness": "sharpness"}
    ends_at_critical = of == "c_loss" and cell.get("loss") == "mse"
    if not (of in ("diverged", "c_max") or ends_at_critical) or along not in ("lr", *units):
        return None
    there = cell | {"lr_unit": units.get(along, cell["lr_unit"])}
    if x != "gamma":
        return predicted_edge(there, x) if pieces == 1 else None
    lazy, rich = (predicted_edge(there, x, rich=side) for side in (False, True))
    if pieces == 1:  # one line through both limits has a prediction where they agree
        return lazy if lazy == rich else None
    return {0: lazy, pieces - 1: rich}.get(piece)


def _of_facet(cells: pd.DataFrame, values: dict[str, Any]) -> pd.DataFrame:
    """Return the cells of one combination of keys."""
    for found, part in facet_groups(cells, list(values)):
        if found == values:
            return part
    return cells
