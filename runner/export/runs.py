"""A cell as trackers see it: a run with a config, values over steps, and results."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from runner.analysis.columns import config_columns, plain, records, show
from runner.grid.cell import FIELDS
from runner.store import Store
from runner.store.keys import is_key


@dataclass(frozen=True, slots=True)
class Run:
    """One cell.

    Attributes:
        name: A few words by which people recognise the cell.
        config: Every key of the config that is set.
        results: Final measures and texts such as status and regime.
        steps: Step -> measures at that step; those of a layer as ``measure/layer``.
    """

    id: str
    name: str
    config: dict[str, Any]
    results: dict[str, Any]
    steps: dict[int, dict[str, float]]

    @property
    def last(self) -> int:
        """The last measured step; 0 without one."""
        return max(self.steps, default=0)

    @property
    def finals(self) -> dict[str, float]:
        """The results that are numbers, as ``final/measure``."""
        return {
            f"final/{key}": value for key, value in self.results.items() if isinstance(value, (int, float))
        }


def runs_of(store: Store, cells: pd.DataFrame) -> Iterator[Run]:
    """Yield the cells of a store as runs; what was not measured, or is not finite, is left out."""
    config = config_columns(cells)
    trace, layers = (
        dict(list(table[table["cell_id"].isin(cells["cell_id"])].groupby("cell_id", observed=True)))
        for table in (store.trace, store.layers)
    )
    results = [name for name in cells.columns if name not in (*FIELDS, "cell_id") and not is_key(name)]
    for row, keys in zip(records(cells), records(config), strict=True):
        settings = {key: plain(value) for key, value in keys.items()}
        steps: dict[int, dict[str, float]] = {}
        for table in (trace, layers):
            for one in records(table.get(row["cell_id"], pd.DataFrame())):
                found = _numbers(one, ("cell_id", "step", "layer", "layer_index", "role"))
                end = f"/{one['layer']}" if "layer" in one else ""
                named = {f"{name}{end}": value for name, value in found.items()}
                steps.setdefault(int(one["step"]), {}).update(named)
        words = [f"{key} {show(row[key])}" for key in ("width", "depth", "lr", "gamma", "seed")]
        yield Run(
            str(row["cell_id"]),
            ", ".join([f"{row['model']} {row['parameterization']} on {row['data']}", *words]),
            {key: value for key, value in settings.items() if value is not None},
            {name: plain(row[name]) for name in results if _known(plain(row[name]))},
            dict(sorted(steps.items())),
        )


def _numbers(row: dict[str, Any], keys: tuple[str, ...]) -> dict[str, float]:
    return {name: float(value) for name, value in row.items() if name not in keys and _known(plain(value))}


def _known(value: Any) -> bool:
    return value is not None and not (isinstance(value, float) and not math.isfinite(value))
