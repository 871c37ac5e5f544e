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

    The best rate lies between those of the grid: where the smallest loss has finite neighbours, at the
    vertex of the parabola through the three in log loss and log lr. Where a neighbour diverged or the grid
    ends, only the interval between the midpoints to the neighbours is known.

    Returns:
        The facet keys, ``width``, ``best_lr`` (null where every lr diverged), ``low``, ``high`` (95 %,
        resampling the seeds, and anywhere in its interval where the rate is known no better; null with one
        seed), ``at_end`` (whether the best is an end of the grid, the true one may lie beyond), ``drift``
        (doublings of the best lr per doubling of the width, the same in each row of a facet; null with fewer
        than three widths), ``drift_low``, ``drift_high``, ``too_coarse`` (whether that interval is wider than
        the drift: the grid cannot measure it) and ``seeds``.

    References:
        Yang et al., arXiv 2203.03466 (muTransfer).
    """
    lr_curves(cells, metric, facets)  # called for its errors
    rows = []
    for facet, part in facet_groups(cells, facets):
        smallest = _best(part, metric)
        best, draws = _optima(part, metric)
        known = best[np.isfinite(best)]
        drift, low, high = np.nan, np.nan, np.nan
        if len(known) >= LEAST_WIDTHS:
            drift = drift_per_doubling(known)
            low, high = _percentiles(_slopes(draws[known.index]) if len(draws) else np.array([]))
        ends = {float(part["lr"].min()), float(part["lr"].max())}
        for width, rate in zip(distinct(best.index), best, strict=True):
            least, most = _percentiles(draws[width].to_numpy() if width in draws else np.array([]))
            rows.append(
                {**facet, "width": width, "best_lr": rate, "low": least, "high": most}
                | {"at_end": smallest.get(width) in ends, "drift": drift}
                | {"drift_low": low, "drift_high": high}
                | {"too_coarse": bool(high - low > abs(drift))}
                | {"seeds": part["seed"].nunique()}
            )
    columns = ["width", "best_lr", "low", "high", "at_end", "drift", "drift_low", "drift_high", "too_coarse"]
    return pd.DataFrame(rows, columns=[*facets, *columns, "seeds"])


def _best(cells: pd.DataFrame, metric: str) -> pd.Series:
    """Return the best lr by width; empty where the metric was never measured."""
    try:
        return best_lr(cells, metric)
    except Unsupported:
        return pd.Series(np.nan, index=sorted(cells["width"].unique()), dtype=float)


def _optima(cells: pd.DataFrame, metric: str) -> tuple[pd.Series, pd.DataFrame]:
    """Return the best lr by width, and draws of it, a column per width: none with one seed.

    Whole seeds are drawn, the same at every width; a rate that diverged at one of them is out in that draw.
    """
    seeds = sorted(cells["seed"].unique())
    loss = floats(cells[metric]).where(cells["status"].astype(object) == "ok", np.inf)
    table = cells[["width", "lr", "seed"]].assign(log=np.log(loss).fillna(np.inf))
    rng = np.random.default_rng(0)  # a fixed stream: the same table gives the same interval
    chosen = rng.integers(0, len(seeds), (RESAMPLES if len(seeds) >= LEAST_SEEDS else 0, len(seeds)))
    best, draws = {}, {}
    for width in distinct(table["width"]):
        grid = (
            table[table["width"] == width]
            .pivot_table(index="lr", columns="seed", values="log", dropna=False)
            .reindex(columns=seeds)
        )
        logs, losses = np.log(grid.index.to_numpy(float)), grid.to_numpy()
        best[width] = float(np.exp(_vertices(logs, _means(losses[:, None]))[0]))
        found = np.exp(_vertices(logs, _means(losses[:, chosen]), rng))
        if np.isfinite(found).any():
            draws[width] = found
    return pd.Series(best, dtype=float), pd.DataFrame(draws)


def _means(losses: np.ndarray) -> np.ndarray:
    """Return the mean over the seeds of each draw that were trained; NaN where none was."""
    known = ~np.isnan(losses)
    total, count = np.where(known, losses, 0).sum(axis=2), known.sum(axis=2)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _vertices(logs: np.ndarray, losses: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
    """Return log of the best lr for each column of losses, ``[lr, draw]``; NaN where none is finite.

    Args:
        logs: Logarithms of the learning rates, ascending.
        rng: Draws a rate in its interval where its neighbours do not say more; without, it is the grid's.
    """
    losses = np.where(np.isfinite(losses), losses, np.inf)
    place, draw = losses.argmin(axis=0), np.arange(losses.shape[1])
    padded = np.pad(losses, ((1, 1), (0, 0)), constant_values=np.inf)
    left, here, right = (padded[place + shift, draw] for shift in (0, 1, 2))
    steps = np.diff(logs)
    before = np.concatenate([steps[:1], steps])[place]
    after = np.concatenate([steps, steps[-1:]])[place]
    fall, rise = (left - here) / before, (right - here) / after
    with np.errstate(invalid="ignore"):
        # The slope of the parabola at the middle, over its curvature.
        vertex = (fall * after - rise * before) / (2 * (fall + rise))
    inside = np.isfinite(fall) & np.isfinite(rise) & (fall + rise > 0)
    known = np.clip(vertex, -before / 2, after / 2)
    loose = np.zeros(len(draw)) if rng is None else rng.uniform(-before / 2, after / 2)
    return np.where(np.isfinite(here), logs[place] + np.where(inside, known, loose), np.nan)


def _slopes(draws: pd.DataFrame) -> np.ndarray:
    """Return the drift of each draw in which every width has a best lr."""
    whole = draws[np.isfinite(draws).all(axis=1)]
    if whole.empty:
        return np.array([])
    found: np.ndarray = np.polyfit(np.log2(whole.columns.to_numpy(float)), np.log2(whole.to_numpy()).T, 1)[0]
    return found


def _percentiles(values: np.ndarray) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    low, high = np.percentile(known, [2.5, 97.5]) if len(known) else (np.nan, np.nan)
    return float(low), float(high)
