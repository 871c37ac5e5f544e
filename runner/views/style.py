"""What all charts share: colours, type, the room of a panel, and rows as inline data."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from runner.analysis.columns import plain
from runner.views import alt
from runner.views.lettering import fitting, text_width
from runner.views.printed import printed

INK, PAPER, MUTED = "#1A1A1A", "#FFFFFF", "#6B6B6B"
THEME = {"ink": INK, "paper": PAPER, "muted": MUTED}
"""Parameters of every chart, by which the page turns it dark."""
FONT = "Helvetica, Arial, Liberation Sans, sans-serif"
# Okabe & Ito's palette without its green, neighbours apart in lightness; shapes and dashes repeat it.
SERIES_COLORS = ("#0072B2", "#E69F00", "#56B4E9", "#D55E00", "#CC79A7", "#8C8C8C")
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")
DASHES = ([1, 0], [6, 2], [2, 2], [6, 2, 2, 2], [10, 3], [1, 3])
OWN = ("color", "shape", "strokeDash")
"""Channels of series, where every panel has others."""
LEAST_HEIGHT, LEAST_TYPE = 48.0, 6.0
"""Of a panel and of a text in print, in points."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The room that a chart has.

    Attributes:
        panel: Width of a panel in points; None lets the chart choose.
        columns: Panels side by side; None lets the chart choose.
        font: Size of the labels in points.
        paper: Whether it is for print: no room for what only a screen needs.
        width: Of the whole figure in print, in points.
        highest: Height in points that no panel exceeds, so that the figure fits on a page.
    """

    panel: float | None = None
    columns: int | None = None
    font: float = 10
    paper: bool = False
    width: float = math.inf
    highest: float = math.inf

    def size(self, usual: float = 210, ratio: float = 0.72, least: float = 90) -> tuple[float, float]:
        """Return width and height of a panel.

        Args:
            usual: Width in points, if the layout does not say.
            least: Height in points that it never falls below on a screen.
        """
        width = self.panel or usual
        return width, min(self.highest, max(LEAST_HEIGHT if self.paper else least, ratio * width))

    def columns_of(self, panels: int, most: int = 4) -> int:
        """Return how many panels stand side by side: two rows of four rather than five and three."""
        if self.columns:
            return min(self.columns, panels)
        return panels if panels <= most else math.ceil(panels / math.ceil(panels / most))


def parameter(name: str, value: Any) -> Any:
    """Return a parameter of a whole chart, which its script may set."""
    return alt.param(name=name, value=value).param


def theme(name: str) -> Any:
    """Return a reference to a colour of the theme."""
    return alt.ExprRef(name)


def layered(layers: Sequence[Any], title: Any, width: float, height: float) -> Any:
    """Return one panel."""
    panel = alt.layer(*layers)
    # Set, where .properties() would copy everything inside.
    panel.title, panel.width, panel.height = title, width, height
    return panel


def concat(
    charts: Sequence[Any], layout: Layout, most: int = 4, title: str = "", subtitle: str = "",
    own: Sequence[str] = (),
) -> alt.ConcatChart:  # fmt: skip
    """Return panels in rows: type and colours as in a paper's figure, colours of the theme as parameters.

    In print panels have letters, an axis that neighbours share is labelled once, and legends stand above all.

    Args:
        most: Panels side by side, if the layout does not say.
        own: Channels of which every panel has scales and legends of its own on a screen.
    """
    columns = layout.columns_of(len(charts), most)
    figure: alt.ConcatChart = alt.concat(
        *(printed(charts, columns, layout.panel or 0, layout.font) if layout.paper else charts),
        columns=columns,
        spacing={"row": 6, "column": 8} if layout.paper else {"row": 24, "column": 44},
        **({"align": "each"} if layout.paper else {}),
    )
    if title:
        more: dict[str, Any] = {"subtitle": subtitle} if subtitle else {}
        figure.title = alt.TitleParams(title, **more)
    if own and not layout.paper:
        apart: dict[str, Any] = dict.fromkeys(own, "independent")
        figure.resolve = alt.Resolve(scale=alt.ScaleResolveMap(**apart))
    configured(figure, layout)
    return figure


def configured(figure: Any, layout: Layout) -> Any:
    """Return a whole figure with the look of all charts, its colours of the theme as parameters."""
    figure.config = _config(layout)
    own = [] if figure.params is alt.Undefined else figure.params
    figure.params = [*own, *(parameter(name, value) for name, value in THEME.items())]
    return figure


def _config(layout: Layout) -> Any:
    """Return the look of all charts."""
    ink, muted, size = theme("ink"), theme("muted"), layout.font
    config = alt.Config(
        font=FONT,
        background=theme("paper"),
        padding=2 if layout.paper else 8,
        view=alt.ViewConfig(stroke="#888888", strokeWidth=0.8),
        axis=alt.AxisConfig(
            grid=False, domain=False, tickColor="#888888", tickSize=3,
            labelFontSize=size, labelColor=ink,
            titleFontSize=size + 1, titleFontWeight="normal", titleColor=ink,
            titlePadding=3 if layout.paper else 6,
        ),
        title=alt.TitleConfig(
            anchor="start", offset=4, color=ink, fontSize=size + 1, fontWeight="bold",
            subtitleFontSize=size, subtitleColor=muted,
        ),
        legend=alt.LegendConfig(
            labelFontSize=size, labelColor=ink, labelLimit=0,
            titleFontSize=size, titleFontWeight="normal", titleColor=ink,
            **(_PRINTED_LEGEND if layout.paper else {}),
        ),
    )  # fmt: skip
    if layout.paper:
        config.legend.layout = alt.ExprRef(_LEGENDS)
    return config


_SYMBOL, _BESIDE = 28, 38.0
"""Size of a symbol in print, and points that the labels of an axis take: a legend begins where panels do."""
_PRINTED_LEGEND: dict[str, Any] = {
    "offset": 5, "padding": 0, "rowPadding": 1, "columnPadding": 8, "titlePadding": 4,
}  # fmt: skip
_LEGENDS = "{top: {anchor: 'start', direction: 'vertical', margin: 3}}"
"""Where legends stand: from the left, one below the other."""


def legend(
    labels: Sequence[Any], layout: Layout, title: str | None = None, columns: int = 4,
    says: Mapping[str, str | list[str]] | None = None, **more: Any,
) -> Any:  # fmt: skip
    """Return the legend of a channel of series: above the panels, in print as wide as the figure.

    Args:
        labels: What it names.
        title: What they are values of.
        columns: Labels side by side on a screen.
        says: On a screen, what is said of each in place of its name, in one line or several. In print the
            caption does.
    """
    if layout.paper:
        lead = text_width(f"{title} ", layout.font) + 4 if title else 0
        columns = fitting(map(str, labels), layout.width - lead - _BESIDE, layout.font)
        more = {"titleOrient": "left", "titleAnchor": "middle", "symbolSize": _SYMBOL} | more
    else:
        more = {"symbolSize": 50} | more
        if says is not None:
            columns, more = 1, {"labelExpr": _label_of(says), "labelFontSize": layout.font + 1} | more
    return alt.Legend(title=title, columns=columns, **{"orient": "top"} | more)


def _label_of(says: Mapping[str, str | list[str]]) -> str:
    """Return the expression of the text of a label."""
    chosen = (f"datum.label === {json.dumps(name)} ? {json.dumps(text)} : " for name, text in says.items())
    return f"{''.join(chosen)}datum.label"


def rows_of(frame: pd.DataFrame) -> pd.DataFrame:
    """Return rows as a chart's data, rounded so that the same table gives the same bytes on any machine.

    A frame and not Altair's inline data: that is copied whole with every layer that it is in. Types are
    pandas' own, for in columns of objects Altair leaves missing values as NaN, which is no JSON.
    """
    if frame.empty:  # of numbers, for Altair asks nothing else of a column without values
        return frame.astype(float)
    columns = {str(key): pd.Series([rounded(value) for value in frame[key]]) for key in frame}
    return pd.DataFrame({key: column.convert_dtypes() for key, column in columns.items()})


def rounded(value: Any) -> Any:
    """Return a value as JSON has it: numbers to nine digits, infinite and missing ones as null."""
    value = plain(value)
    if isinstance(value, float):
        return float(f"{value:.9g}") if math.isfinite(value) else None
    return value


TWIN = 2.6
"""Times as large is the mark of a series that lies on another."""


def point_marks(base: Any, twins: Sequence[str], layout: Layout) -> list[Any]:
    """Return the points of series as marks, those of twins around those of the series that they lie on.

    Args:
        base: A chart with the field ``series``.
        twins: Series that are drawn hollow and larger.
    """
    size = 20 if layout.paper else 36
    if not twins:
        return [base.mark_point(filled=True, size=size, opacity=1)]
    there = f"indexof({json.dumps(list(twins))}, datum.series)"
    around = base.mark_point(
        filled=False, size=TWIN * size, opacity=1, strokeWidth=0.8 if layout.paper else 1.3
    )
    return [
        base.mark_point(filled=True, size=size, opacity=1).transform_filter(f"{there} < 0"),
        around.transform_filter(f"{there} >= 0"),
    ]


def series_scales(values: Sequence[Any], ordered: bool) -> dict[str, Any]:
    """Return the channels that tell series apart: colour, and dashes or shapes where they are few.

    Args:
        values: Names of the series, as they stand in the data.
        ordered: Whether they are numbers, which a sequence of colours shows better than distinct ones.
    """
    colors = ramp(len(values)) if ordered else [SERIES_COLORS[i % 6] for i in range(len(values))]
    scale = alt.Scale(domain=list(values), range=list(colors))
    shapes = alt.Scale(domain=list(values), range=turned(SHAPES, len(values)))
    return {"color": scale, "shape": shapes}


def turned(looks: Sequence[Any], count: int) -> list[Any]:
    """Return looks for series, one further on in each round, so that none comes with a colour twice."""
    size = len(looks)
    return [looks[(place + place // size) % size] for place in range(count)]


def ramp(count: int) -> list[str]:
    """Return colours from dark blue to orange (of the plasma map) that read on white and on black."""
    anchors = np.array([[63, 55, 161], [126, 73, 190], [190, 85, 150], [225, 110, 100], [236, 150, 50]])
    places = np.linspace(0, len(anchors) - 1, count) if count > 1 else np.zeros(1)
    mixed = [np.interp(places, range(len(anchors)), anchors[:, i]) for i in range(3)]
    return ["#" + "".join(f"{round(part):02X}" for part in color) for color in zip(*mixed, strict=True)]
