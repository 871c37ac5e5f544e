"""Where training breaks along the learning rate."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from runner.analysis.agreement import VERDICTS, Verdict, beside_theory, rivals_of
from runner.analysis.beside import theory_speaks
from runner.analysis.boundary.places import seed_places
from runner.analysis.boundary.properties import diverges
from runner.analysis.boundary.scaling import inside, of_facet, samples_of
from runner.analysis.columns import distinct, facet_groups, records
from runner.analysis.exponents import piece_bounds
from runner.analysis.theory import predicted_edge
from runner.analysis.transfer import STAYS, along, drift_columns, drift_law, drift_of, with_stays
from runner.errors import UserError


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
        know that an edge is only known to the step of the grid), ``theory`` (null where it says nothing),
        ``verdict`` and ``because`` (whether the drift is theory's), ``stays_put`` and ``stays_because``, and
        ``seeds``.

    Raises:
        UserError: As :func:`runner.analysis.transfer.along`, if there is no edge at all, or if there are too
            few for the pieces asked for.
    """
    bounds = piece_bounds(pieces, x)
    cells = along(cells, x, facets)
    seeds = seed_places(cells, diverges(cells), "lr", [x, *facets])
    rows: list[dict[str, Any]] = []
    for facet, part in facet_groups(cells, facets):
        found = of_facet(seeds, facet)
        known = inside(found, "begins", x)
        samples, brackets = samples_of(known, x)
        law = drift_law(samples, brackets, bounds, x)
        cell, own = records(part.head(1))[0], []
        for place in distinct(part[x]):
            drift = drift_of(law, place)
            pieces_found = 1 if law is None else len(law.pieces)
            theory = None
            if law is not None and theory_speaks(x, drift["piece"], pieces_found):
                theory = predicted_edge(cell, x, rich=drift["piece"] > 0)
            here = known[known[x] == place]
            rates = {
                name: float(np.exp(np.log(here[column]).mean())) if len(here) else np.nan
                for name, column in {"edge": "place", "low": "last", "high": "first"}.items()
            }
            own.append(
                {**facet, x: place, **rates, "at_end": here.empty, **drift, "theory": theory}
                | _judged(drift, theory, cell, x)._asdict()
                | {"seeds": part["seed"].nunique()}
            )
        rows += with_stays(own, x, "edge")
    if all(row["at_end"] for row in rows):
        raise UserError(
            f"lr must reach from stable to diverged at some {x} for an edge, got none where every seed does "
            "both; sweep more learning rates"
        )
    said = ["theory", *VERDICTS, *STAYS, "seeds"]
    columns = [x, "edge", "low", "high", "at_end", *drift_columns(max(2, bounds[1])), *said]
    return pd.DataFrame(rows, columns=[*facets, *columns])


def _judged(drift: Mapping[str, Any], theory: float | None, cell: dict[str, Any], x: str) -> Verdict:
    """Return whether the drift of a piece is theory's."""
    row = {"slope": drift["drift"], "low": drift["drift_low"], "high": drift["drift_high"], "theory": theory}
    rich = drift["piece"] > 0
    return beside_theory(row, rivals_of(theory, cell, lambda other: predicted_edge(other, x, rich=rich)))
