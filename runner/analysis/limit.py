r"""How finite networks come to their limit of infinite width: mean deviation and spread over seeds.

Of each network two numbers with a sign, over the measured steps after init::

    loss_gap    sum_t L(t) / sum_t L_inf(t) - 1
    kernel_gap  mean_t <Theta(t) - Theta_inf(t), Theta_inf(t)> / norm_F(Theta_inf(t))^2

Their mean over seeds falls as 1 / width, their standard deviation as 1 / sqrt(width). A mean is soon lost in
its own standard error: its slope is fitted to the means themselves, each with the weight of its error, and
not to logarithms.

References:
    Bordelon & Pehlevan (2023), "Dynamics of finite width kernel and prediction fluctuations in mean field
    neural networks", arXiv 2304.03408: both exponents.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from runner.analysis.columns import facet_groups, floats, plain
from runner.analysis.estimate import Unsupported, over_seeds
from runner.analysis.selection import require_no_other_varying
from runner.analysis.straight import LEAST_WIDTHS
from runner.errors import UserError

QUANTITIES = ("loss", "kernel")
THEORY = {"mean": -1.0, "spread": -0.5}
"""Slopes against width."""
_SLOPES = np.linspace(-4.0, 2.0, 601)
_RESAMPLES = 300
_RISE = 3.84
"""Of chi^2, at the ends of a 95 % interval."""


def gaps(cells: pd.DataFrame, trace: pd.DataFrame) -> pd.DataFrame:
    """Return ``loss_gap``, ``kernel_gap`` and ``sampling_error`` of each network that trained to its end.

    Args:
        cells: Chosen rows of ``cells``.
        trace: Rows of ``trace``.

    Returns:
        The rows of ``cells`` that have them, with these columns.

    Raises:
        UserError: If nothing was measured against a limit.
    """
    if "limit_train_loss" not in trace or not trace["limit_train_loss"].notna().any():
        raise UserError(
            "STORE must hold distances from the limit of infinite width, got none; "
            "sweep with measure=[basic,limit_distance]"
        )
    ok = cells[cells["status"].astype(object) == "ok"]
    rows = trace[(trace["step"] > 0) & trace["cell_id"].isin(ok["cell_id"])]
    names = ["train_loss", "limit_train_loss", "limit_kernel_gap", "limit_error"]
    rows = rows[["cell_id"]].assign(**{name: floats(rows[name]) for name in names}).dropna(subset=names[1:2])
    each = rows.groupby("cell_id", observed=True).agg(
        loss=("train_loss", "sum"), limit=("limit_train_loss", "sum"),
        kernel_gap=("limit_kernel_gap", "mean"), sampling_error=("limit_error", "max"),
    )  # fmt: skip
    each["loss_gap"] = each["loss"] / each["limit"] - 1
    return ok.merge(each.drop(columns=["loss", "limit"]), left_on="cell_id", right_index=True)


def approach(
    cells: pd.DataFrame, trace: pd.DataFrame, facets: Sequence[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return how far networks of each width are from their limit, and the slopes against width.

    Args:
        cells: The chosen rows of ``cells``; nothing may vary but width, seed and the facets.
        trace: Rows of ``trace``.
        facets: Keys with one limit per combination of values.

    Returns:
        One row per facet and width: the facet keys, ``width``, ``seeds``, and of ``loss`` and ``kernel``
        ``_mean`` (of the gaps), ``_error`` (its standard error, that of the limit included), ``_spread``
        (standard deviation over seeds; both null with one seed); ``limit_error``.

        One row per facet, quantity and ``of`` (``mean``, ``spread``): ``slope``, ``low``, ``high`` (95 %),
        ``theory``, ``widths``. No slope with fewer than three widths or a single seed.

    Raises:
        UserError: If nothing was measured against a limit, or another key varies.
    """
    require_no_other_varying(cells, ("width",), facets)
    measured = gaps(cells, trace)
    rows: list[dict[str, Any]] = []
    fits: list[dict[str, Any]] = []
    for facet, part in facet_groups(measured, facets):
        table = [_row(group) | facet for _, group in part.groupby("width")]
        rows += table
        for quantity in QUANTITIES:
            for of in THEORY:
                fits.append(facet | {"quantity": quantity, "of": of} | _slope(part, table, quantity, of))
    columns = ["width", "seeds", *(f"{one}_{of}" for one in QUANTITIES for of in ("mean", "error", "spread"))]
    return (
        pd.DataFrame(rows)[[*facets, *columns, "limit_error"]],
        pd.DataFrame(fits).astype(dict.fromkeys(("slope", "low", "high"), "float64")),
    )


def curves_of_limit(cells: pd.DataFrame, trace: pd.DataFrame, facets: Sequence[str]) -> pd.DataFrame:
    """Return training losses over steps: mean and range over seeds, and of infinite width.

    Returns:
        The facet keys, ``width``, ``step``, ``value``, ``low``, ``high``, ``limit``, ``lazy``.
    """
    keys = [*facets, "width", "step"]
    merged = trace.merge(cells[["cell_id", *dict.fromkeys([*facets, "width"])]], on="cell_id")
    names = ("train_loss", "limit_train_loss", "lazy_train_loss")
    merged = merged.assign(**{name: floats(merged[name]) for name in names})
    merged = merged.dropna(subset=["limit_train_loss"])
    return merged.groupby(keys, observed=True).agg(
        value=("train_loss", "mean"), low=("train_loss", "min"), high=("train_loss", "max"),
        limit=("limit_train_loss", "first"), lazy=("lazy_train_loss", "first"),
    ).reset_index()  # fmt: skip


def mean_slope(
    width: np.ndarray, mean: np.ndarray, error: np.ndarray, line: np.ndarray | None = None
) -> tuple[float, float, float]:
    """Return the p of mean = c * width^p that fits best, and its 95 % interval by profile likelihood.

    Args:
        error: Standard errors of the means.
        line: Which of several lines with one p and each its own c a point is of.
    """
    line = np.zeros(len(width), int) if line is None else line
    powers = width[None] ** _SLOPES[:, None]
    chi = np.zeros(len(_SLOPES))
    for one in np.unique(line):
        here = line == one
        x, y = powers[:, here] / error[here], mean[here] / error[here]
        factor = (x @ y) / (x**2).sum(1)
        chi += ((y - factor[:, None] * x) ** 2).sum(1)
    inside = _SLOPES[chi <= chi.min() + _RISE]
    return float(_SLOPES[chi.argmin()]), float(inside.min()), float(inside.max())


def _row(group: pd.DataFrame) -> dict[str, Any]:
    seeds = len(group)
    limit = float(group["sampling_error"].max())
    row: dict[str, Any] = {"width": plain(group["width"].iloc[0]), "seeds": seeds, "limit_error": limit}
    for quantity in QUANTITIES:
        values = group[f"{quantity}_gap"].to_numpy(float)
        spread = float(values.std(ddof=1)) if seeds > 1 else np.nan
        row |= {f"{quantity}_mean": float(values.mean()), f"{quantity}_spread": spread}
        row[f"{quantity}_error"] = float(np.hypot(spread / seeds**0.5, limit))
    return row


def _slope(part: pd.DataFrame, rows: Sequence[dict[str, Any]], quantity: str, of: str) -> dict[str, Any]:
    """Return a slope with its interval; null where the widths or the seeds do not give one."""
    found: dict[str, Any] = {"slope": None, "low": None, "high": None}
    more = {"theory": THEORY[of], "widths": len(rows)}
    usable = [row for row in rows if row[f"{quantity}_spread"] > 0]
    if len(usable) < LEAST_WIDTHS:
        return found | more
    if of == "mean":
        columns = (np.array([row[name] for row in usable], float)
                   for name in ("width", f"{quantity}_mean", f"{quantity}_error"))  # fmt: skip
        slope, low, high = mean_slope(*columns)
        # An interval that reaches the end of the slopes tried is of means that are lost in their errors.
        if _SLOPES[0] < low and high < _SLOPES[-1]:
            found = {"slope": slope, "low": low, "high": high}
    else:
        try:
            estimate = over_seeds(
                part[["seed", "width", f"{quantity}_gap"]],
                lambda some: spread_slope(some, f"{quantity}_gap"), _RESAMPLES,
            )  # fmt: skip
            found = {"slope": estimate.value, "low": estimate.low, "high": estimate.high}
        except Unsupported:
            pass
    return found | more


def spread_slope(cells: pd.DataFrame, name: str, lines: Sequence[str] = ()) -> float:
    """Return the slope of the logarithm of a spread, common to several lines; NaN if there is none.

    Args:
        lines: Keys of the lines.
    """
    spread = cells.groupby([*lines, "width"], observed=True)[name].std().reset_index()
    spread = spread[spread[name] > 0]
    x, y = np.log(spread["width"].to_numpy(float)), np.log(spread[name].to_numpy(float))
    if len(np.unique(x)) < LEAST_WIDTHS:
        return float("nan")
    line = spread.groupby(list(lines), observed=True).ngroup().to_numpy() if lines else np.zeros(len(x), int)
    for one in np.unique(line):
        x[line == one] -= x[line == one].mean()
        y[line == one] -= y[line == one].mean()
    return float((x @ y) / (x @ x))
