"""CSV: the three tables as they are, without the JSON of what are columns, too."""

from pathlib import Path

import pandas as pd

from runner.store import Store


def write_csv(store: Store, cells: pd.DataFrame, out: Path) -> str:
    """Write ``cells.csv``, ``trace.csv`` and ``layers.csv``."""
    cells.drop(columns=["exponents", "settings"]).to_csv(out / "cells.csv", index=False)
    for name, table in (("trace", store.trace), ("layers", store.layers)):
        table[table["cell_id"].isin(cells["cell_id"])].to_csv(out / f"{name}.csv", index=False)
    return f"{out}/cells.csv, trace.csv, layers.csv"
