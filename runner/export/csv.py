"""CSV: the three tables as they are, group keys as columns of their own."""

from pathlib import Path

import pandas as pd

from runner.analysis.columns import group_keys
from runner.store import Store


def write_csv(store: Store, cells: pd.DataFrame, out: Path) -> str:
    """Write ``cells.csv``, ``trace.csv`` and ``layers.csv``."""
    wide = pd.concat([cells.drop(columns=["exponents", "settings"]), group_keys(cells)], axis=1)
    wide.to_csv(out / "cells.csv", index=False)
    for name, table in (("trace", store.trace), ("layers", store.layers)):
        table[table["cell_id"].isin(cells["cell_id"])].to_csv(out / f"{name}.csv", index=False)
    return f"{out}/cells.csv, trace.csv, layers.csv"
