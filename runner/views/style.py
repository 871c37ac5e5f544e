"""What all charts share: colours, type, the room of a panel, and rows as inline data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from runner.analysis.columns import plain
from runner.views import alt

INK, PAPER, MUTED = "#1A1A1A", "#FFFFFF", "#6B6B6B"
THEME = {"ink": INK, "paper": PAPER, "muted": MUTED}
"""Parameters of every chart, by which the page turns it dark."""
FONT = "Helvetica, Arial, Liberation Sans, sans-serif"
# Okabe & Ito's palette without its green, neighbours apart in lightness; shapes and dashes repeat it.
SERIES_COLORS = ("#0072B2", "#E69F00", "#56B4E9", "#D55E00", "#CC79A7", "#8C8C8C")
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")
DASHES = ([1, 0], [6, 2], [2, 2], [6, 2, 2, 2], [10, 3], [1, 3])


@dataclass(frozen=True, slots=True)
class Layout:
    """The room that a chart has.

    Attributes:
        panel: Width of a panel in points; None lets the chart choose.
        columns: Panels side by side; None lets the chart choose.
        font: Size of the labels in points.
        paper: Whether it is for print: no room for what only a screen needs.
    """

    panel: float | None = None
    columns: int | None = None
    font: float = 10
    paper: bool = False

    def size(self, usual: float = 210, ratio: float = 0.72, least: float = 90) -> tuple[float, float]:
        """Return width and height of a panel.

        Args:
            usual: Width in points, if the layout does not say.
            least: Height in points that it never falls below.
        """
        width = self.panel or usual
        return width, max(least, ratio * width)

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
    own: bool = False,
) -> alt.ConcatChart:  # fmt: skip
    """Return panels in rows: type and colours as in a paper's figure, colours of the theme as parameters.

    Args:
        most: Panels side by side, if the layout does not say.
        own: Whether colours and shapes of a panel mean something else than in its neighbours.
    """
    figure: alt.ConcatChart = alt.concat(
        *charts,
        columns=layout.columns_of(len(charts), most),
        spacing={"row": 10, "column": 12} if layout.paper else {"row": 24, "column": 44},
    )
    if title:
        more: dict[str, Any] = {"subtitle": subtitle} if subtitle else {}
        figure.title = alt.TitleParams(title, **more)
    if own:
        figure.resolve = alt.Resolve(
            scale=alt.ScaleResolveMap(color="independent", shape="independent", strokeDash="independent")
        )
    figure.config = _config(layout)
    figure.params = [parameter(name, value) for name, value in THEME.items()]
    return figure


def _config(layout: Layout) -> Any:
    """Return the look of all charts."""
    ink, muted, size = theme("ink"), theme("muted"), layout.font
    return alt.Config(
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
        ),
    )  # fmt: skip


def rows_of(frame: pd.DataFrame) -> pd.DataFrame:
    """Return rows as a chart's data, rounded so that the same table gives the same bytes on any machine.

    A frame and not Altair's inline data: that is copied whole with every layer that it is in. Types are
    pandas' own, for in columns of objects Altair leaves missing values as NaN, which is no JSON.
    """
    columns = {str(key): pd.Series([rounded(value) for value in frame[key]]) for key in frame}
    return pd.DataFrame({key: column.convert_dtypes() for key, column in columns.items()})


def rounded(value: Any) -> Any:
    """Return a value as JSON has it: numbers to nine digits, infinite and missing ones as null."""
    value = plain(value)
    if isinstance(value, float):
        return float(f"{value:.9g}") if math.isfinite(value) else None
    return value


def series_scales(values: Sequence[Any], ordered: bool) -> dict[str, Any]:
    """Return the channels that tell series apart: colour, and dashes or shapes where they are few.

    Args:
        values: Names of the series, as they stand in the data.
        ordered: Whether they are numbers, which a sequence of colours shows better than distinct ones.
    """
    colors = ramp(len(values)) if ordered else [SERIES_COLORS[i % 6] for i in range(len(values))]
    scale = alt.Scale(domain=list(values), range=list(colors))
    shapes = alt.Scale(domain=list(values), range=[SHAPES[i % 6] for i in range(len(values))])
    return {"color": scale, "shape": shapes}


def ramp(count: int) -> list[str]:
    """Return colours from dark blue to orange (of the plasma map) that read on white and on black."""
    anchors = np.array([[63, 55, 161], [126, 73, 190], [190, 85, 150], [225, 110, 100], [236, 150, 50]])
    places = np.linspace(0, len(anchors) - 1, count) if count > 1 else np.zeros(1)
    mixed = [np.interp(places, range(len(anchors)), anchors[:, i]) for i in range(3)]
    return ["#" + "".join(f"{round(part):02X}" for part in color) for color in zip(*mixed, strict=True)]
