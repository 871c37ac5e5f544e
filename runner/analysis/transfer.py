"""The best learning rate at each width, and how far it drifts."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from runner.analysis.columns import distinct, facet_groups, floats, groups, numeric_column, show_values
from runner.analysis.estimate import LEAST_SEEDS, RESAMPLES, Unsupported, numbers
from runner.analysis.exponents import LEAST_WIDTHS
from runner.analysis.selection import require_no_other_varying
from runner.errors import UserError

LEAST_RATES = 3


def best_lr(cells: pd.DataFrame, metric: str = "train_loss") -> pd.Series:
    """Return the learning rate of the smallest loss by width, ascending; NaN where every lr diverged.

    Losses are averaged over seeds geometrically; a learning rate at which any seed diverged is out.
    """
    loss = numbers(cells, metric).where(cells["status"].astype(object) == "ok", np.inf)
    table = (
        pd.DataFrame({"width": cells["width"], "lr": cells["lr"].astype(float), "log": np.log(loss)})
        .groupby(["width", "lr"])["log"]
        .mean()
        .unstack("lr")
    )
    best = table.idxmin(axis=1)
    return best.where(np.isfinite(table.min(axis=1)))


def require_inside(best: pd.Series, cells: pd.DataFrame) -> None:
    """Refuse a best lr at an end of the grid: the true one may lie beyond.

    Raises:
        Unsupported: Naming the width.
    """
    ends = {float(cells["lr"].min()), float(cells["lr"].max())}
    for width, rate in best.items():
        if not np.isfinite(rate):
            raise Unsupported(f"every lr diverged at width {width}")
        if rate in ends:
            raise Unsupported(f"the best lr at width {width} is {rate:g}, an end of the grid")


def drift_per_doubling(best: pd.Series) -> float:
    """Return the slope of log2 of the best lr against log2 of the width."""
    return float(np.polyfit(np.log2(best.index.to_numpy(float)), np.log2(best.to_numpy(float)), 1)[0])


def lr_curves(
    cells: pd.DataFrame, metric: str = "train_loss", facets: Sequence[str] = ("parameterization",)
) -> pd.DataFrame:
    """Return the loss along the learning rate, one row per facet, width and lr.

    Args:
        cells: The chosen rows; nothing may vary but width, lr, seed and the facets.
        facets: Keys with one set of curves per combination of values.

    Returns:
        The facet keys, ``width``, ``lr``, ``value`` (geometric mean over seeds; null where one diverged),
        ``seeds``, ``diverged`` (how many) and ``best`` (whether it is the smallest at its width).

    Raises:
        UserError: If a key is unknown, another key varies, the metric is not numeric or never measured, or
            there are not several learning rates.
    """
    if {"width", "lr"} & set(facets):
        raise UserError("--facet must not be width or lr, which the best lr runs over; drop it from --facet")
    values = numeric_column(cells, metric, "--metric")
    require_no_other_varying(cells, ("width", "lr"), facets)
    if cells["lr"].nunique() < LEAST_RATES:
        raise UserError(
            f"lr must have at least {LEAST_RATES} values for a best one, got {show_values(cells['lr'])}; "
            "sweep more learning rates"
        )
    if values.isna().all():
        raise UserError(f"--metric must have been measured, got {metric}; `runner schema` says what each is")
    rows = []
    for facet, part in facet_groups(cells, facets):
        best = _best(part, metric)
        for (width, rate), point in groups(part, [part["width"], part["lr"]]):
            ok = (point["status"].astype(object) == "ok").to_numpy()
            found = values[point.index].where(ok).dropna()
            whole = ok.all() and len(found) and (found > 0).all()
            value = float(np.exp(np.log(found).mean())) if whole else np.nan
            rows.append(
                {**facet, "width": width, "lr": rate, "value": value, "seeds": len(point)}
                | {"diverged": int((~ok).sum()), "best": best.get(width) == rate}
            )
    return pd.DataFrame(rows, columns=[*facets, "width", "lr", "value", "seeds", "diverged", "best"])


def transfer(
    cells: pd.DataFrame, metric: str = "train_loss", facets: Sequence[str] = ("parameterization",)
) -> pd.DataFrame:
    """Return the best learning rate at each width, and its drift.

    The arguments and errors are those of :func:`lr_curves`.

    Returns:
        The facet keys, ``width``, ``best_lr`` (null where every lr diverged), ``low``, ``high`` (95 %,
        resampling the seeds; null with one seed), ``at_end`` (whether the best is an end of
        the grid, the true one may lie beyond), ``drift`` (doublings of the best lr per doubling of the width,
        the same in each row of a facet; null with fewer than three widths) and ``seeds``.

    References:
        Yang et al., arXiv 2203.03466 (muTransfer).
    """
    lr_curves(cells, metric, facets)  # called for its errors
    rows = []
    for facet, part in facet_groups(cells, facets):
        best, spread = _best(part, metric), _resampled(part, metric)
        known = best[np.isfinite(best)]
        drift = drift_per_doubling(known) if len(known) >= LEAST_WIDTHS else np.nan
        ends = {float(part["lr"].min()), float(part["lr"].max())}
        for width, rate in zip(distinct(best.index), best, strict=True):
            low, high = spread.get(width, (np.nan, np.nan))
            rows.append(
                {**facet, "width": width, "best_lr": rate, "low": low, "high": high, "at_end": rate in ends}
                | {"drift": drift, "seeds": part["seed"].nunique()}
            )
    columns = ["width", "best_lr", "low", "high", "at_end", "drift", "seeds"]
    return pd.DataFrame(rows, columns=[*facets, *columns])


def _best(cells: pd.DataFrame, metric: str) -> pd.Series:
    """Return the best lr by width; empty where the metric was never measured."""
    try:
        return best_lr(cells, metric)
    except Unsupported:
        return pd.Series(np.nan, index=sorted(cells["width"].unique()), dtype=float)


def _resampled(cells: pd.DataFrame, metric: str) -> dict[int, tuple[float, float]]:
    """Return the 95 % interval of the best lr by width: a percentile bootstrap over whole seeds."""
    seeds = sorted(cells["seed"].unique())
    if len(seeds) < LEAST_SEEDS:
        return {}
    loss = floats(cells[metric]).where(cells["status"].astype(object) == "ok", np.inf)
    table = cells[["width", "lr", "seed"]].assign(log=np.log(loss))
    rng = np.random.default_rng(0)  # a fixed stream: the same table gives the same interval
    draws = rng.integers(0, len(seeds), (RESAMPLES, len(seeds)))
    found: dict[int, tuple[float, float]] = {}
    for width in distinct(table["width"]):
        grid = (
            table[table["width"] == width]
            .pivot_table(index="lr", columns="seed", values="log", dropna=False)
            .reindex(columns=seeds)
        )
        means = grid.to_numpy()[:, draws].mean(axis=2)
        means = np.where(np.isfinite(means), means, np.inf)
        rates = grid.index.to_numpy(float)[means.argmin(axis=0)]
        rates = rates[np.isfinite(means.min(axis=0))]
        if len(rates):
            low, high = np.percentile(rates, [2.5, 97.5], method="nearest")
            found[width] = (float(low), float(high))
    return found
