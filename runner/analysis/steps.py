"""Cells at each of their measured steps: what would be said of them, had they ended there.

The regime of a cell is read off what was measured last; the same reading of every measured step, which
``trace`` keeps, says when a network left the lazy regime, without training anew.
"""

from collections.abc import Collection, Mapping
from typing import Any

import pandas as pd

from runner.analysis.columns import floats, groups
from runner.analysis.regime import JUDGED, classify
from runner.schema import DERIVED, EXTREMES
from runner.store import Store

_JUDGED_BY = ("ntk_change", "feature_movement")
_OF_INIT = ("initial_train_loss", "lr_sharpness", "settings", "loss")
"""What a judgement needs beside the measures of the step."""
_SCHEDULE = ("steps", "measure.points", "measure.spacing", "measure.every", "measure.steps")
"""Keys that say at which steps a cell is measured."""
_STAYED = ("lazy", "untrained")


def at_steps(cells: pd.DataFrame, trace: pd.DataFrame, thresholds: Mapping[str, Any]) -> pd.DataFrame:
    """Return the cells as they were at each measured step: as if training had ended there.

    The steps are those at which cells of the same schedule were measured while they trained, and the last at
    which any of them was. A cell that a stop rule ended earlier stays as it was then, one that diverged is
    diverged from there on, one that failed has failed at all. Step 0 is left out: at init every cell is
    untrained, and a logarithmic axis has no place for it.

    Args:
        cells: The chosen rows of ``cells``.
        trace: Rows of ``trace``.
        thresholds: As in ``conf/regime/default.yaml``.

    Returns:
        A row per cell and step: the columns of ``cells``, those of measures and ``status``, ``regime`` and
        its flags at that step, and ``step``. The regime is null where a measure that judges is taken more
        rarely and would decide; ``catapult`` is null before the last step, for the peak of the loss until
        then is not kept.
    """
    judged = _judged(cells, trace, thresholds)
    ends = {key: floats(cells[key]) for key in ("stopped_step", "diverged_step")}
    ends["diverged_step"] = ends["diverged_step"].where(cells["status"].astype(object) == "diverged")
    lives = cells[["cell_id", "status", *[key for key in _SCHEDULE if key in cells]]].assign(**ends)
    measured = judged.loc[judged["step"] > 0, ["cell_id", "step"]]
    measured = measured.merge(lives[["cell_id", "stopped_step"]], on="cell_id")
    schedule = [lives[key] for key in _SCHEDULE if key in lives]
    places = pd.concat([_places(part, measured) for _, part in groups(lives, schedule)], ignore_index=True)
    constant = cells.drop(columns=[name for name in judged if name in cells and name != "cell_id"])
    constant = constant.drop(columns="status", errors="ignore")
    found = places.merge(constant, on="cell_id").merge(
        judged.rename(columns={"step": "source"}), on=["cell_id", "source"], how="left"
    )
    diverged = found["status"] == "diverged"
    regime = found["regime"].astype(object)
    found["regime"] = regime.where(regime.notna(), None).mask(diverged, "diverged")
    for flag in JUDGED[1:]:
        found[flag] = found[flag].mask(diverged, False)
    found.attrs.update(cells.attrs)
    return found.drop(columns="source")


def with_derived(
    store: Store, cells: pd.DataFrame, thresholds: Mapping[str, Any], names: Collection[str]
) -> pd.DataFrame:
    """Return the cells with the columns of ``DERIVED``, if one of them is among the names.

    Args:
        store: The store, whose trace is read then.
        cells: The chosen rows of its ``cells``.
        thresholds: As in ``conf/regime/default.yaml``.
        names: Columns that are asked for.
    """
    if not {column.name for column in DERIVED} & set(names):
        return cells
    judged = _judged(cells, store.trace, thresholds).sort_values("step", kind="stable")
    left = judged[judged["regime"].notna() & ~judged["regime"].isin(_STAYED)]
    exits = left.groupby("cell_id", observed=True)["step"].first()
    stayed = judged[judged["regime"].isin(_STAYED) & (judged["step"] < judged["cell_id"].map(exits))]
    before = stayed.groupby("cell_id", observed=True)["step"].last()
    found = {"lazy_exit_step": exits, "lazy_until_step": before}
    return cells.assign(**{
        column.name: cells["cell_id"].map(found[column.name]).astype("Int64") for column in DERIVED
    })  # fmt: skip


def _judged(cells: pd.DataFrame, trace: pd.DataFrame, thresholds: Mapping[str, Any]) -> pd.DataFrame:
    """Return the rows of ``trace`` of some cells with the regime and the flags of each."""
    rows = trace[trace["cell_id"].isin(cells["cell_id"])]
    known = cells[["cell_id", *[name for name in _OF_INIT if name in cells]]]
    known = known.assign(peak_loss_ratio=floats(cells["peak_loss_ratio"]), end=cells["status"].astype(object))
    found = rows.merge(known, on="cell_id").reset_index(drop=True)
    by_cell = found.groupby("cell_id", observed=True)
    last = (found["step"] == by_cell["step"].transform("max")) & (found["end"] == "ok")
    found["peak_loss_ratio"] = found["peak_loss_ratio"].where(last)
    met = {
        name: found.sort_values("step", kind="stable")
        .groupby("cell_id", observed=True)[source]
        .agg(f"cum{which}")
        for name, (source, which) in EXTREMES.items()
        if source in found
    }
    judged = classify(found.assign(status="ok", **met), thresholds)
    rarer = pd.Series(False, index=found.index)
    for name in (name for name in _JUDGED_BY if name in found):
        taken = floats(found[name]).notna()
        rarer |= ~taken & taken.groupby(found["cell_id"]).transform("any")
    # What is rich by one measure, or has not trained, is so whatever the other would have said.
    decided = judged["regime"].isin(["rich", "untrained"])
    regime = judged["regime"].where(~rarer | decided, None)
    return found[list(rows.columns)].assign(**{**judged, "regime": regime})


def _places(lives: pd.DataFrame, measured: pd.DataFrame) -> pd.DataFrame:
    """Return where the cells of one schedule stand at its steps.

    Args:
        lives: Columns cell_id, status, stopped_step, diverged_step and steps.
        measured: Columns cell_id, step and stopped_step; step 0 is not among them.

    Returns:
        Columns ``cell_id``, ``step``, ``status`` then, and ``source``, the measured step that tells of it.
    """
    own = measured[measured["cell_id"].isin(lives["cell_id"])]
    steps = {*own.loc[own["step"] != own["stopped_step"], "step"], *own["step"].nlargest(1)}
    if not steps or (lives["diverged_step"] > max(steps)).any():
        steps |= {*lives["steps"]}
    places = lives.merge(pd.DataFrame({"step": sorted(steps)}, dtype="int64"), how="cross")
    index = pd.MultiIndex.from_frame(places[["cell_id", "step"]])
    taken = index.isin(pd.MultiIndex.from_frame(own[["cell_id", "step"]]))
    status = places["status"].astype(object)
    diverged, failed = places["diverged_step"] <= places["step"], status == "failed"
    stopped = places["stopped_step"] <= places["step"]
    source = places["step"].where(taken, places["stopped_step"].where(stopped)).mask(diverged | failed)
    now = status.where(failed, "ok").mask(diverged, "diverged")
    found = places[["cell_id", "step"]].assign(status=now, source=source.astype("Int64"))
    return found[source.notna() | diverged | failed]
