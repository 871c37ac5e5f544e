"""Training curves: a measure over steps, with the median and the range of the seeds."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from runner.analysis.columns import column, floats, groups, locate, metric_tables
from runner.analysis.selection import require_no_other_varying

DEFAULT_METRICS = ("train_loss", "ntk_change", "feature_movement", "movement_frobenius")
_NOT_METRICS = {"cell_id", "step", "layer", "layer_index", "role"}


def curve_metrics(trace: pd.DataFrame, layers: pd.DataFrame) -> dict[str, str]:
    """Return every measure that was taken along training and its table: the trace before the layers."""
    return metric_tables({
        name: [metric for metric in frame.columns if metric not in _NOT_METRICS]
        for name, frame in (("trace", trace), ("layers", layers))
    })  # fmt: skip


def curves(
    cells: pd.DataFrame, trace: pd.DataFrame, layers: pd.DataFrame, metrics: Sequence[str] = DEFAULT_METRICS,
    by: str = "width", facets: Sequence[str] = ("parameterization",),
) -> pd.DataFrame:  # fmt: skip
    """Return measures over steps.

    Args:
        cells: The chosen rows of ``cells``; nothing may vary but the seed, ``by`` and the facets.
        metrics: Columns of either; ``layers.feature_movement`` where both have one of that name.
        by: Key with one curve per value.
        facets: Keys with one panel per combination of values.

    Returns:
        The facet keys, ``metric``, ``layer`` (null for a measure of the whole network), ``by`` under its own
        name, ``step``, ``value`` (median over the seeds that were still training), ``low``, ``high`` (their
        range) and ``seeds``. What was not measured has no rows.

    Raises:
        UserError: If a metric or key is unknown, or another key varies.
    """
    places = locate(metrics, curve_metrics(trace, layers))
    keys = list(dict.fromkeys([*facets, by]))
    chosen = pd.DataFrame({key: column(cells, key, "--facet" if key in facets else "--by") for key in keys})
    require_no_other_varying(cells, (by,), facets)
    chosen["cell_id"] = cells["cell_id"]
    rows = []
    for values, part in groups(chosen, [chosen[key] for key in keys]):
        for metric, name, measure in places:
            table = trace if name == "trace" else layers
            found = over_steps(table[table["cell_id"].isin(part["cell_id"])], measure)
            same = {key: [value] * len(found) for key, value in zip(keys, values, strict=True)}
            rows.append(found.assign(**same, metric=metric))
    columns = list(dict.fromkeys([*facets, "metric", "layer", by, "step", "value", "low", "high", "seeds"]))
    return pd.concat(rows, ignore_index=True)[columns] if rows else pd.DataFrame(columns=columns)


def over_steps(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return median and range of a measure at each step (and layer) over the cells of a table."""
    keys = ["layer_index", "layer", "step"] if "layer" in table else ["step"]
    value = floats(table[metric]).replace([np.inf, -np.inf], np.nan)
    grouped = table.assign(value=value).dropna(subset=["value"]).groupby(keys, observed=True)["value"]
    found = grouped.agg(value="median", low="min", high="max", seeds="size").reset_index()
    return found.assign(layer=found.get("layer"))
