"""The critical learning rate: where gradient descent on the quadratic at init loses its stability."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from runner.analysis.columns import floats

PLAIN = 2.0
"""Critical lr * lambda_max of plain gradient descent on MSE, full batch."""


def critical_sharpness(cells: pd.DataFrame) -> pd.Series:
    """Return the critical lr * lambda_max of each cell: for MSE and full batch, in units of 1 / lambda_max.

    With momentum mu it is 2 (1 + mu), with Nesterov's (2 + 2 mu) / (1 + 2 mu). NaN where lambda_max is no
    scale of the learning rate, under Adam and signs, and under gradient flow, which is stable at any.

    References:
        Cohen et al. (2021), arXiv 2103.00065, appendix B, eq. 2 and 3.
    """
    settings = cells["settings"] if "settings" in cells else pd.Series("{}", index=cells.index)
    known = {text: _critical(json.loads(text).get("optimizer", {})) for text in settings.unique()}
    found = settings.map(known).astype(float)
    return found.where(cells["lr_sharpness"].notna()) if "lr_sharpness" in cells else found


def critical_lr(cells: pd.DataFrame) -> pd.Series:
    """Return the critical absolute learning rate of each cell, :func:`critical_sharpness` over lambda_max."""
    top = cells["lambda_max_init"] if "lambda_max_init" in cells else pd.Series(np.nan, index=cells.index)
    return critical_sharpness(cells) / floats(top).where(lambda values: values > 0)


def above_critical(cells: pd.DataFrame) -> np.ndarray:
    """Return whether the learning rate of each cell is above its critical one; true where nothing tells."""
    if "lr_sharpness" not in cells:
        return np.ones(len(cells), bool)
    return (floats(cells["lr_sharpness"]) > critical_sharpness(cells)).to_numpy()


def _critical(optimizer: Mapping[str, Any]) -> float:
    if optimizer.get("_target_") == "runner.optim.Flow":
        return float("nan")
    momentum = float(optimizer.get("momentum", 0))
    return 2 * (1 + momentum) / (1 + 2 * momentum if optimizer.get("nesterov") else 1)
