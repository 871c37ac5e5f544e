"""How the boundaries of a diagram scale: sections of the page, places and exponents beside theory."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pandas as pd

from runner.analysis.boundary.places import places, seed_places
from runner.analysis.boundary.properties import property_of
from runner.analysis.boundary.regimes import WORDS, boundary_words, regime_boundaries, regimes_of
from runner.analysis.boundary.scaling import exponents
from runner.analysis.columns import column, distinct, groups, numeric_column, plain, records, show
from runner.analysis.phase import Axes, is_log
from runner.analysis.regime import thresholds_of
from runner.analysis.selection import facet_label, with_series
from runner.errors import UserError
from runner.store import Store
from runner.views.boundary_answers import Told, boundary_answers, place_words
from runner.views.captions import INTERVAL, hollow_words, repeated, same_words, twin_series
from runner.views.collapse import METRIC, collapsed, exponent_words
from runner.views.fit import panel
from runner.views.laws import AGREEMENT, law_words, sentence, verdict_words
from runner.views.picture import Part, Section
from runner.views.scales import log_scale
from runner.views.style import OWN, Layout, concat


def _boundaries(store: Store, cells: pd.DataFrame, axes: Axes) -> Part | None:
    """Return where the regimes end along y, against x."""
    log = all(is_log(numeric_column(cells, key, "").dropna().to_numpy(), key) for key in (axes.x, axes.y))
    keys = [axes.x, *axes.facets]
    values = distinct(cells[axes.x])
    charts: list[Any] = []
    told: list[Told] = []
    commands: list[str] = []
    thresholds, regimes = thresholds_of(store.config), regimes_of(cells, axes.facets)
    for name, of in regime_boundaries(thresholds).items():
        try:
            what = property_of(store, cells, of)
            seeds = seed_places(cells, what, axes.y, keys)
        except UserError:
            continue
        table = places(seeds, keys, log, what.smooth, alike=(axes.x,))
        found = table.dropna(subset=["place"])
        if found.empty:
            continue
        fit = log and len(values) > 1
        laws = exponents(seeds if fit else seeds.iloc[:0], cells, name, axes.y, axes.x, axes.facets)
        for change, part in found.groupby("change"):
            own = laws[laws["change"] == change]
            level = "" if name == "diverged" else f" (movement {what.level:.3g})"
            title = f"{WORDS[name, str(change)]} {axes.y}{level}"
            words = {
                facet: found + level * (found == WORDS[name, str(change)])
                for facet, there in regimes.items()
                for found in [boundary_words(name, str(change), there, thresholds)]
            }
            told.append(Told(name, str(change), title, part, _rows(part, own, axes, values, words)))
            if fit and part[axes.x].nunique() > 1:
                charts.append(_panel(part, own, axes, title, repeated(cells)))
        facet = f" --facet {','.join(axes.facets) or 'none'}"
        commands.append(f"runner boundary {store.path} --of {of} --along {axes.y} --x {axes.x}{facet}")
    if not told:
        return None
    critical, answers = boundary_answers(told, cells, axes)
    rows = [*(row for one in told for row in one.rows), *critical]
    return Part(
        concat(charts, Layout(), own=OWN) if charts else None,
        f"{axes.y} at the boundary, mean over {cells['seed'].nunique()} seeds; in brackets 95 %, or, where "
        f"there is one seed, what was measured around it. {INTERVAL} The slope is of log "
        f"{axes.y} against log {axes.x}, with theory's beside it where it speaks. {sentence(AGREEMENT)}",
        "\n".join(commands),
        (", ".join(axes.facets), "boundary", *(f"{axes.x} {show(value)}" for value in values), "slope"),
        rows,
        lead=f"{same_words(cells)} {hollow_words(cells)}",
        answers=answers,
    )


def _rows(
    part: pd.DataFrame,
    laws: pd.DataFrame,
    axes: Axes,
    values: Sequence[Any],
    words: Mapping[tuple[Any, ...], str],
) -> list[list[str]]:
    """Return one row of text per facet: what its boundary is called, its places and its exponents."""
    by_facet = dict(groups(laws, [column(laws, facet, "") for facet in axes.facets])) if len(laws) else {}
    rows = []
    for facet, own in groups(part, [column(part, key, "") for key in axes.facets]):
        at = {row[axes.x]: row for row in records(own)}
        law = records(by_facet[facet]) if facet in by_facet else []
        slopes = "; ".join(law_words(row, axes.x) for row in law)
        rows.append(
            [facet_label(axes.facets, facet), words[facet], *(place_words(at.get(x)) for x in values), slopes]
        )
    return rows


def _panel(part: pd.DataFrame, laws: pd.DataFrame, axes: Axes, title: str, same: Collection[str]) -> Any:
    """Return one boundary's places against x, with the lines that are fitted and theory's."""
    points = with_series(part, axes.facets).rename(columns={"place": "value"})
    points = points.assign(
        low=points["low"].fillna(points["last"]), high=points["high"].fillna(points["first"])
    )
    fits = with_series(laws, axes.facets).rename(columns={"slope_low": "low", "slope_high": "high"})
    fits = fits[fits["slope"].notna()]
    across = log_scale(points[axes.x], axes.x)
    return panel(
        title,
        points,
        fits,
        list(dict.fromkeys(points["series"])),
        Layout(),
        across,
        axes.x,
        twin_series(points, same),
    )


def _collapse(store: Store, cells: pd.DataFrame, axes: Axes) -> Part | None:
    """Return for which exponent the curves of x fall on one along y."""
    numbers = [numeric_column(cells, key, "").dropna() for key in (axes.x, axes.y)]
    if any((values <= 0).any() or values.nunique() < 2 for values in numbers):
        return None
    try:
        view = collapsed(store, cells, (), (axes.y, axes.x), METRIC, axes.facets or "none")
    except UserError:
        return None
    rows = [
        [
            facet_label(axes.facets, [row[facet] for facet in axes.facets]),
            exponent_words(row),
            *(_percent(plain(row[name])) for name in ("residual", "noise")),
            verdict_words(row, "one_curve", "one_because"),
        ]
        for row in records(view.table)
    ]
    command = f"runner boundary {store.path} --collapse {axes.y},{axes.x} --of {METRIC}"
    return Part(
        view.chart,
        view.caption,
        f"{command} --facet {','.join(axes.facets) or 'none'}",
        (", ".join(axes.facets), "exponent, 95 %", "residual", "of which seeds explain", "one curve?"),
        rows,
    )


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


SECTIONS = (
    Section(
        "boundaries",
        "Boundaries of the regimes",
        "Where movement passes the thresholds of the regimes and where training diverges. Points: means "
        "over seeds, bars: 95 %. Solid: fitted slopes; dotted: theory's.",
        _boundaries,
        (105, 260, 380),
    ),
    Section(
        "collapse",
        "Collapse",
        f"Curves of {METRIC}, as measured and with the abscissa rescaled by the power for which they come "
        "nearest to one curve. Whether they are one, the table says.",
        _collapse,
        (110, 200, 330),
    ),
)
