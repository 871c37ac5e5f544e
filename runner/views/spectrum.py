"""The spectrum of the kernel at init against width, and what the network won over that kernel."""

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from runner.analysis.columns import distinct
from runner.analysis.phase import Axes
from runner.analysis.regime import COLORS, LETTERS, REGIMES
from runner.analysis.selection import with_series
from runner.store import Store
from runner.views import alt
from runner.views.picture import Part, Section
from runner.views.scales import column_title, column_words, number_scale, value_channel, width_scale
from runner.views.style import Layout, concat, layered, rows_of, series_scales, theme

SPECTRUM = ("lambda_max_init", "lambda_min_init", "condition_number_init", "effective_rank")
GAINS = ("ntk_gain", "transfer_gain")


def _spectrum(store: Store, cells: pd.DataFrame, axes: Axes) -> Part | None:
    """Return one panel per measure that was taken, a point per distinct network."""
    named = with_series(cells, axes.facets)
    series = [str(name) for name in distinct(named["series"])]
    parts = [
        (measure, _measured(named, measure).drop_duplicates(["series", "width", measure]))
        for measure in SPECTRUM
        if measure in named
    ]
    return _part(parts, lambda part, measure: _against_width(part, measure, series))


def _gain(store: Store, cells: pd.DataFrame, axes: Axes) -> Part | None:
    """Return what training won over the kernel at init against the kernel's movement: a point per cell."""
    named = with_series(cells, axes.facets).assign(regime=cells["regime"].astype(object))
    named = named[(pd.to_numeric(named["ntk_change"]) > 0) & named["regime"].notna()]
    return _part(
        [(measure, _measured(named, measure)) for measure in GAINS if measure in named], _against_change
    )


def _part(
    parts: Sequence[tuple[str, pd.DataFrame]], panel: Callable[[pd.DataFrame, str], Any]
) -> Part | None:
    """Return the panels of the measures that have rows."""
    charts = [panel(part, measure) for measure, part in parts if len(part)]
    return Part(concat(charts, Layout(), most=3)) if charts else None


def _measured(cells: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Return the cells with a finite value of a measure."""
    return cells[pd.to_numeric(cells[measure]).astype(float).abs() < float("inf")]


def _against_width(part: pd.DataFrame, measure: str, series: Sequence[str]) -> Any:
    channels = series_scales(series, ordered=False)
    legend = alt.Legend(title=None, orient="top", columns=4, symbolSize=50)
    rows = part[["series", "width", measure]].rename(columns={measure: "value"})
    marks = (
        alt.Chart(rows_of(rows))
        .mark_point(size=36, strokeWidth=1.4)
        .encode(
            x=width_scale(part["width"]).encode(alt.X, "width"),
            y=value_channel(bool((rows["value"] > 0).all())),
            color=alt.Color("series:N", scale=channels["color"], legend=legend),
            shape=alt.Shape("series:N", scale=channels["shape"], legend=legend),
            tooltip=["series:N", "width:Q", alt.Tooltip("value:Q", title=measure, format=".3~g")],
        )
    )
    width, height = Layout().size()
    return marks.properties(title=column_words(measure), width=width, height=height)


def _against_change(part: pd.DataFrame, measure: str) -> Any:
    rows = part[["series", "regime", "width", "lr", "ntk_change", measure]].rename(columns={measure: "value"})
    rows = rows.assign(letter=rows["regime"].map(LETTERS))
    present = [regime for regime in REGIMES if (rows["regime"] == regime).any()]
    color = alt.Color(
        "regime:N",
        scale=alt.Scale(domain=present, range=[COLORS[regime] for regime in present]),
        legend=alt.Legend(title=None, orient="top", symbolStrokeWidth=0),
    )
    axis = alt.Axis(title=column_title("ntk_change"), format="~g", tickCount=5)
    x = alt.X("ntk_change:Q", scale=number_scale(log=True), axis=axis)
    y = alt.Y("value:Q", axis=alt.Axis(title=None, format="~g", tickCount=5))
    tooltip: list[Any] = ["series:N", "regime:N", "width:Q", "lr:Q"]
    tooltip += [alt.Tooltip("value:Q", title=measure, format=".3~g")]
    marks = alt.Chart(rows_of(rows)).mark_point(
        filled=True, size=45, opacity=0.9, stroke=theme("muted"), strokeWidth=0.5
    )
    points = marks.encode(x=x, y=y, color=color, shape=alt.Shape("regime:N", legend=None), tooltip=tooltip)
    zero = alt.Chart(rows_of(pd.DataFrame({"value": [0.0]}))).mark_rule(
        strokeDash=[2, 2], color=theme("muted")
    )
    return layered([zero.encode(y=y), points], column_words(measure), *Layout().size())


SECTIONS = (
    Section(
        "spectrum",
        "Spectrum of the kernel",
        "Eigenvalues of the tangent kernel on the training set at init, one point per network.",
        _spectrum,
        (105, 190, 290),
    ),
    Section(
        "gain",
        "What training won over the kernel",
        "Against the change of the kernel, a point per cell: what the network gained over regression "
        "with its kernel at init, and what its features are worth on other labels.",
        _gain,
        (105, 220, 400),
    ),
)
