"""Where training breaks along the learning rate."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from runner.analysis.columns import distinct, facet_groups, records
from runner.analysis.estimate import numbers
from runner.analysis.exponents import piece_bounds, theory_speaks
from runner.analysis.theory import predicted_edge
from runner.analysis.transfer import along, drift_columns, drift_law, drift_of
from runner.errors import UserError


def divergence_edge(
    cells: pd.DataFrame, by: Sequence[str] = ("width", "seed"), unit: str = "lr_absolute"
) -> pd.DataFrame:
    """Return the learning rate beyond which cells diverge.

    The edge lies between the smallest lr that diverged and the largest below it that did not; the estimate is
    their geometric mean. There is one for each combination of values of the keys ``by``.

    Args:
        unit: Column of the learning rate.

    Returns:
        The keys, ``last`` (stable), ``first`` (diverged) and ``edge``, all in that unit; NaN where no cell or
        every cell diverged.
    """
    rows = []
    known = cells[cells["status"].astype(object) != "failed"]
    for keys, part in facet_groups(known, by):
        rate = numbers(part, unit).to_numpy()
        diverged = (part["status"].astype(object) == "diverged").to_numpy()
        first = rate[diverged].min() if diverged.any() else np.nan
        below = rate[~diverged & (rate < first)]
        rows.append({**keys, "last": below.max() if len(below) else np.nan, "first": first})
    table = pd.DataFrame(rows, columns=[*by, "last", "first"])
    return table.assign(edge=np.sqrt(table["last"] * table["first"]))


def stable_rates(
    cells: pd.DataFrame,
    facets: Sequence[str] = ("parameterization",),
    x: str = "width",
    pieces: str | int | None = None,
) -> pd.DataFrame:
    """Return the largest stable learning rate at each value of a key, and its drift.

    Args:
        cells: The chosen rows; nothing may vary but the key, lr, seed and the facets.
        facets: Keys with one line per combination of values.
        x: The key, with numbers; where it is not positive a cell is left out.
        pieces: Of the drift, as for :func:`runner.analysis.exponents.fit`.

    Returns:
        The facet keys, the key, ``edge`` (geometric mean over seeds, in units of the swept lr), ``low`` and
        ``high`` (those of the largest lr that did not diverge and of the smallest that did), ``at_end``
        (whether a seed diverged nowhere or everywhere: the edge is beyond the grid, and the three are null),
        ``piece``, ``drift`` (doublings of the edge per doubling of the key), ``drift_low``, ``drift_high``,
        ``break``, ``break_low``, ``break_high`` as for :func:`runner.analysis.transfer.transfer` (intervals
        know that an edge is only known to the step of the grid), ``theory`` (null where it says nothing) and
        ``seeds``.

    Raises:
        UserError: As :func:`runner.analysis.transfer.along`, if there is no edge at all, or if there are too
            few for the pieces asked for.
    """
    least, most = piece_bounds(pieces, x)
    rows = []
    for facet, part in facet_groups(along(cells, x, facets), facets):
        edges = divergence_edge(part, (x, "seed"), "lr")
        known = {
            place: found
            for place, found in ((place, edges[edges[x] == place]) for place in distinct(edges[x]))
            if found["edge"].notna().all()
        }
        steps = {place: np.log(found["first"] / found["last"]).mean() for place, found in known.items()}
        samples = {place: found["edge"].to_numpy(float) for place, found in known.items()}
        law = drift_law(samples, steps, (least, most), x)
        cell = records(part.head(1))[0]
        for place in distinct(part[x]):
            drift = drift_of(law, place)
            theory = None
            if law is not None and theory_speaks(x, drift["piece"], len(law.pieces)):
                theory = predicted_edge(cell, x, rich=drift["piece"] > 0)
            found = known.get(place, edges.iloc[:0])
            of = {"edge": "edge", "low": "last", "high": "first"}
            rates = {
                name: float(np.exp(np.log(found[column]).mean())) if len(found) else np.nan
                for name, column in of.items()
            }
            rows.append(
                {**facet, x: place, **rates, "at_end": place not in known, **drift}
                | {"theory": theory, "seeds": part["seed"].nunique()}
            )
    if all(row["at_end"] for row in rows):
        raise UserError(
            f"lr must reach from stable to diverged at some {x} for an edge, got none where every seed does "
            "both; sweep more learning rates"
        )
    columns = [x, "edge", "low", "high", "at_end", *drift_columns(max(2, most)), "theory", "seeds"]
    return pd.DataFrame(rows, columns=[*facets, *columns])
