"""Where training breaks along the learning rate."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from runner.analysis.columns import facet_groups
from runner.analysis.estimate import numbers


def divergence_edge(cells: pd.DataFrame, by: Sequence[str] = ("width", "seed")) -> pd.DataFrame:
    """Return the learning rate beyond which cells diverge.

    The edge lies between the smallest lr that diverged and the largest below it that did not; the estimate is
    their geometric mean. There is one for each combination of values of the keys ``by``.

    Returns:
        The keys, ``last`` (stable), ``first`` (diverged) and ``edge``, all in absolute units; NaN where no
        cell or every cell diverged.
    """
    rows = []
    known = cells[cells["status"].astype(object) != "failed"]
    for keys, part in facet_groups(known, by):
        rate = numbers(part, "lr_absolute").to_numpy()
        diverged = (part["status"].astype(object) == "diverged").to_numpy()
        first = rate[diverged].min() if diverged.any() else np.nan
        below = rate[~diverged & (rate < first)]
        rows.append({**keys, "last": below.max() if len(below) else np.nan, "first": first})
    table = pd.DataFrame(rows, columns=[*by, "last", "first"])
    return table.assign(edge=np.sqrt(table["last"] * table["first"]))
