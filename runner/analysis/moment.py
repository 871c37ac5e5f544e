"""A store as it was when a measure of each cell had come to a level: cells compared at matched loss.

Networks that train at different speeds differ at the same step in how far they are, and whatever else differs
follows from that. At the same loss they can be compared (Vyas et al., arXiv 2305.18411; Atanasov et al.,
arXiv 2410.04642).
"""

from dataclasses import replace

import pandas as pd

from runner.analysis.columns import floats
from runner.analysis.regime import JUDGED, classify, thresholds_of
from runner.errors import UserError, unknown
from runner.schema import EXTREMES, KEYS
from runner.store import Store

_KEYS = {"step", "layer_index"}


def at_level(store: Store, condition: str | None, outputs: bool = False) -> Store:
    """Return a store whose tables end, for each cell, where a measure first came to a level.

    There every measure is interpolated between the two measured steps around it, linearly, by how far the
    logarithm of the measure that sets the level (or that measure itself, where it is not positive) had come;
    one that was not taken at both is null. The regimes are judged anew. Cells that never came to the level
    are left out; what diverged stays.

    Args:
        condition: ``train_loss=0.02``: a numeric column of ``trace`` and its level, approached from either
            side. None gives the store itself.
        outputs: Whether the table ``outputs`` is wanted, too.

    Raises:
        UserError: If the condition is malformed, the measure unknown, or no cell came to the level.
    """
    if condition is None:
        return store
    metric, _, text = condition.partition("=")
    try:
        level = float(text)
    except ValueError:
        raise UserError(f"--at must be MEASURE=NUMBER, got {condition}; e.g. --at train_loss=0.02") from None
    known = [str(name) for name in store.trace.select_dtypes("number") if name not in _KEYS]
    if metric not in known:
        raise unknown("--at", metric, known)
    moments = _moments(store.trace, metric, level)
    cells = store.cells
    lost = cells["status"].astype(object) != "ok"
    came = cells["cell_id"].isin(moments.index) & ~lost
    if not came.any():
        raise UserError(f"--at must be a level that some cell came to, got {condition}; none of these did")
    trace, layers = (
        _until(getattr(store, table), moments, list(KEYS[table][2:])) for table in ("trace", "layers")
    )
    trace.loc[trace["step"] == trace["cell_id"].map(moments["step"]), metric] = level  # as was asked for
    last = trace.groupby("cell_id", observed=True).last()
    cells = cells[came | lost].copy()
    ended = came[came | lost]
    for name in [name for name in known if name in cells]:
        values = cells["cell_id"].map(last[name])
        cells[name] = floats(cells[name]).where(~ended, values)
    until = trace.groupby("cell_id", observed=True)
    for name, (source, which) in EXTREMES.items():
        if name in cells and source in trace:
            met = cells["cell_id"].map(until[source].agg(which))
            cells[name] = floats(cells[name]).where(~ended, met)
    cells[[*JUDGED]] = classify(cells, thresholds_of(store.config))
    found = replace(store)
    count = f"{int(came.sum())} of {int((~lost).sum())} cells came to it"
    text = f"at {metric} = {level:g}, between measured steps; {count}"
    # Where Store keeps what it has read.
    vars(found).update(cells=cells, trace=trace, layers=layers, config=store.config | {"at": text})
    if outputs:
        vars(found).update(outputs=_until(store.outputs, moments, list(KEYS["outputs"][2:])))
    return found


def _moments(trace: pd.DataFrame, metric: str, level: float) -> pd.DataFrame:
    """Return the measured step at or after the moment, the one before, and the place between them.

    Returns:
        Columns ``step``, ``before`` and ``weight`` (1 at ``step``), by cell; those that came to the level.
    """
    rows = pd.DataFrame({key: trace[key] for key in ("cell_id", "step")} | {"value": floats(trace[metric])})
    rows = rows.dropna(subset=["value"]).sort_values(["cell_id", "step"], kind="stable")
    by_cell = rows.groupby("cell_id", observed=True)
    falls = by_cell["value"].transform("first") > level
    rows = rows.assign(before=by_cell["step"].shift(), previous=by_cell["value"].shift())
    hit = rows["value"].le(level).where(falls, rows["value"].ge(level))
    first = rows[hit].groupby("cell_id", observed=True).first()
    ends = first[["previous", "value"]].assign(level=level)
    positive = (ends > 0).all(axis=1)
    scaled = ends.mask(positive, ends.where(ends > 0).transform("log"), axis=0)
    weight = (scaled["level"] - scaled["previous"]) / (scaled["value"] - scaled["previous"])
    return first[["step", "before"]].assign(weight=weight.fillna(1.0).clip(0, 1))


def _until(table: pd.DataFrame, moments: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Return the rows of a table up to the moment, which gets rows under the step that follows it.

    Args:
        keys: What tells apart the rows of one cell at one step.
    """
    table = table[table["cell_id"].isin(moments.index)]
    place = moments.loc[table["cell_id"]].set_axis(table.index)
    earlier, after = (table[table["step"] == place[name]] for name in ("before", "step"))
    names = [str(name) for name in table.select_dtypes("number") if name not in {*_KEYS, *keys}]
    before = after[["cell_id", *keys]].merge(earlier, on=["cell_id", *keys], how="left").set_axis(after.index)
    weight = place.loc[after.index, "weight"]
    ends = after.copy()
    for name in names:
        start, end = floats(before[name]), floats(after[name])
        ends[name] = end.where(weight == 1, start + weight * (end - start))
    return pd.concat([table[table["step"] < place["step"]], ends]).sort_values(
        ["cell_id", "step", *[key for key in ("layer_index",) if key in table]], kind="stable"
    )
