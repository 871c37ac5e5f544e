"""The page's charts of single cells: any two numbers against each other, and parallel coordinates.

Their rows are made by the page's script of the cells that are shown: ``cell`` (its place in the table),
``regime`` and ``fade``, an opacity that is less where a cell is outside what is brushed.
"""

from typing import Any

from runner.analysis.regime import COLORS, REGIMES
from runner.views import alt
from runner.views.page.diagram import BRUSH
from runner.views.style import INK, Layout, configured, theme

SCATTER, PARALLEL = "scatter", "parallel"
"""Names of the charts and of their data."""
_SHAPES = ["circle", "cross", "triangle-up", "diamond", "square", "triangle-down"]
"""Of the diagram's panels: of the first two, which lie on each other, both are seen."""


def scatter() -> Any:
    """Return the specification of one number of the cells against another: fields ``a`` and ``b``."""
    brush = alt.selection_interval(name=BRUSH, encodings=["x", "y"], mark=_mark())
    figure = (
        alt.Chart(alt.NamedData(SCATTER))
        .mark_point(filled=True, size=60, stroke=theme("ink"), strokeWidth=0.5)
        .encode(
            x=_axis(alt.X, "a"),
            y=_axis(alt.Y, "b"),
            color=_color(),
            shape=alt.Shape("panel:N", scale=alt.Scale(range=_SHAPES), legend=_shape_legend()),
            opacity=alt.Opacity("fade:Q", scale=None),
            tooltip=alt.Tooltip("tip:N"),
        )
        .add_params(brush)
    )
    return _sized(figure)


def parallel() -> Any:
    """Return the specification of parallel coordinates: fields ``axis``, ``place`` in [0, 1], ``text``.

    Every axis has its own scale, which the script has applied; ``tick`` rows write its ends.
    """
    brush = alt.selection_interval(name=BRUSH, encodings=["x", "y"], mark=_mark())
    data = alt.NamedData(PARALLEL)
    # An axis is a band as wide as its brush may be; lines pass through its middle.
    x = alt.X(
        "axis:N",
        sort=None,
        axis=alt.Axis(
            title=None,
            labelAngle=-20,
            labelLimit=180,
            orient="top",
        ),
    )
    y = alt.Y("place:Q", scale=alt.Scale(domain=[-0.03, 1.03], nice=False), axis=None)
    base = alt.Chart(data).encode(x=x, y=y)
    lines = base.transform_filter("datum.kind == 'line'").mark_line(strokeWidth=1.2).encode(
        detail=alt.Detail("cell:Q"), color=_color(), opacity=alt.Opacity("fade:Q", scale=None)
    )  # fmt: skip
    ticks = base.transform_filter("datum.kind == 'tick'")
    texts = [
        ticks.mark_text(
            align="left", dx=6, fontSize=11, color=theme(color), stroke=theme(stroke), strokeWidth=width,
            strokeJoin="round",
        ).encode(text="text:N")
        for color, stroke, width in (("paper", "paper", 3), ("ink", "ink", 0))
    ]  # fmt: skip
    # No dash: before a number it reads as a minus sign.
    dots = ticks.mark_point(filled=True, color=theme("ink"), size=18, opacity=1)
    brushed = base.transform_filter("datum.kind == 'line'").mark_point(opacity=0).add_params(brush)
    return _sized(alt.layer(lines, dots, *texts, brushed))


def _shape_legend() -> Any:
    return alt.Legend(title=None, orient="top", symbolFillColor=theme("muted"), labelFontSize=12)


def _mark() -> Any:
    return alt.BrushConfig(fill=INK, fillOpacity=0.12, stroke=INK)


def _axis(channel: type, field: str) -> Any:
    return channel(
        f"{field}:Q",
        scale=alt.Scale(type="log", nice=False, padding=8),
        # Padded, for the first labels of both axes would meet in the corner.
        axis=alt.Axis(title=field, format=".3~g", tickCount=5, labelPadding=7),
    )


def _color() -> Any:
    scale = alt.Scale(domain=list(REGIMES), range=[COLORS[name] for name in REGIMES])
    return alt.Color("regime:N", scale=scale, legend=None)


def _sized(figure: Any) -> Any:
    figure.width, figure.height = 400, 300
    return configured(figure, Layout(font=12))
