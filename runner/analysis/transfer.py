"""The best learning rate at each width, or value of another key, and how far it drifts."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from runner.analysis.agreement import Verdict, stays_put
from runner.analysis.best_lr import best_lr, drift_per_doubling, grid_neighbours
from runner.analysis.broken import Broken, broken_line
from runner.analysis.columns import distinct, facet_groups, floats, group_places, numeric_column, show_values
from runner.analysis.estimate import Unsupported
from runner.analysis.exponents import piece_bounds
from runner.analysis.pooled import Spread, half_interval, pooled
from runner.analysis.selection import require_no_other_varying
from runner.analysis.straight import LEAST_WIDTHS
from runner.analysis.vertex import vertex
from runner.errors import UserError

LEAST_RATES = 3
STAYS = ("stays_put", "stays_because")
"""Columns that say whether a rate stays put, and why."""
EDGE_WORDS = "the last rate before divergence"
"""What a best rate is whose next larger one diverged."""
LAW = ("break", "break_low", "break_high")
"""Columns of a drift that may break, after ``piece`` and its drift."""


def along(cells: pd.DataFrame, x: str, facets: Sequence[str]) -> pd.DataFrame:
    """Return the cells that have a place along a key: its values as numbers, where they are positive.

    Raises:
        UserError: If the key is unknown, no number, one of the learning rates or a facet, if another key
            varies, or if another key than the width has fewer than two values.
    """
    if {x, "lr"} & set(facets):
        raise UserError(f"--facet must not be {x} or lr, which the best lr runs over; drop it from --facet")
    if x in ("lr", "lr_absolute", "lr_sharpness", "seed"):
        raise UserError(f"--x must be another key than lr and seed, got {x}; `runner fit --x lr` takes it")
    if x != "width":
        values = numeric_column(cells, x, "--x")
        cells = cells.assign(**{x: values})[values > 0]
    require_no_other_varying(cells, (x, "lr"), facets)
    if x != "width" and cells[x].nunique() < 2:
        raise UserError(
            f"{x} must have at least 2 positive values for a drift, got {show_values(values)}; "
            f"sweep more values of {x} or choose cells with --where"
        )
    return cells


def lr_curves(
    cells: pd.DataFrame,
    metric: str = "train_loss",
    facets: Sequence[str] = ("parameterization",),
    x: str = "width",
) -> pd.DataFrame:
    """Return the loss along the learning rate, one row per facet, value of the key and lr.

    Args:
        cells: The chosen rows; nothing may vary but the key, lr, seed and the facets.
        facets: Keys with one set of curves per combination of values.
        x: The key, with numbers; where it is not positive a cell is left out.

    Returns:
        The facet keys, the key, ``lr``, ``value`` (geometric mean over seeds; null where one diverged),
        ``seeds``, ``diverged`` (how many) and ``best`` (whether it is the smallest at its value of the key).

    Raises:
        UserError: As :func:`along`, if the metric is not numeric or never measured, or if there are not
            several learning rates.
    """
    cells = _rated(cells, metric, facets, x)
    rows = []
    for facet, part in facet_groups(cells, facets):
        best = _best(part, metric, x)
        values, ok = floats(part[metric]).to_numpy(), (part["status"].astype(object) == "ok").to_numpy()
        for (place, rate), places in group_places([part[x], part["lr"]], len(part)):
            fine = ok[places]
            found = values[places][fine & ~np.isnan(values[places])]
            whole = fine.all() and len(found) and (found > 0).all()
            value = float(np.exp(np.log(found).mean())) if whole else np.nan
            rows.append(
                {**facet, x: place, "lr": rate, "value": value, "seeds": len(places)}
                | {"diverged": int((~fine).sum()), "best": best.get(place) == rate}
            )
    return pd.DataFrame(rows, columns=[*facets, x, "lr", "value", "seeds", "diverged", "best"])


def _rated(cells: pd.DataFrame, metric: str, facets: Sequence[str], x: str) -> pd.DataFrame:
    """Return the cells along a key, with what best rates are of; raises as :func:`lr_curves` says."""
    values = numeric_column(cells, metric, "--metric")
    cells = along(cells, x, facets)
    if cells["lr"].nunique() < LEAST_RATES:
        raise UserError(
            f"lr must have at least {LEAST_RATES} values for a best one, got {show_values(cells['lr'])}; "
            "sweep more learning rates"
        )
    if values.isna().all():
        raise UserError(f"--metric must have been measured, got {metric}; `runner schema` says what each is")
    # Rows are taken many times, which costs by column.
    return cells[list(dict.fromkeys([*facets, x, "lr", "seed", "status", metric]))]


def transfer(
    cells: pd.DataFrame,
    metric: str = "train_loss",
    facets: Sequence[str] = ("parameterization",),
    x: str = "width",
    pieces: str | int | None = None,
) -> pd.DataFrame:
    """Return the best learning rate at each value of a key, and its drift.

    The other arguments and the errors are those of :func:`lr_curves`.

    The best rate lies between those of the grid: where the smallest loss has finite neighbours, at the vertex
    of the parabola through the three in log loss and log lr, :func:`runner.analysis.vertex.vertex`. Where the
    next larger rate diverged or the grid ends, the best rate is a bound: it has no interval, and the drift is
    fitted without it. Intervals end where every seed diverged, and join the spread of the best rates of
    single seeds, pooled over the key, and how far each rate may be off, by
    :func:`runner.analysis.pooled.half_interval`.

    Args:
        pieces: Of the drift, as for :func:`runner.analysis.exponents.fit`.

    Returns:
        The facet keys, the key, ``best_lr`` (null where every lr diverged), ``low``, ``high`` (95 %; null
        with one seed, and of a bound), ``last`` and ``first`` (the rates of the grid beside the smallest
        loss), ``at_end`` (whether the best is an end of the grid, the true one may lie beyond), ``at_edge``
        (whether the next larger rate diverged: the best lies anywhere up to it), ``drift`` (doublings of the
        best lr per doubling of the key, the same in each row of a facet; null with fewer than three values
        that are no bounds), ``drift_low``, ``drift_high``, ``too_coarse`` (whether the grid cannot measure
        the drift: its interval is wider than itself, or bounds leave none), ``stays_put`` (``yes``, ``no`` or
        ``cannot tell``) and ``stays_because``, as :func:`with_stays` says, and ``seeds``. Unless one piece is
        asked for, the drift is that of the ``piece`` on which the value lies, through the best rates of
        single seeds, and ``break``, ``break_low``, ``break_high`` say where it ends (null for the last).

    References:
        Yang et al., arXiv 2203.03466 (muTransfer).
    """
    least, most = piece_bounds(pieces, x)
    rows: list[dict[str, Any]] = []
    for facet, part in facet_groups(_rated(cells, metric, facets, x), facets):
        own: list[dict[str, Any]] = []
        smallest = _best(part, metric, x)
        beside = grid_neighbours(part, smallest, x)
        best, single = _optima(part, metric, x)
        lost = _lost(part, x)
        ends = {float(part["lr"].min()), float(part["lr"].max())}
        bounds = {place for place, rate in smallest.items() if rate in ends or beside.at[place, "at_edge"]}
        inside = {place: found for place, found in single.items() if len(found[0]) and place not in bounds}
        spread = pooled(np.log(rates) for rates, _ in inside.values())
        if most == 1:
            drifts = dict.fromkeys(best.index, _drift(best[~best.index.isin(bounds)], single, spread))
        else:
            rates = {place: found for place, (found, _) in inside.items()}
            loose = {place: 2 * error for place, (_, error) in inside.items()}
            law = drift_law(rates, loose, (least, most), x)
            drifts = {place: drift_of(law, place) for place in best.index}
        for place, (rate, error) in zip(distinct(best.index), best.to_numpy(), strict=True):
            count, drift = len(single[place][0]), drifts[place]
            told = count > 1 and place not in bounds
            factor = np.exp(half_interval(spread, count, error)) if told else np.nan
            width = drift["drift_high"] - drift["drift_low"]
            coarse = bool(width > abs(drift["drift"]) or (bounds and np.isnan(drift["drift"])))
            own.append(
                {**facet, x: place, "best_lr": rate, "low": rate / factor}
                | {"high": min(rate * factor, max(lost.get(place, np.inf), rate)) if told else np.nan}
                | {name: beside.at[place, name] for name in ("last", "first")}
                | {
                    "at_end": smallest.get(place) in ends,
                    "at_edge": bool(beside.at[place, "at_edge"]),
                    **drift,
                }
                | {"too_coarse": coarse, "seeds": part["seed"].nunique()}
            )
        rows += with_stays(own, x, "best_lr")
    columns = [x, "best_lr", "low", "high", "last", "first", "at_end", "at_edge"]
    columns += [*drift_columns(most), "too_coarse", *STAYS, "seeds"]
    return pd.DataFrame(rows, columns=[*facets, *columns])


def with_stays(rows: Sequence[dict[str, Any]], x: str, rate: str) -> list[dict[str, Any]]:
    """Return the rows of a facet with :data:`STAYS`, which every piece of the drift has of its own.

    As :func:`runner.analysis.agreement.stays_put` decides by the drift over the values whose rate is known.
    A rate that moves along those does not stay put, whatever bounds hide; it never is said to stay where some
    rates are bounds: they lie on rates of the grid, which look like transfer.
    """
    found = []
    for row in rows:
        there = [
            one for one in rows if one.get("piece") == row.get("piece") and np.isfinite(float(one[rate]))
        ]
        bounds = [one for one in there if one["at_end"] or one.get("at_edge")]
        places = [float(one[x]) for one in there if one not in bounds]
        doublings = float(np.log2(max(places) / min(places))) if places else 0.0
        verdict = stays_put(row, doublings, "the range of the others" if bounds else "the range")
        found.append(row | dict(zip(STAYS, _beside(verdict, row, bounds, len(there)), strict=True)))
    return found


def _beside(verdict: Verdict, row: Mapping[str, Any], bounds: Sequence[Any], count: int) -> Verdict:
    """Return a verdict beside the best rates that are bounds, of so many."""
    if not bounds:
        return verdict
    kinds = [EDGE_WORDS] if any(not one["at_end"] for one in bounds) else []
    kinds += ["an end of the grid"] if any(one["at_end"] for one in bounds) else []
    words = f"at {len(bounds)} of {count} the best rate is a bound, {' or '.join(kinds)}"
    if np.isfinite(float(row["drift"])):
        words = f"{verdict.because}; {words}"
    return Verdict("no" if verdict.verdict == "no" else "cannot tell", words)


def drift_columns(most: int) -> tuple[str, ...]:
    """Return the columns that say the drift, with at most so many pieces."""
    drift = ("drift", "drift_low", "drift_high")
    return drift if most == 1 else ("piece", *drift, *LAW)


def drift_law(
    rates: Mapping[float, np.ndarray], loose: Mapping[float, float], bounds: tuple[int, int], x: str
) -> Broken | None:
    """Return the law of rates of single seeds by the key, each known to an interval of some log units.

    Raises:
        UserError: If there are too few values of the key for the pieces asked for.
    """
    least, most = bounds
    if least > 1 and len(rates) < LEAST_WIDTHS * least:
        raise UserError(
            f"{x} must have at least {LEAST_WIDTHS * least} values with a rate inside the grid for {least} "
            f"pieces, got {len(rates)}; sweep more values of {x} or more learning rates"
        )
    return broken_line(rates, most, loose, least)


def drift_of(law: Broken | None, place: float) -> dict[str, Any]:
    """Return the columns of the piece on which a value of the key lies; null without a law."""
    if law is None:
        return {"piece": 0} | dict.fromkeys(drift_columns(1), np.nan)
    index = sum(one.place < place for one in law.breaks)
    piece = law.pieces[index]
    found = {"piece": index, "drift": piece.slope, "drift_low": piece.low, "drift_high": piece.high}
    if index == len(law.breaks):
        return found
    end = law.breaks[index]
    return found | dict(zip(LAW, (end.place, end.low, end.high), strict=True))


def _drift(
    best: pd.DataFrame, single: Mapping[Any, tuple[np.ndarray, float]], spread: Spread
) -> dict[str, Any]:
    """Return the drift of a straight line through the best rates, with its interval."""
    known = best[np.isfinite(best["rate"])]
    counts = np.array([len(single[place][0]) for place in known.index])
    if len(known) < LEAST_WIDTHS:
        return dict.fromkeys(drift_columns(1), np.nan)
    drift = drift_per_doubling(known["rate"])
    along = np.log2(known.index.to_numpy(float))
    weights = (along - along.mean()) / ((along - along.mean()) ** 2).sum()
    half = np.nan
    if (counts > 0).all():
        half = half_interval(spread, counts, known["error"].to_numpy(), weights) / np.log(2)
    return {"drift": drift, "drift_low": drift - half, "drift_high": drift + half}


def _lost(cells: pd.DataFrame, x: str) -> dict[Any, float]:
    """Return the smallest learning rate at which every seed diverged, by the value of the key."""
    ok = cells.assign(ok=cells["status"].astype(object) == "ok").groupby([x, "lr"])["ok"].any()
    return ok[~ok].reset_index().groupby(x)["lr"].min().to_dict()


def _best(cells: pd.DataFrame, metric: str, x: str) -> pd.Series:
    """Return the best lr by the key; empty where the metric was never measured."""
    try:
        return best_lr(cells, metric, x)
    except Unsupported:
        return pd.Series(np.nan, index=sorted(cells[x].unique()), dtype=float)


def _optima(
    cells: pd.DataFrame, metric: str, x: str
) -> tuple[pd.DataFrame, dict[Any, tuple[np.ndarray, float]]]:
    """Return the best lr by the key with its error, in log units, and those of single seeds with theirs."""
    loss = floats(cells[metric]).where(cells["status"].astype(object) == "ok", np.inf)
    table = cells[[x, "lr", "seed"]].assign(log=np.log(loss).fillna(np.inf))
    best, single = {}, {}
    for place in distinct(table[x]):
        grid = table[table[x] == place].pivot_table(index="lr", columns="seed", values="log", dropna=False)
        logs, losses = np.log(grid.index.to_numpy(float)), grid.to_numpy()
        known = ~np.isnan(losses)
        mean = np.where(known, losses, 0).sum(axis=1) / np.maximum(1, known.sum(axis=1))
        found = vertex(logs, np.where(known.any(axis=1), mean, np.nan))
        best[place] = {"rate": float(np.exp(found.place)), "error": found.error}
        own = [one for one in map(partial(vertex, logs), losses.T) if np.isfinite(one.place)]
        rates = np.exp([one.place for one in own])
        single[place] = (rates, float(np.mean([one.error for one in own])) if own else np.nan)
    return pd.DataFrame.from_dict(best, orient="index", columns=["rate", "error"]), single
