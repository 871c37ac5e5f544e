"""The few lines of the page's diagram: where regimes and training end, with intervals, and theory's rate."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from runner.analysis.boundary.places import places, seed_places
from runner.analysis.boundary.properties import property_of
from runner.analysis.boundary.regimes import WORDS, boundary_words, regime_boundaries, regimes_of
from runner.analysis.columns import groups, numeric_column, plain, records
from runner.analysis.critical import critical_sharpness
from runner.analysis.phase import Axes, is_log
from runner.analysis.regime import rich_words
from runner.analysis.transfer import transfer
from runner.errors import UserError
from runner.store import Store
from runner.views.captions import AT_EDGE, critical_words
from runner.views.page.packing import short
from runner.views.phase.critical import critical_name
from runner.views.terminal import as_told

MOST_JUDGED = 8_000
"""Cells times steps up to which the lines are drawn at every step, and not only at the end."""
BEST_BY = "train_loss"
_JUDGED_BY = ("status", "regime", "ntk_change", "feature_movement")
FIELDS = ("panel", "x", "of", "words", "upper", "place", "low", "high", "last", "first", "seeds", "reason")


def boundary_lines(
    store: Store, cells: pd.DataFrame, axes: Axes, thresholds: Mapping[str, Any],
    panels: Mapping[tuple[Any, ...], int],
) -> dict[str, list[Any]]:  # fmt: skip
    """Return the boundaries along y over x in every panel, as columns.

    Args:
        store: The store that the cells are of.
        cells: As they ended, or as they were at a step.
        axes: Of the diagram.
        thresholds: Those of the regimes.
        panels: The place of each panel by the values of its facets.

    Returns:
        :data:`FIELDS`: where the property changes, the 95 % interval (null with one seed), the bracket of
        cells around it and whether what the words name is at its upper end, seeds, and why there is no
        interval.
    """
    rows: list[dict[str, Any]] = []
    keys = [axes.x, *axes.facets]
    # The axes leave nothing else to vary; looking for it would take most of the time.
    cells = cells[[name for name in ("cell_id", "seed", axes.y, *keys, *_JUDGED_BY) if name in cells]]
    regimes = regimes_of(cells, axes.facets)
    for name, of in regime_boundaries(thresholds).items():
        try:
            what = property_of(store, cells, of)
            seeds = seed_places(cells, what, axes.y, keys)
        except UserError:
            continue
        log = is_log(numeric_column(cells, axes.y, "").dropna().to_numpy(), axes.y)
        found = places(seeds, keys, log, what.smooth, alike=(axes.x,))
        for row in records(found.dropna(subset=["place"])):
            facet = tuple(plain(row[facet]) for facet in axes.facets)
            panel = panels.get(facet)
            words = boundary_words(name, str(row["change"]), regimes.get(facet, set()), thresholds)
            upper = words.endswith("from") or (words.startswith("movement") and row["change"] == "begins")
            named = {"panel": panel, "x": plain(row[axes.x]), "of": name, "words": words, "upper": upper}
            rows.append({**row, **named})
    table = pd.DataFrame([row for row in rows if row["panel"] is not None], columns=list(FIELDS))
    table = table.sort_values(["panel", "of", "words", "x"], kind="stable")
    columns: dict[str, list[Any]] = {name: [plain(value) for value in table[name]] for name in FIELDS}
    return columns | {name: short(table[name]) for name in ("place", "low", "high", "last", "first")}


def lines_at_steps(
    store: Store, cells: pd.DataFrame, judged: pd.DataFrame, steps: Sequence[int], axes: Axes,
    thresholds: Mapping[str, Any], panels: Mapping[tuple[Any, ...], int],
) -> list[dict[str, list[Any]] | None]:  # fmt: skip
    """Return :func:`boundary_lines` at each step, the last as cells ended; None where cells are too many."""
    found: list[dict[str, list[Any]] | None] = [None] * max(1, len(steps))
    found[-1] = boundary_lines(store, cells, axes, thresholds, panels)
    if len(judged) <= MOST_JUDGED:
        for place, step in enumerate(steps[:-1]):
            then = judged[judged["step"] == step]
            then.attrs.update(cells.attrs)
            found[place] = boundary_lines(store, then, axes, thresholds, panels)
    return found


def critical_lines(grid: pd.DataFrame, axes: Axes, panels: Mapping[tuple[Any, ...], int]) -> dict[str, Any]:
    """Return the critical learning rate at init over x, median over seeds, and how it is written."""
    known = grid.dropna(subset=["critical"])
    if known.empty:
        return {"panel": [], "x": [], "y": [], "words": ""}
    rows = [
        (panels[values], plain(x), float(part["critical"].median()))
        for values, panel in groups(known, [known[facet] for facet in axes.facets])
        for x, part in panel.groupby(axes.x)
    ]
    panel, x, y = zip(*rows, strict=True)
    words = critical_name(known)
    return {"panel": list(panel), "x": list(x), "y": short(y), "words": words}


def line_meanings(thresholds: Mapping[str, Any], cells: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Return what lines mean whose names do not say it, as the words of a measure are given."""
    rich, found = WORDS["rich", "begins"], {}
    found[rich] = (rich, rich_words(thresholds))
    if words := critical_words(cells):
        name = critical_name(cells.assign(critical_sharpness=critical_sharpness(cells)))
        found[name] = (name, words.removeprefix(f"{name}: "))
    return found


def best_rates(
    cells: pd.DataFrame, axes: Axes, panels: Mapping[tuple[Any, ...], int]
) -> Iterator[dict[str, Any]]:
    """Yield the best learning rate at each x of a diagram over it, with its interval."""
    if axes.y != "lr":
        return
    try:
        rates = transfer(cells, BEST_BY, axes.facets, axes.x)
    except UserError:
        return
    for row in records(rates.dropna(subset=["best_lr"])):
        panel = panels.get(tuple(plain(row[facet]) for facet in axes.facets))
        if panel is not None:
            bound = AT_EDGE if row["at_edge"] else "at an end of the grid" if row["at_end"] else None
            keys = ("best_lr", "low", "high", "last", "first")
            best, low, high, last, first = short(row[key] for key in keys)
            if bound is None and low is not None:
                best, low, high = (float(one) for one in as_told(row, best, low, high))
            yield {
                "panel": panel,
                "x": plain(row[axes.x]),
                "best": best,
                "low": low,
                "high": high,
                "last": last,
                "first": first,
                "bound": bound,
            }
