"""Data collapse: curves of a metric, one per width, as they are and with the abscissa rescaled."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
from rich.console import Console

from runner.analysis.axes import enough_facets
from runner.analysis.boundary.collapse import collapse
from runner.analysis.columns import column, distinct, groups, plain, records, show
from runner.analysis.selection import default_facets, facet_label
from runner.errors import UserError
from runner.store import Store
from runner.views import alt
from runner.views.captions import sweep_words
from runner.views.laws import theory_words, verdict_words
from runner.views.picture import names
from runner.views.scales import Scale, column_title, column_words, lr_unit, value_scale
from runner.views.style import Layout, concat, layered, legend, rows_of, series_scales, theme
from runner.views.terminal import MISSING, plain_table
from runner.views.view import View

METRIC = "ntk_change"
COLLAPSED = "collapsed"


def collapsed(
    store: Store, cells: pd.DataFrame, where: Sequence[str], pair: Sequence[str], of: str,
    facet: str | Sequence[str] | None,
) -> View:  # fmt: skip
    """Return the exponent for which curves of a metric fall on one, and both pictures.

    Args:
        cells: The chosen cells.
        where: Conditions that chose them, for the caption.
        pair: The key that is rescaled and the key of the curves.
        of: The metric.
        facet: As for :func:`runner.views.boundary.boundary`.

    Raises:
        UserError: If there are not two keys, or the metric is a property with a level.
    """
    if len(pair) != 2:
        raise UserError(
            f"--collapse must be two keys, X,KEY, got {','.join(pair) or 'none'}; for example gamma,width"
        )
    if "=" in of:
        raise UserError(
            f"--of must be a metric without a level with --collapse, got {of}; try {of.partition('=')[0]}"
        )
    x, key = pair
    facets = enough_facets(cells, (x, key), default_facets(store, pair)) if facet is None else names(facet)
    table, points = collapse(cells, of, x, key, facets)
    shared = sweep_words(cells, store.config, where, (x, key, *facets))
    unit = lr_unit(cells)
    return View(
        table,
        _caption(table, of, x, key, facets, shared),
        lambda layout: _chart(points, table, of, x, key, facets, unit, layout),
        2 * len(table),
        lambda out: _print(table, of, x, key, facets, out),
        {"of": of, "collapse": [x, key], "facets": facets, "at": store.config.get("at")},
        {"points": points},
        across=2,
    )


def exponent_words(row: dict[str, Any]) -> str:
    """Return an exponent with its interval and theory, or why there is none."""
    beta, low = plain(row["exponent"]), plain(row["low"])
    if beta is None:
        return f"no exponent: {row['reason']}"
    interval = "" if low is None else f" [{_number(low)}, {_number(row['high'])}]"
    return f"{_number(beta)}{interval}{theory_words(row)}"


def _line(row: dict[str, Any], facets: Sequence[str]) -> str:
    """Return an exponent with its residual behind the heading of its facet."""
    label = facet_label(facets, [row[facet] for facet in facets])
    rest = "" if plain(row["exponent"]) is None else f", residual {100 * row['residual']:.1f} %"
    return (f"{label}: " if label else "") + exponent_words(row) + rest


def _number(value: float, digits: int = 2) -> str:
    """Return a number with so many decimals; zero has no sign."""
    return f"{round(value, digits) + 0.0:.{digits}f}"


def doubts(row: dict[str, Any]) -> str | None:
    """Return what must be said where the curves are not seen to be one, None elsewhere."""
    one = plain(row["one_curve"])
    if one == "no":
        return (
            f"the curves do not collapse: they differ by {100 * row['residual']:.0f} %, of which seeds "
            f"explain {100 * row['noise']:.0f} %; the exponent is only the best one"
        )
    if one == "cannot tell":
        return f"whether the curves are one cannot be told: {row['one_because']}"
    return None


_ABOVE = {"no": ", no collapse", "cannot tell": ", cannot tell"}
"""What stands above the panel of curves that are not seen to be one."""


def _chart(
    points: pd.DataFrame, table: pd.DataFrame, of: str, x: str, key: str, facets: Sequence[str],
    unit: str | None, layout: Layout,
) -> Any:  # fmt: skip
    """Return two panels for each combination: against x, and against the rescaled x."""
    series = [show(value) for value in distinct(points[key])]
    rows = points.assign(series=points[key].map(show))
    parts = dict(groups(rows, [column(rows, facet, "--facet") for facet in facets]))
    title = column_title(x, unit)
    up = value_scale(points["value"], column_words(of))
    charts: list[Any] = []
    for row in records(table):
        values = tuple(plain(row[facet]) for facet in facets)
        if values not in parts:  # nothing was measured, which the caption says
            continue
        part, label = parts[values], facet_label(facets, values)
        named = not charts
        scales = (value_scale(points[x], title), up)
        charts.append(_panel(part, x, scales, of, key, series, label, layout, named))
        if plain(row["exponent"]) is None:
            charts.append(_empty(layout))
            continue
        rescaled = f"{title} \u00d7 {key}^{_number(-row['exponent'])}"
        number = _number(row["exponent"]) if layout.paper else exponent_words(row)
        scales = (value_scale(part[COLLAPSED], rescaled), up)
        # In print of its facet: a heading that is the one above it would be left out.
        lead = f"{label}, " if layout.paper and label else ""
        heading = f"{lead}exponent {number}{_ABOVE.get(str(plain(row['one_curve'])), '')}"
        charts.append(_panel(part, COLLAPSED, scales, of, key, series, heading, layout, False))
    # Whatever the room, the two of a pair stand side by side or below each other.
    columns = layout.columns or 2
    return concat(charts, replace(layout, columns=1 if columns == 1 else columns // 2 * 2))


def _panel(
    part: pd.DataFrame, field: str, scales: tuple[Scale, Scale], of: str, key: str, series: Sequence[str],
    heading: str, layout: Layout, named: bool,
) -> Any:  # fmt: skip
    """Return one panel: a curve per value of the key, in both logarithms."""
    rows = part[["series", "value", "seeds"]].assign(x=part[field])
    names = legend(series, layout, key, 6, symbolType="circle", symbolOpacity=1)
    color = alt.Color(
        "series:N",
        scale=series_scales(series, ordered=True)["color"],
        legend=names if named or layout.paper else None,
    )
    x, y = scales
    base = alt.Chart(rows_of(rows)).encode(
        x=x.encode(alt.X, "x"),
        # On a screen the panel of the rescaled abscissa stands beside its own, with the same values.
        y=(y if layout.paper or field != COLLAPSED else replace(y, title="")).encode(alt.Y, "value"),
        color=color,
    )
    tooltip = [
        alt.Tooltip("series:N", title=key), alt.Tooltip("x:Q", title=x.title, format=".3~g"),
        alt.Tooltip("value:Q", title=of, format=".3~g"), alt.Tooltip("seeds:Q"),
    ]  # fmt: skip
    marks = base.mark_point(filled=True, size=14 if layout.paper else 22, opacity=1).encode(tooltip=tooltip)
    return layered([base.mark_line(strokeWidth=1.2), marks], heading, *layout.size())


def _empty(layout: Layout) -> Any:
    """Return the panel of curves that nothing collapses."""
    note = alt.Chart(rows_of(pd.DataFrame({"text": ["no exponent"]})))
    mark = note.mark_text(color=theme("muted"), fontSize=layout.font).encode(text="text:N")
    return layered([mark], "", *layout.size())


def _caption(table: pd.DataFrame, of: str, x: str, key: str, facets: Sequence[str], shared: str) -> str:
    """Return the caption, exponents and residuals included."""
    found = []
    for row in records(table):
        rest = "" if doubts(row) is None else f" ({doubts(row)})"
        found.append(_line(row, facets) + rest)
    return (
        f"{of} against {x}, one curve per {key}: as measured, and against {x} {key}^-exponent with the "
        f"exponent for which the curves come nearest to one. {shared} Points: geometric means over seeds of "
        "cells that trained. Exponents with 95 % intervals; residual: root mean square of the relative "
        f"difference of a point and the other curves. {'; '.join(found)}."
    )


def _print(table: pd.DataFrame, of: str, x: str, key: str, facets: Sequence[str], out: Console) -> None:
    """Print one line per combination, and below what has no exponent or no interval the reason."""
    wide = out.width >= 76
    view = plain_table(f"{of} as a function of {x} {key}^-exponent")
    headings = ("", "exponent", "95% interval", "theory", "residual", "noise", "curves", "points")
    for heading in headings:
        view.add_column(
            heading, justify="right" if heading else "left", no_wrap=bool(heading), header_style="dim"
        )
    notes = []
    for row in records(table):
        label = facet_label(facets, [row[facet] for facet in facets])
        beta, low, theory = (plain(row[name]) for name in ("exponent", "low", "theory"))
        sizes = (plain(row[name]) for name in ("residual", "noise"))
        view.add_row(
            label,
            MISSING if beta is None else _number(beta, 3),
            MISSING if low is None else f"[{_number(low, 3)}, {_number(row['high'], 3)}]",
            "" if theory is None else f"{theory:.3g}",
            *(MISSING if size is None else f"{100 * size:.1f} %" for size in sizes),
            str(row["curves"]),
            f"{row['compared']}/{row['points']}",
        )
        left = row["left_out"]
        out_of = f"{left} cells left out (diverged, failed, or no positive value)" if left else None
        reason = plain(row["reason"]) if wide or beta is not None else None  # a line says it already
        doubt, verdict = doubts(row), verdict_words(row)
        reason = None if doubt is not None and str(reason) in doubt else reason
        beside = f"beside theory's {theory:.3g}: {verdict}" if verdict else None
        found = [text for text in (reason, doubt, beside, out_of) if text is not None]
        notes += [f"{label}: {text}" if label else text for text in found]
    if wide:
        out.print(view)
    else:
        out.print(view.title)
        for row in records(table):
            out.print(_line(row, facets))
    for note in notes:
        out.print(note)
    more = "; noise: what of it the spread of seeds explains; points: compared with other curves, of all"
    note = "residual: relative difference of a point and the other curves, root mean square"
    out.print(note + more if wide else note, style="dim")
