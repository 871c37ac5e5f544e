"""CSV: the tables as they are, without the JSON of what are columns, too."""

from pathlib import Path

import pandas as pd

from runner.store import Store
from runner.store.keys import SOURCES


def write_csv(store: Store, cells: pd.DataFrame, out: Path) -> str:
    """Write ``cells.csv``, ``trace.csv`` and ``layers.csv``, and ``outputs.csv`` where outputs were kept."""
    cells.drop(columns=list(SOURCES), errors="ignore").to_csv(out / "cells.csv", index=False)
    names = ["trace", "layers", *(["outputs"] if len(store.table("outputs", ["cell_id"])) else [])]
    for name in names:
        table = getattr(store, name)
        table[table["cell_id"].isin(cells["cell_id"])].to_csv(out / f"{name}.csv", index=False)
    return f"{out}/{', '.join(f'{name}.csv' for name in ('cells', *names))}"
