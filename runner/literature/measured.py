"""The measured number that stands beside a published one: of a picture's table, or of the store's cells.

A picture is what the command of its name prints, so that a reader can type what was measured. Of the store's
tables a number per cell is taken, then a share, a mean or a rank correlation over cells.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from runner.analysis.boundary.places import OF_A_PLACE
from runner.analysis.columns import column, floats, records
from runner.analysis.correlation import spearman
from runner.analysis.estimate import Estimate, Unsupported, over_seeds, require_seeds, share, trained
from runner.analysis.selection import choose
from runner.errors import UserError
from runner.literature.paper import PER_CELL, Published
from runner.schema import TABLES
from runner.store import Store
from runner.views.picture import conditions
from runner.views.pictures import picture_of

_COLUMNS = {"fit": "slope", "boundary": "slope", "transfer": "drift", "ensemble": "slope"}
"""The number of a picture that is taken by default."""
_TABLES = {"boundary": "exponents", "ensemble": "slopes"}
"""The table that has it, where it is not the first."""


def measured(store: Store, published: Published) -> Estimate:
    """Return the number that a store has in place of a published one.

    Raises:
        Unsupported: If the cells do not give it.
    """
    try:
        cells = choose(store, conditions(published.how.get("where", ())))
        require_seeds(cells)
        if published.origin in TABLES:
            return _of_table(store, published.origin, cells, published.how)
        return replace(_of_picture(store, published.origin, dict(published.how)), cells=len(cells))
    except UserError as error:  # of the picture: too few values, nothing measured, all diverged
        raise Unsupported(str(error)) from error


def _of_picture(store: Store, name: str, how: dict[str, Any]) -> Estimate:
    """Return a number of the table that a picture has, over another one where ``over`` asks for it."""
    over = how.pop("over", None)
    if over is None:
        return _number(store, name, how)
    if name != "boundary":
        return _over(_number(store, name, how), _number(store, name, {**how, **over}))
    make = picture_of(name).make
    return _ratio(*(make(store, **asked).more["seeds"] for asked in (how, {**how, **over})))


def _number(store: Store, name: str, how: Mapping[str, Any]) -> Estimate:
    """Return a number of the table that a picture has for these options, with its interval."""
    collapse = "collapse" in how
    picked: dict[str, Any] = {
        "row": {},
        "take": "only",
        "table": "rows" if collapse else _TABLES.get(name, "rows"),
    }
    picked |= {"column": "exponent" if collapse else _COLUMNS.get(name, "value")}
    picked |= {key: value for key, value in how.items() if key in picked}
    view = picture_of(name).make(store, **{key: value for key, value in how.items() if key not in picked})
    tables, wanted, take = {"rows": view.table, **view.more}, picked["column"], picked["take"]
    if picked["table"] not in tables:
        raise UserError(f"table must be one of {', '.join(tables)}, got {picked['table']}")
    rows = tables[picked["table"]]
    for key, value in picked["row"].items():
        rows = rows[[str(found) == str(value) for found in column(rows, key, "row")]]
    if wanted not in rows:
        raise UserError(f"column must be one of {', '.join(map(str, rows))}, got {wanted}")
    if take in ("first", "last"):
        rows = rows.iloc[[0 if take == "first" else -1]] if len(rows) else rows
    if len(rows.drop_duplicates([wanted])) != 1:
        raise UserError(f"row must choose one {wanted} of {name}, got {len(rows)} rows")
    found = records(rows)[0]
    names = next((n for n in ((f"{wanted}_low", f"{wanted}_high"), ("low", "high")) if n[0] in found), None)
    numbers = [found[wanted], *((np.nan, np.nan) if names is None else (found[one] for one in names))]
    value, low, high = (np.nan if one is None else float(one) for one in numbers)
    if not np.isfinite(value):
        raise Unsupported(str(found.get("reason") or "the cells do not give it"))
    return Estimate(value, low, high, 0)


def _over(one: Estimate, other: Estimate) -> Estimate:
    """Return the ratio of two positive numbers of other networks; errors of logarithms add in squares."""
    numbers = np.array([[part.low, part.value, part.high] for part in (one, other)])
    if not (numbers > 0).all():
        raise Unsupported("a ratio needs positive numbers with intervals")
    low, value, high = np.log(numbers).T
    ratio = value[0] - value[1]
    down, up = (
        np.hypot(value[0] - low[0], high[1] - value[1]),
        np.hypot(high[0] - value[0], value[1] - low[1]),
    )
    least, most = np.exp([ratio - down, ratio + up])
    return Estimate(float(np.exp(ratio)), float(least), float(most), 0)


def _ratio(place: pd.DataFrame, other: pd.DataFrame) -> Estimate:
    """Return the geometric mean of the ratio of two boundaries' places, seed by seed."""
    keys = [str(key) for key in place if key in other and key not in OF_A_PLACE]
    both = place.merge(other, on=keys, suffixes=("", "_other"))
    both = both.assign(log=np.log(floats(both["place"]) / floats(both["place_other"]))).dropna(subset="log")
    if both.empty:
        raise Unsupported("no seed has both places inside the grid")
    found = over_seeds(both, lambda part: float(part["log"].mean()))
    value, low, high = np.exp([found.value, found.low, found.high])
    return Estimate(float(value), float(low), float(high), 0)


def _of_table(store: Store, table: str, cells: pd.DataFrame, how: Mapping[str, Any]) -> Estimate:
    """Return a share, a mean or a rank correlation over cells of a number that each of them has."""
    if "share" in how:
        hits = _per_cell(store, table, cells, how, str(how["share"])).dropna()
        return share(hits.astype(bool))
    cells = trained(cells)
    value = _per_cell(store, table, cells, how, str(how["mean" if "mean" in how else "rank"]))
    if "mean" in how:
        frame = cells.set_index("cell_id")[["seed"]].assign(value=floats(value)).dropna()
        return over_seeds(frame, lambda part: float(part["value"].mean()))
    against = _per_cell(store, table, cells, how, str(how["against"]))
    within = how.get("within_key")
    groups = None if within is None else column(cells, str(within), "within_key").set_axis(cells["cell_id"])
    return spearman(floats(value), floats(against), groups)


def _per_cell(
    store: Store, table: str, cells: pd.DataFrame, how: Mapping[str, Any], expression: str
) -> pd.Series:
    """Return an expression's value in each cell, by ``cell_id``: of many rows the one that ``take`` names."""
    frame = cells
    if table != "cells":
        rows = getattr(store, table)
        own = [name for name in cells if name == "cell_id" or name not in rows]
        frame = rows.merge(cells[own], on="cell_id")
    if "rows" in how:
        frame = frame[_evaluated(frame, str(how["rows"])).fillna(False).astype(bool)]
    value = _evaluated(frame, expression).set_axis(frame["cell_id"].astype(str))
    if table == "cells":
        return value
    of_cell = value.dropna().groupby(level=0, sort=False)
    found: pd.Series = of_cell.agg(PER_CELL[how.get("take", "last")])
    return found.reindex(cells["cell_id"].astype(str))


def _evaluated(frame: pd.DataFrame, expression: str) -> pd.Series:
    """Return an expression over columns, as ``DataFrame.eval`` reads it; a name with a dot in backquotes."""
    try:
        found = frame.eval(expression, engine="python")
    except Exception as error:
        raise UserError(f"expression must be over columns, got {expression}: {error}") from error
    if not isinstance(found, pd.Series):
        raise UserError(f"expression must be over columns, got {expression}")
    return found
