"""Lazy and rich training side by side, from the cells of one sweep."""

import numpy as np
import pandas as pd

from runner.analysis.estimate import Tables, Unsupported, numbers

COLUMNS = ("lazy", "rich")
QUANTITIES = (
    ("movement of the parameters", "param_movement"),
    ("movement of the features", "feature_movement"),
    ("change of the kernel", "ntk_change"),
    ("alignment of the kernel with its start (CKA)", "cka"),
    ("error of the linear model", "linearization_error"),
    ("error of the fixed kernel", "kernel_gd_error"),
    ("gain over regression with the initial kernel", "ntk_gain"),
    ("gain of the features on another task", "transfer_gain"),
    ("train loss", "train_loss"),
    ("test loss", "test_loss"),
    ("test error", "test_error"),
)
"""What is shown of movement, kernel, effective model and test error, and the column that holds it."""


def regime_table(tables: Tables) -> pd.DataFrame:
    """Return the median of each quantity over the lazy and over the rich cells of one sweep.

    Returns:
        Columns ``quantity``, ``lazy`` and ``rich`` as text, quartiles in brackets, per data set where there
        are several; quantities that no cell has are left out. The first row counts the cells.
    """
    cells = tables.cells[tables.cells["status"].astype(object) == "ok"]
    members = {name: cells["regime"].astype(object) == name for name in COLUMNS}
    rows = [{"quantity": "cells", **{name: str(int(hits.sum())) for name, hits in members.items()}}]
    data = cells["data"].astype(str)
    parts = (
        [(f"{name}: ", part) for name, part in cells.groupby(data)] if data.nunique() > 1 else [("", cells)]
    )
    for name, part in parts:
        rates = {key: _range(part.loc[hits[part.index], "lr_sharpness"]) for key, hits in members.items()}
        rows.append({"quantity": f"{name}lr * lambda_max that trained so", **rates})
        for quantity, column in QUANTITIES:
            try:
                value = numbers(part, column)
            except Unsupported:
                continue
            shown = {key: _summary(value[hits[part.index]]) for key, hits in members.items()}
            rows.append({"quantity": f"{name}{quantity}", **shown})
    return pd.DataFrame(rows, columns=["quantity", *COLUMNS])


def _range(rates: pd.Series) -> str:
    """Return the smallest and the largest learning rate."""
    known = rates.dropna()
    return f"{known.min():.3g} to {known.max():.3g}" if len(known) else "-"


def _summary(values: pd.Series) -> str:
    known = values[np.isfinite(values)]
    if known.empty:
        return "-"
    low, middle, high = np.percentile(known, [25, 50, 75])
    return f"{middle:.3g} [{low:.3g}, {high:.3g}]"
