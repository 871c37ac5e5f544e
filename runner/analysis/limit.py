r"""How finite networks come to their limit of infinite width: mean deviation and spread over seeds.

Of each network two numbers with a sign, over the measured steps after init::

    loss_gap    sum_t L(t) / sum_t L_inf(t) - 1
    kernel_gap  mean_t <Theta(t) - Theta_inf(t), Theta_inf(t)> / norm_F(Theta_inf(t))^2

Their mean over seeds falls as 1 / width, their standard deviation as 1 / sqrt(width). A mean is soon lost in
its own standard error, and two things are done about it. Most of the scatter comes from the kernel at init,
whose mean over seeds is that of infinite width (exactly in linear networks at one learning rate, else, as
in units of each network's own lambda_max, to order 1 / width):
what the gaps at the start explain of those along training is taken out of each network, by regression within
widths. And the slope is fitted to the means themselves, each with the weight of its error.

Of the kernel there is a distance in all directions, too, the root mean square of ``limit_kernel_distance``
over steps and seeds. Its square is V / width, the spread, plus what does not vanish at any width.

References:
    Bordelon & Pehlevan (2023), "Dynamics of finite width kernel and prediction fluctuations in mean field
    neural networks", arXiv 2304.03408: both exponents. Owen (2013), "Monte Carlo theory, methods and
    examples", section 8.9: regression on quantities of known mean (control variates).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from runner.analysis.agreement import VERDICTS, beside_theory
from runner.analysis.columns import facet_groups, floats, plain
from runner.analysis.estimate import Unsupported, over_seeds
from runner.analysis.grouped import grouped, places
from runner.analysis.selection import require_no_other_varying
from runner.analysis.straight import LEAST_WIDTHS
from runner.errors import UserError

QUANTITIES = ("loss", "kernel")
THEORY = {"mean": -1.0, "spread": -0.5}
"""Slopes against width."""
CONTROLS = ("loss_start", "kernel_start")
_LEAST_FREE = 16
"""Degrees of freedom that a regression on the start leaves at least."""
_SLOPES = np.linspace(-4.0, 2.0, 601)
_RESAMPLES = 300
_RISE = 3.84
"""Of chi^2, at the ends of a 95 % interval."""


def gaps(cells: pd.DataFrame, trace: pd.DataFrame) -> pd.DataFrame:
    """Return what sets each network that trained to its end apart from its limit.

    These are ``loss_gap``, ``kernel_gap``, ``kernel_apart`` (root mean square over steps), ``loss_start``
    (the gap of the loss at the first measured step), ``kernel_start`` (that of the kernel at init) and
    ``sampling_error``.

    Args:
        cells: Chosen rows of ``cells``.
        trace: Rows of ``trace``.

    Returns:
        The rows of ``cells`` that have them, with these columns.

    Raises:
        UserError: If nothing was measured against a limit, or all that was has diverged.
    """
    if "limit_train_loss" not in trace or not trace["limit_train_loss"].notna().any():
        raise UserError(
            "STORE must hold distances from the limit of infinite width, got none; "
            "sweep with measure=[basic,limit_distance]"
        )
    ok = cells[cells["status"].astype(object) == "ok"]
    names = ["train_loss", "limit_train_loss", "limit_kernel_gap", "limit_kernel_distance", "limit_error"]
    rows = trace[trace["cell_id"].isin(ok["cell_id"])].sort_values("step")
    rows = rows[["cell_id", "step"]].assign(**{name: floats(rows[name]) for name in names})
    rows = rows.dropna(subset=["limit_train_loss"])
    rows["start"] = rows["train_loss"] / rows["limit_train_loss"] - 1
    rows["square"] = rows["limit_kernel_distance"] ** 2
    init = rows[rows["step"] == 0].set_index("cell_id")
    each = rows[rows["step"] > 0].groupby("cell_id", observed=True).agg(
        loss=("train_loss", "sum"), limit=("limit_train_loss", "sum"), loss_start=("start", "first"),
        kernel_gap=("limit_kernel_gap", "mean"), square=("square", "mean"),
        sampling_error=("limit_error", "max"),
    )  # fmt: skip
    each["loss_gap"] = each["loss"] / each["limit"] - 1
    each["kernel_apart"] = each["square"] ** 0.5
    each["kernel_start"] = init["limit_kernel_gap"]
    found = ok.merge(each.drop(columns=["loss", "limit", "square"]), left_on="cell_id", right_index=True)
    if found.empty:
        raise UserError(
            f"STORE must hold networks that trained beside a finite limit, got none of {len(cells)}; lower lr"
        )
    return found


def adjusted(group: pd.DataFrame) -> pd.DataFrame:
    """Return networks of one limit with their gaps ``_adjusted``: less what the start explains of them.

        gap - b . start,   b by least squares within widths, all widths at equal scale

    Args:
        group: Rows of :func:`gaps` that differ in width and seed alone.

    Returns:
        The rows with both columns; the gaps themselves where there are too few networks for a regression.
    """
    width = group["width"].to_numpy(float)
    start = group[[*CONTROLS]].to_numpy(float)
    found = {f"{one}_adjusted": group[f"{one}_gap"].to_numpy(float) for one in QUANTITIES}
    free = len(group) - len(np.unique(width)) - len(CONTROLS)
    if free >= _LEAST_FREE and np.isfinite(start).all():
        inside = (group[[*CONTROLS]] - group.groupby("width")[[*CONTROLS]].transform("mean")).to_numpy(float)
        for name, gap in found.items():
            mean = group.groupby("width")[name.replace("adjusted", "gap")].transform("mean").to_numpy(float)
            scale = np.sqrt(width)  # the scatter falls as its inverse
            slope, *_ = np.linalg.lstsq(scale[:, None] * inside, scale * (gap - mean), rcond=None)
            found[name] = gap - start @ slope
    return group.assign(**found)


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
        (standard deviation over seeds; both null with one seed), ``_adjusted`` and ``_adjusted_error`` (the
        mean without what the start explains, see :func:`adjusted`); ``loss_worst``, the largest relative
        deviation of the mean loss at a measured step; ``kernel_apart``, root mean square over steps and
        seeds; ``kernel_left``, the part of it that the widths do not show to vanish; ``limit_error``.

        One row per facet, quantity and ``of`` (``mean``, ``spread``): ``slope``, ``low``, ``high`` (95 %),
        ``theory``, ``widths``, ``verdict`` and ``because`` (whether the slope is theory's, and not zero or
        that of the other). No slope with fewer than three widths or a single seed.

    Raises:
        UserError: If nothing was measured against a limit, or another key varies.
    """
    measured = gaps(cells, trace)  # first whether there is anything to look at
    require_no_other_varying(cells, ("width",), facets)
    rows: list[dict[str, Any]] = []
    fits: list[dict[str, Any]] = []
    for facet, part in facet_groups(measured, facets):
        part = adjusted(part)
        worst, left = _worst(curves_of_limit(part, trace, ())), left_of_kernel(part)
        table = [
            _row(group) | facet | {"loss_worst": worst[width], "kernel_left": left}
            for width, group in part.groupby("width")
        ]
        rows += table
        for quantity in QUANTITIES:
            for of in THEORY:
                fits.append(facet | {"quantity": quantity, "of": of} | _judged(part, table, quantity, of))
    of_each = ("mean", "error", "spread", "adjusted", "adjusted_error")
    columns = ["width", "seeds", *(f"{one}_{of}" for one in QUANTITIES for of in of_each)]
    columns += ["loss_worst", "kernel_apart", "kernel_left", "limit_error"]
    return (
        pd.DataFrame(rows)[[*facets, *columns]],
        pd.DataFrame(fits).astype(
            dict.fromkeys(("slope", "low", "high"), "float64") | dict.fromkeys(VERDICTS, object)
        ),
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
        values = group[f"{quantity}_adjusted"].to_numpy(float)
        error = float(values.std(ddof=1)) / seeds**0.5 if seeds > 1 else np.nan
        row |= {f"{quantity}_adjusted": float(values.mean())}
        row[f"{quantity}_adjusted_error"] = float(np.hypot(error, limit))
    row["kernel_apart"] = float((group["kernel_apart"] ** 2).mean() ** 0.5)
    return row


def _worst(curves: pd.DataFrame) -> dict[Any, float]:
    """Return by width the largest deviation of the mean loss at a step, relative to the limit."""
    off = (curves["value"] / curves["limit"] - 1).abs()
    worst: dict[Any, float] = off.groupby(curves["width"]).max().to_dict()
    return worst


def left_of_kernel(part: pd.DataFrame) -> float:
    """Return the distance of kernels from the limit that does not vanish with the width.

    It is e of ``distance^2 = e^2 + V / width``, fitted with widths weighted by their errors.

    Args:
        part: One row per network, with ``width`` and ``kernel_apart``.

    Returns:
        e; NaN of few widths.
    """
    square = part["kernel_apart"] ** 2
    found = square.groupby(part["width"]).agg(["mean", "sem"])
    found = found[found["sem"] > 0]
    if len(found) < LEAST_WIDTHS:
        return float("nan")
    width, error = found.index.to_numpy(float), found["sem"].to_numpy()
    rows = np.stack([1 / error, 1 / width / error], axis=1)
    (rest, _), *_ = np.linalg.lstsq(rows, found["mean"].to_numpy() / error, rcond=None)
    return float(max(rest, 0.0) ** 0.5)


def _judged(part: pd.DataFrame, rows: Sequence[dict[str, Any]], quantity: str, of: str) -> dict[str, Any]:
    """Return a slope as :func:`_slope` does, with the verdict beside theory's."""
    found = _slope(part, rows, quantity, of)
    return found | beside_theory(found, {0.0, *THEORY.values()} - {THEORY[of]})._asdict()


def _slope(part: pd.DataFrame, rows: Sequence[dict[str, Any]], quantity: str, of: str) -> dict[str, Any]:
    """Return a slope with its interval; null where the widths or the seeds do not give one."""
    found: dict[str, Any] = {"slope": None, "low": None, "high": None}
    more = {"theory": THEORY[of], "widths": len(rows)}
    usable = [row for row in rows if row[f"{quantity}_spread"] > 0]
    if len(usable) < LEAST_WIDTHS:
        return found | more
    if of == "mean":
        columns = (np.array([row[name] for row in usable], float)
                   for name in ("width", f"{quantity}_adjusted", f"{quantity}_adjusted_error"))  # fmt: skip
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
    found = grouped(cells, name, [*lines, "width"])
    there = found.spread > 0
    x, y = np.log(found.keys[-1][there].astype(float)), np.log(found.spread[there])
    if len(np.unique(x)) < LEAST_WIDTHS:
        return float("nan")
    line = places([key[there] for key in found.keys[:-1]]) if lines else np.zeros(len(x), int)
    for one in np.unique(line):
        x[line == one] -= x[line == one].mean()
        y[line == one] -= y[line == one].mean()
    return float((x @ y) / (x @ x))
