"""The cells of the page as columns, packed small: what all of its charts are drawn from."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import pandas as pd

from runner.analysis.columns import config_columns, distinct, floats, plain
from runner.analysis.phase import Axes
from runner.analysis.regime import LETTERS, MARKS
from runner.analysis.steps import at_steps
from runner.grid.cell import FIELDS
from runner.store.keys import SOURCES, is_key
from runner.views.page.packing import short

MOST_STEPS = 40
UNKNOWN = "-"
"""Stands in place of the letter of a regime where there is none."""
_JUDGED_WITH = (
    "cell_id", "status", "stopped_step", "diverged_step", "peak_loss_ratio", "initial_train_loss",
    "lr_sharpness",
)  # fmt: skip


def varying_keys(cells: pd.DataFrame, axes: Axes) -> dict[str, pd.Series]:
    """Return the columns of the config keys in which cells differ, those of the diagram first."""
    config = config_columns(cells).assign(seed=cells["seed"])
    first = [*axes.facets, axes.x, axes.y, "seed"]
    others = [str(key) for key in config if key not in first and config[key].map(str).nunique() > 1]
    named = [key for key in first if key in config]
    return {key: config[key] for key in (*named, *others)}


def cell_table(
    cells: pd.DataFrame, points: pd.Series, keys: Mapping[str, pd.Series], measures: Sequence[str]
) -> dict[str, Any]:
    """Return the cells as columns.

    Args:
        cells: Rows of the ``cells`` table.
        points: The point of the diagram at which each lies, on the same index.
        keys: Columns of config keys, by name.
        measures: Numeric columns.

    Returns:
        ``id``, ``seed``, ``point``, ``status``; ``keys``: of each its sorted ``values`` and for every cell
        the place (``at``) of its own among them; ``measures``: numbers to four digits, null where unknown;
        ``marks`` of flags behind the letter of the regime, null where there are none.
    """
    return {
        "id": [str(name) for name in cells["cell_id"]],
        "seed": [int(seed) for seed in cells["seed"]],
        "point": [int(point) for point in points],
        "keys": {key: _coded(column) for key, column in keys.items()},
        "status": _coded(cells["status"].astype(object)),
        "measures": {name: short(cells[name]) for name in measures},
        "marks": _marks(cells),
    }


def _marks(cells: pd.DataFrame) -> list[str] | None:
    """Return the marks of the flags that each cell has, None where none has one."""
    flags = {mark: floats(cells[flag]) > 0 for flag, mark in MARKS.items() if flag in cells}
    marks = ["".join(mark for mark in flags if flags[mark].iloc[place]) for place in range(len(cells))]
    return marks if any(marks) else None


def judged_steps(cells: pd.DataFrame, trace: pd.DataFrame, thresholds: Mapping[str, Any]) -> pd.DataFrame:
    """Return the cells at each of their measured steps, :func:`runner.analysis.steps.at_steps`, slim.

    Of the cells only what judges them and their config: the measures are those of the step.
    """
    kept = [name for name in cells if name in _JUDGED_WITH or name in FIELDS or is_key(str(name))]
    slim = cells[kept]
    slim.attrs.update(cells.attrs)
    return at_steps(slim, trace, thresholds)


def regimes_at_steps(cells: pd.DataFrame, judged: pd.DataFrame) -> tuple[list[int], list[str]]:
    """Return some measured steps, and for each cell the letters of its regime there.

    A cell that was not measured at one of them is as it was when last measured; the last letter is that of
    the cell as it ended.

    Args:
        judged: As returned by :func:`judged_steps`.
    """
    steps = [int(step) for step in distinct(judged["step"])]
    if len(steps) > MOST_STEPS:
        steps = [steps[round(i * (len(steps) - 1) / (MOST_STEPS - 1))] for i in range(MOST_STEPS)]
    ends = [LETTERS.get(plain(regime), UNKNOWN) for regime in cells["regime"].astype(object)]
    if not steps:
        return [], ends
    there = judged[["cell_id", "step"]].assign(
        letter=judged["regime"].astype(object).map(LETTERS).fillna(UNKNOWN)
    )
    table = there.pivot(index="cell_id", columns="step", values="letter")
    for before, step in pairwise(table):  # pandas' own filling along rows takes seconds of thousands
        table[step] = table[step].fillna(table[before])
    table = table.reindex(index=cells["cell_id"].astype(str), columns=steps).fillna(UNKNOWN)
    rows = ["".join(row[:-1]) for row in table.to_numpy().tolist()]
    return steps, [row + end for row, end in zip(rows, ends, strict=True)]


def free_keys(keys: Mapping[str, pd.Series]) -> list[str]:
    """Return the keys that tell cells apart by themselves: exponents follow from the name that has them."""
    named = "parameterization" in keys
    return [
        key
        for key, column in keys.items()
        if key not in SOURCES
        and not (named and key.startswith("parameterization."))
        and not key.endswith("_target_")
        and column.map(str).nunique() > 1
    ]


def _coded(column: pd.Series) -> dict[str, list[Any]]:
    values = distinct(column)
    places = {(type(value), value): place for place, value in enumerate(values)}
    return {"values": values, "at": [places[type(one), one] for one in map(plain, column)]}
