"""Exponents: measures against width, with their fits, their seeds' range and the slope that theory gives."""

from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from runner.analysis.axes import calm_conditions
from runner.analysis.beside import beside_assumed, is_bent
from runner.analysis.broken import LEAST
from runner.analysis.columns import groups, plain, records
from runner.analysis.exponents import DEFAULT_METRICS, counted_as, fit_points
from runner.analysis.exponents import fit as exponents
from runner.analysis.moment import at_level
from runner.analysis.phase import Axes
from runner.analysis.regime import thresholds_of
from runner.analysis.selection import choose, default_facets, facet_label, select, with_series
from runner.analysis.steps import with_derived
from runner.errors import UserError
from runner.store import Store
from runner.views import alt
from runner.views.captions import hollow_words, repeated, step_of, sweep_words, twin_series
from runner.views.laws import (
    AGREEMENT,
    BENT,
    BENT_WORDS,
    BY_PROFILE,
    FITTED,
    NO_FIT,
    SCALING_RULE,
    THEORY,
    break_words,
    law_lines,
    legend_lines,
    sentence,
    signless,
    slope_lines,
    verdict_words,
)
from runner.views.picture import METRICS, PIECES, THRESHOLDS, Part, Picture, Section, conditions, names
from runner.views.richness import SAYS_LAZY, features_answer
from runner.views.scales import Scale, column_words, log_scale, range_bars, value_scale
from runner.views.style import OWN, Layout, concat, layered, legend, point_marks, rows_of, series_scales
from runner.views.terminal import plain_table, short
from runner.views.view import View

_BESIDE = "theory, agrees?"
"""Heading of theory's slope with the verdict behind it."""


def fit(
    store: Store,
    metric: str | Sequence[str] | None = None,
    facet: str | Sequence[str] | None = None,
    where: str | Sequence[str] = (),
    all: bool = False,
    at: str | None = None,
    x: str = "width",
    pieces: str | int | None = None,
    regime: str | Path | None = None,
) -> View:
    """Return exponents: log-log slopes against width or another key, with intervals, beside theory.

    Args:
        metric: Numeric columns of any table; ``layers.NAME`` where two tables have one of that name;
            ``NAME@LAYER`` for one layer, or those of a role.
        facet: One fit per value of these keys, ``none`` for a single one (the config's ``facet``).
        where: Conditions that choose cells, ``lr=0.1`` or ``width=64,128``.
        all: Whether to take the cells of all launches, not only those of the newest.
        at: Where to look at each cell: at the moment when a measure came to a level, ``train_loss=0.02``.
        x: Numeric key that the slopes are against.
        pieces: Of the line, each with a slope; auto is as many as the data support (1, against another x
            auto).
        regime: Thresholds by which ``lazy_exit_step`` is read: ``conf/regime/NAME.yaml`` or a YAML file.
    """
    where, store = conditions(where), at_level(store, at)
    cells = choose(store, where, all)
    facets = default_facets(store, (x,)) if facet is None else names(facet)
    chosen = names(metric or DEFAULT_METRICS)
    cells = with_derived(store, cells, thresholds_of(store.config, regime), (*chosen, x))
    fits = exponents(cells, store.trace, store.layers, chosen, facets, x, pieces)
    points = fit_points(cells, store.trace, store.layers, chosen, facets, x)
    shared = f"{sweep_words(cells, store.config, where, (x, *facets))} {hollow_words(cells)}".strip()
    return View(
        fits,
        _caption(fits[fits["cells"] > 0], facets, shared, x),
        lambda layout: chart(points, fits, facets, layout, x, repeated(cells)),
        len(points.drop_duplicates(["metric", "layer", "role"])),
        lambda out: print_fit(fits, facets, out, x),
        {"x": x, "facets": facets, "at": store.config.get("at")},
    )


def chart(
    points: pd.DataFrame, fits: pd.DataFrame, facets: Sequence[str], layout: Layout, x: str = "width",
    same: Collection[str] = (),
) -> Any:  # fmt: skip
    """Return one log-log panel per metric (and role of a layer): points, fitted lines, theory's slopes.

    A point is the geometric mean of the seeds, its bar their range; the line is the fit, its legend the
    slope; dotted is theory's slope, drawn through the middle of the fit, or of its piece; grey is a fit where
    no straight line describes the points.

    Args:
        same: Parameterizations whose networks are those of one before, :func:`repeated`.
    """
    points, fits = with_series(points, facets), with_series(fits, facets)
    twins = twin_series(fits, same)
    series = list(dict.fromkeys(fits["series"]))
    across = log_scale(points[x], x)
    charts = []
    for key in dict.fromkeys(_panel_keys(fits)):  # in the order asked for, which sorting would lose
        part = points[[found == key for found in _panel_keys(points)]]
        if len(part):
            own = fits[[found == key for found in _panel_keys(fits)]]
            metric, role, layer = key
            name = column_words(str(metric))
            name += "" if layer is None else f", {layer} ({role})"
            charts.append(panel(name, part, own, series, layout, across, x, twins))
    return concat(charts, layout, most=3, own=OWN)


def _panel_keys(frame: pd.DataFrame) -> list[tuple[Any, ...]]:
    """Return metric, role and layer of each row."""
    return [tuple(plain(row[key]) for key in ("metric", "role", "layer")) for row in records(frame)]


def panel(
    name: str, points: pd.DataFrame, fits: pd.DataFrame, series: Sequence[str], layout: Layout, across: Scale,
    key: str, twins: Sequence[str] = (),
) -> Any:  # fmt: skip
    """Return the panel of one metric: points with their bars, fitted lines and theory's.

    Args:
        points: Columns ``series``, the key, ``value``, ``low``, ``high`` and ``seeds``.
        fits: Columns ``series``, ``slope``, ``low``, ``high`` and ``theory``.
        across: Axis of the key, which all panels share.
        key: What the slopes are against.
        twins: Series that lie on another: their points are hollow and larger, so that both are seen.
    """
    channels = series_scales(series, ordered=False)
    names = legend(series, layout, says=legend_lines(fits), symbolOpacity=1)
    color = alt.Color("series:N", scale=channels["color"], legend=names)
    points = points.rename(columns={key: "x"})
    fitted, predicted = law_lines(points, fits)
    up = value_scale(pd.concat([points[["value", "low", "high"]].stack(), *_heights(fitted, predicted)]))
    x, y = across.encode(alt.X, "x"), up.encode(alt.Y, "value")
    base = alt.Chart(rows_of(points[["x", "value", "low", "high", "seeds", "series"]]))
    marks = [mark.encode(
        x=x, y=y, color=color, shape=alt.Shape("series:N", scale=channels["shape"], legend=names),
        tooltip=[
            alt.Tooltip("series:N"), alt.Tooltip("x:Q", title=key, format=".3~g"),
            alt.Tooltip("value:Q", format=".3~g"), alt.Tooltip("seeds:Q"),
        ],
    ) for mark in point_marks(base, twins, layout)]  # fmt: skip
    layers = [range_bars(base, x, up, color=color)]
    for frame, style in ((predicted, THEORY), (fitted, FITTED)):
        if not len(frame):
            continue
        lines = alt.Chart(rows_of(frame)).mark_line(**style).encode(x=x, y=y, detail=["piece:N", "series:N"])
        if style is THEORY or not frame["bent"].any():
            layers.append(lines.encode(color=color))
        else:
            layers += [
                lines.transform_filter("datum.bent").encode(color=alt.ColorValue(NO_FIT)),
                lines.transform_filter("!datum.bent").encode(color=color),
            ]
    return layered([*layers, *marks], name.replace("_", " "), *layout.size())


def _heights(*lines: pd.DataFrame) -> list[pd.Series]:
    """Return the values of the lines that there are."""
    return [frame["value"] for frame in lines if len(frame)]


def _caption(fits: pd.DataFrame, facets: Sequence[str], shared: str, x: str) -> str:
    """Return the caption, the fitted slopes included."""
    named = with_series(fits, facets)
    slopes = []
    for key in dict.fromkeys((row["metric"], plain(row["layer"])) for row in records(named)):
        same = [(row["metric"], plain(row["layer"])) == key for row in records(named)]
        slopes.append(f"{' of '.join(word for word in key if word)}: {'; '.join(slope_lines(named[same]))}")
    kind = BY_PROFILE if "piece" in fits else "95 % bootstrap intervals over seeds"
    return (
        f"Measures against {x}. {shared} Points are geometric means over seeds of cells that trained, bars "
        "reach from the smallest to the largest seed, solid lines are least-squares fits in both logarithms, "
        "grey where no straight line describes the points, "
        f"dotted ones have theory's slope. Slopes with {kind}: "
        f"{'. '.join(slopes)}." + (f" {BENT_WORDS}." if any(map(is_bent, records(fits))) else "")
    )


def print_fit(fits: pd.DataFrame, facets: Sequence[str], out: Console, x: str = "width") -> None:
    """Print the exponents, one table per facet, theory beside measurement; a narrow one has no counts."""
    broken = "piece" in fits
    # A narrow terminal has no counts, and the break stands in their place.
    wide = 92 + 24 * broken
    ends = ("break",) if broken and fits["break"].notna().any() else ()
    data = ("data", "out") if out.width >= wide else ()
    layer = ("layer",) if fits["layer"].notna().any() else ()
    headings = ("metric", *layer, "slope", "95% interval", _BESIDE, *ends, *data)
    for values, part in groups(fits, [fits[facet] for facet in facets]):
        view = plain_table(facet_label(facets, values))
        for heading in headings:
            named = heading in ("metric", "layer", _BESIDE)
            view.add_column(
                heading,
                justify="left" if named else "right",
                no_wrap=not named,
                overflow="fold",
                header_style="dim",
            )
        # A metric that this facet never measured says nothing here; --json has the row.
        for row in records(part[part["cells"] > 0]):
            cells = _row(row)
            view.add_row(*(cells[heading] for heading in headings))
        out.print(view)
        out.print()
    plural = counted_as(x)
    kind = "profile likelihood" if broken else "bootstrap over seeds"
    notes = [f"slope of log metric against log {x}; interval: {kind}"]
    counts = dict.fromkeys(_row(row)["data"] for row in records(fits[fits["cells"] > 0]))
    notes.append(f"data: seeds x {plural}" + ("" if data else f", {', '.join(filter(None, counts))}"))
    if fits["verdict"].notna().any():
        notes.append(AGREEMENT)
    if ends:
        notes.append(f"break: {x} where a piece of the line ends, 95 %; the next row is the next piece")
    if fits["slope"].isna().any() or (not broken and fits["low"].isna().any()):
        single = "" if broken else f"no interval with one seed at a {plural[:-1]}, "
        notes.append(f"{single}no slope with fewer than three {plural}")
    if any(map(is_bent, records(fits))):
        notes.append(f"{BENT_WORDS}; --pieces auto lets it break")
    doubtful = [row for row in records(fits) if row["verdict"] == "cannot tell"]
    if reasons := dict.fromkeys(row["because"] for row in doubtful):
        notes.append(f"cannot tell: {'; '.join(reasons)}")
    notes += beside_assumed(records(fits))
    if (fits["left_out"] > 0).any():
        notes.append("out: cells left out (diverged, failed, or a value that is zero or null)")
    out.print("\n".join(notes), style="dim")


def _row(row: dict[str, Any]) -> dict[str, str]:
    """Return the cells of one line of the table of exponents, by heading."""
    slope, low, high, theory = (plain(row[key]) for key in ("slope", "low", "high", "theory"))
    layer = "" if plain(row["layer"]) is None else str(row["layer"])
    role = "" if plain(row["role"]) is None or str(row["role"]) in layer else f" ({row['role']})"
    again = bool(plain(row.get("piece")))
    return {
        "metric": "" if again else row["metric"],
        "layer": "" if again else layer + role,
        "slope": "-" if slope is None else signless(slope) + (BENT if is_bent(row) else ""),
        "95% interval": "-" if low is None else f"[{signless(low)}, {signless(high)}]",
        "theory": "" if theory is None else f"{theory:.3g}",
        _BESIDE: "" if theory is None else f"{theory:.3g} {plain(row['verdict']) or ''}".strip(),
        "verdict": verdict_words(row),
        "break": break_words(row),
        "data": "" if again else f"{row['seeds']}x{row['widths' if 'widths' in row else 'values']}",
        "out": "" if again else str(row["left_out"] or ""),
    }


def _said(condition: str) -> str:
    """Return a condition as a heading has it, numbers to three digits.

    >>> _said("lr=0.0316228"), _said("data=digits")
    ('lr 0.0316', 'data digits')
    """
    key, _, value = condition.partition("=")
    return f"{key} {short(float(value)) if value.replace('.', '').isdigit() else value}"


def _on_page(store: Store, cells: pd.DataFrame, axes: Axes, x: str = "width") -> Part | None:
    """Return the exponents against a key at the learning rate that most cells survived."""
    if x != "width" and (x not in cells or cells[x][cells[x] > 0].nunique() < LEAST):
        return None
    where = calm_conditions(cells, axes, x)
    part = select(cells, where)
    facets = tuple(facet for facet in axes.facets if facet != x)
    tables = (part, store.trace, store.layers, DEFAULT_METRICS, facets, x)
    points = fit_points(*tables)
    if points.empty:
        raise UserError("nothing was measured that could be fitted")
    fits = exponents(*tables)
    fits = fits[fits["cells"] > 0]
    words = [f"runner fit {store.path}", *([f"--x {x}"] if x != "width" else [])]
    words += [f"--where {condition}" for condition in where]
    if facets != default_facets(store, (x,)):
        words.append(f"--facet {','.join(facets) or 'none'}")
    headings = ["metric", "layer", "slope", "95% interval", "theory", "verdict"]
    headings += ["break"] if "break" in fits and fits["break"].notna().any() else []
    named, at = with_series(fits, facets), ", ".join((*map(_said, where), *step_of(part)))
    rows = [[row["series"], *(_row(row)[heading] for heading in headings)] for row in records(named)]
    return Part(
        chart(points, fits, facets, Layout(), x, repeated(part)),
        sentence(AGREEMENT) + (f" {BENT_WORDS}." if any(map(is_bent, records(fits))) else ""),
        " ".join(words),
        (", ".join(facets), *headings),
        rows,
        f"{at}. {sentence(SCALING_RULE)}",
        f"{SAYS_LAZY} {sweep_words(part, store.config, where, (x, *facets))} {hollow_words(part)}",
        features_answer(fits, facets, x, at) if facets == axes.facets else (),
    )


PICTURE = Picture(
    fit,
    (
        "runner fit outputs/width_scaling",
        "runner fit --metric ntk_change,feature_movement --where lr=1 --out fit.pdf",
        "runner fit --metric layers.feature_movement --facet parameterization,depth --json",
        "runner fit outputs/rich --x gamma --metric ntk_change --pieces 2",
        "runner fit outputs/rich --x gamma --metric ntk_change,lazy_exit_step",
    ),
    {"metric": METRICS, "pieces": PIECES, "regime": THRESHOLDS},
)
_ON_PAGE = {"width": "Width scaling", "depth": "Depth scaling", "gamma": "Scaling with the richness gamma"}
SECTIONS = [
    Section(
        "scaling" if x == "width" else f"scaling-{x}",
        title,
        "Points: geometric means over seeds, bars: their range. Solid: fitted slopes, grey where no straight "
        "line describes the points; dotted: theory's, through the middle of the points. In brackets, 95 % "
        "intervals, of the seeds alone.",
        partial(_on_page, x=x),
        (105, 260, 380),
        "No fits",
    )
    for x, title in _ON_PAGE.items()
]
