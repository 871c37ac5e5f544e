"""Boundaries: where a property changes along a key, over the diagram, and how the place scales."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from rich.console import Console

from runner.analysis.axes import enough_facets
from runner.analysis.boundary.places import places, seed_places
from runner.analysis.boundary.properties import Property, property_of
from runner.analysis.boundary.scaling import exponents
from runner.analysis.columns import column, config_columns, distinct, groups, numeric_column, plain, records
from runner.analysis.moment import at_level
from runner.analysis.phase import Axes, is_log, phase_grid
from runner.analysis.selection import choose, default_facets, facet_label
from runner.errors import UserError
from runner.store import Store
from runner.views import alt
from runner.views.captions import INTERVAL, sweep_words
from runner.views.collapse import METRIC, collapsed
from runner.views.laws import law_words
from runner.views.phase.chart import Overlay, phase_chart
from runner.views.picture import Option, Picture, conditions, names
from runner.views.scales import Scale, lr_unit
from runner.views.style import INK, PAPER, Layout, rows_of
from runner.views.terminal import MISSING, plain_table, short
from runner.views.view import View

_LINE = {"begins": "#0072B2", "ends": "#CC79A7"}


def boundary(
    store: Store, of: str | None = None, along: str | None = None, x: str | None = None,
    facet: str | Sequence[str] | None = None, where: str | Sequence[str] = (), all: bool = False,
    at: str | None = None, collapse: str | Sequence[str] | None = None,
) -> View:  # fmt: skip
    """Return where a property changes along a key, with its interval, and how the place scales with another.

    Args:
        of: The property: diverged, a regime, trained, lazy_rich, catapult, controlled_divergence, c_loss,
            c_sharp, c_barrier, c_max, or METRIC=LEVEL (what the sweep refined, else diverged); with collapse
            a METRIC (ntk_change).
        along: Numeric key along which it changes (what the sweep refined, else gamma or lr).
        x: Numeric key against which the place is fitted (width where it varies).
        facet: One boundary per value of these keys, ``none`` for a single one (the config's ``facet`` and
            whatever else varies).
        where: Conditions that choose cells, ``lr=0.1`` or ``width=64,128``.
        all: Whether to take the cells of all launches, not only those of the newest.
        at: Where to look at each cell: at the moment when a measure came to a level, ``train_loss=0.02``.
        collapse: Two keys, ``gamma,width``: instead of a boundary, the exponent for which the curves of a
            metric against the first, times a power of the second, fall on one.
    """
    where, store = conditions(where), at_level(store, at)
    cells = choose(store, where, all)
    if collapse is not None:
        if along or x:
            raise UserError("--collapse must name both keys, got --along or --x beside it; drop them")
        return collapsed(store, cells, where, names(collapse), of or METRIC, facet)
    of, along = _what(store, cells, of, along)
    x = x or _other(cells, along)
    if x == along:
        raise UserError(f"--x must differ from --along, got {x} for both; for example --along lr --x width")
    axes = Axes(x, along, ())
    facets = (
        enough_facets(cells, (x, along), default_facets(store, (x, along))) if facet is None else names(facet)
    )
    what = property_of(store, cells, of)
    log = is_log(numeric_column(cells, along, "--along").dropna().to_numpy(), along)
    seeds = seed_places(cells, what, along, [x, *facets])
    table = places(seeds, [x, *facets], log, what.smooth, alike=(x,))
    numbers = numeric_column(cells, x, "--x")
    can_fit = log and is_log(numbers.dropna().to_numpy(), x) and numbers.nunique() > 1
    laws = exponents(seeds if can_fit else seeds.iloc[:0], cells, of, along, x, facets)
    axes = Axes(x, along, facets)
    shared = sweep_words(cells, store.config, where, (x, along, *facets))
    return View(
        table,
        _caption(table, laws, what, axes, shared),
        lambda layout: _chart(phase_grid(cells, axes), table, axes, lr_unit(cells), layout),
        len(table.drop_duplicates(list(facets))) if facets else 1,
        lambda out: _print(table, laws, what, axes, out),
        {"of": of, "along": along, "x": x, "facets": facets, "at": store.config.get("at")},
        {"exponents": laws, "seeds": seeds},
    )


def _what(store: Store, cells: pd.DataFrame, of: str | None, along: str | None) -> tuple[str, str]:
    """Return the property and the key: as asked for, as refined, or as this grid suggests."""
    refined = store.config.get("refine") or {}
    if of is None and refined.get("of"):
        level = refined.get("level")
        of = refined["of"] if level is None else f"{refined['of']}={level!r}"
        along = along or refined["along"]
    of = of or "diverged"
    if along is None:
        of_rate = of in ("diverged", "trained", "catapult", "controlled_divergence") or of.startswith("c_")
        first, second = ("lr", "gamma") if of_rate else ("gamma", "lr")
        along = first if cells[first].nunique() > 1 or cells[second].nunique() < 2 else second
    return of, along


def _other(cells: pd.DataFrame, along: str) -> str:
    """Return the key that the place is shown against: width where it varies, else that with most values."""
    config = config_columns(cells)
    values = {str(key): distinct(config[key]) for key in config if key not in (along, "seed")}
    numeric = {key: len(found) for key, found in values.items() if len(found) > 1 and all_numbers(found)}
    return "width" if "width" in numeric or not numeric else max(numeric, key=lambda key: numeric[key])


def all_numbers(values: Sequence[Any]) -> bool:
    """Return whether all values are numbers."""
    return all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)


def _chart(
    grid: pd.DataFrame, table: pd.DataFrame, axes: Axes, unit: str | None, layout: Layout
) -> alt.ConcatChart:
    """Return the phase diagram with the boundary and its band over it."""
    by_facet = dict(groups(table, [column(table, facet, "--facet") for facet in axes.facets]))

    def over(values: tuple[Any, ...], x: Scale, y: Scale) -> Overlay:
        part = by_facet.get(values)
        return Overlay() if part is None else _layers(part, axes, x, y)

    return phase_chart(grid, axes, "", unit, layout, over=over)


def _layers(part: pd.DataFrame, axes: Axes, x: Scale, y: Scale) -> Overlay:
    """Return the band, the line and the points of a panel's boundaries; brackets are the cells below."""
    scales = {"x": x.encode(alt.X, "x"), "y": y.encode(alt.Y, "place")}
    bands, layers, lines = [], [], []
    for change, rows in part.dropna(subset=["place"]).groupby("change"):
        frame = rows.rename(columns={axes.x: "x"})[["x", "place", "low", "high", "last", "first"]]
        frame = frame.assign(
            low=frame["low"].fillna(frame["last"]), high=frame["high"].fillna(frame["first"])
        )
        color = _LINE[str(change)]
        base = alt.Chart(rows_of(frame.sort_values("x")))
        band = base.mark_area(opacity=0.35, color=color, clip=True)
        bands.append(band.encode(x=scales["x"], y=y.encode(alt.Y, "low"), y2="high"))
        lines.append(frame.sort_values("x")[["x", "place"]].rename(columns={"place": "y"}))
        for stroke, width in ((PAPER, 3.6), (color, 2.0)):
            layers.append(base.mark_line(stroke=stroke, strokeWidth=width, clip=True).encode(**scales))
        marks = base.mark_point(filled=True, size=26, color=color, stroke=INK, strokeWidth=0.5, opacity=1)
        layers.append(marks.encode(**scales))
    return Overlay(bands, layers, lines)


def _caption(table: pd.DataFrame, laws: pd.DataFrame, what: Property, axes: Axes, shared: str) -> str:
    """Return the caption, the exponents included."""
    slopes = [f"{_head(row, axes)}{law_words(row, axes.x)}" for row in records(laws)]
    found = f" Slopes of log {axes.y} against log {axes.x}: {'; '.join(slopes)}." if slopes else ""
    return (
        f"Where {what.name} begins or ends along {axes.y} ({what.meaning}), over the regimes. {shared} Line: "
        f"mean over seeds; band: 95 % interval. {INTERVAL}{found}"
    )


def _head(row: dict[str, Any], axes: Axes) -> str:
    label = facet_label(axes.facets, [row[facet] for facet in axes.facets])
    return f"{label}: " if label else ""


def _print(table: pd.DataFrame, laws: pd.DataFrame, what: Property, axes: Axes, out: Console) -> None:
    """Print the places, one table per combination, and below each its exponents."""
    wide = out.width >= 64
    headings = (axes.x, "", axes.y, "95% interval", *(("bracket",) if wide else ()), "seeds", "")
    by_facet = (
        dict(groups(laws, [column(laws, facet, "--facet") for facet in axes.facets])) if len(laws) else {}
    )
    for values, part in groups(table, [column(table, facet, "--facet") for facet in axes.facets]):
        view = plain_table(facet_label(axes.facets, values))
        for place, heading in enumerate(headings):
            last = place == len(headings) - 1
            view.add_column(
                heading,
                justify="left" if place == 1 or last else "right",
                no_wrap=not last,
                header_style="dim",
            )
        for row in records(part):
            view.add_row(*_row(row, axes.x, wide))
        out.print(view)
        for row in records(by_facet.get(values, laws.iloc[:0])):
            out.print(f"slope against {axes.x} where it {row['change']}: {law_words(row, axes.x)}")
        out.print()
    out.print(
        f"{what.name}: {what.meaning}; interval: of the mean over seeds, with what the grid leaves open; "
        "bracket: as measured, no seed at its one end, every seed at the other",
        style="dim",
    )
    if (table["ragged"] > 0).any():
        out.print(
            "ragged: cells in the bracket contradict each other; the place has fewest against it", style="dim"
        )


def _row(row: dict[str, Any], x: str, wide: bool) -> list[str]:
    """Return the cells of one line of the table of places."""
    place, low = plain(row["place"]), plain(row["low"])
    notes = [f"ragged at {row['ragged']}"] if row["ragged"] else []
    notes += [str(row["reason"])] if plain(row["reason"]) is not None else []
    bracket = MISSING if plain(row["last"]) is None else f"{short(row['last'])}-{short(row['first'])}"
    return [
        short(row[x]),
        plain(row["change"]) or "",
        MISSING if place is None else short(place),
        MISSING if low is None else f"[{short(low)}, {short(row['high'])}]",
        *((bracket,) if wide else ()),
        str(row["seeds"]),
        "; ".join(notes),
    ]


PICTURE = Picture(
    boundary,
    (
        "runner boundary",
        "runner boundary outputs/edges --of diverged --along lr --x width --out edge.pdf",
        "runner boundary outputs/rich --of ntk_change=0.3 --along gamma",
        "runner boundary --of c_sharp --along lr --json",
        "runner boundary outputs/rich --collapse gamma,width --of ntk_change --out collapse.pdf",
    ),
    {"of": Option("PROPERTY"), "collapse": Option("X,KEY", several=True)},
)
