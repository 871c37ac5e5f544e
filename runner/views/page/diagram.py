"""The page's diagram: one specification, whose rows the page's script makes of the cells.

Every layer takes the rows of its ``kind``: ``cell`` (a point with its rectangle), ``map`` (the picture of a
measure between points), ``line`` (a boundary with its interval), ``theory``, ``label`` (of a line, at the
right border), ``corner`` (the regime of the next most seeds, where they disagree), ``second`` (its letter on
a tie), ``pick`` (the frame of a chosen point) and ``empty`` (a panel that nothing is shown of).
"""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from runner.analysis.columns import groups
from runner.analysis.phase import Axes, is_scattered
from runner.analysis.regime import COLORS, LETTERS, REGIMES
from runner.analysis.selection import facet_label
from runner.views import alt
from runner.views.page.packing import short
from runner.views.phase.chart import bordered, renamed
from runner.views.phase.colors import gradient_legend, with_ends
from runner.views.scales import column_title, number_scale, shared_scale
from runner.views.style import INK, PAPER, Layout, configured, theme

ROWS = "diagram"
"""The name of the data that the script puts in."""
BRUSH = "brush"
PICKS = ("#1A1A1A", "#0072B2")
"""Of the frame of the chosen point and of the one that it is compared with."""


def diagram(grid: pd.DataFrame, axes: Axes, unit: str | None) -> Any:
    """Return the specification of the diagram of a grid.

    Args:
        grid: As returned by :func:`runner.analysis.phase.phase_grid`.
        unit: Unit of ``lr`` in all cells, for the axis titles.
    """
    panels = list(groups(grid, [grid[facet] for facet in axes.facets]))
    x, y = (shared_scale(grid, key, panels, column_title(key, unit)) for key in (axes.x, axes.y))
    scales = (x.encode(alt.X, "x"), y.encode(alt.Y, "y"))
    layers = [*_fills(scales), *_lines(scales), *_marks(scales)]
    titles = [facet_label(axes.facets, values) for values, _ in panels]
    header = alt.Header(
        title=None, labelFontWeight="bold", labelAnchor="start", labelFontSize=13, labelPadding=3,
        labelColor=theme("ink"),
    )  # fmt: skip
    data = alt.NamedData(ROWS)
    # The facet of a layered chart has one source of rows, which its layers choose from.
    figure = alt.layer(*layers, data=data).facet(
        facet=alt.Facet("panel:N", sort=titles, header=header if any(titles) else None, title=None),
        columns=2,
        spacing={"row": 14, "column": 14},
    )
    return configured(figure, Layout(font=12))


def points_table(grid: pd.DataFrame, axes: Axes) -> dict[str, Any]:
    """Return the points of the grid as columns, in its order: panel, place, borders; and the panels.

    Returns:
        ``panel``, ``x``, ``y``, ``x0``, ``x1``, ``y0``, ``y1``; ``titles`` of the panels, and for each
        whether its columns have points of their own (``scattered``), so that nothing lies between four.
    """
    parts, titles, scattered = [], [], []
    for place, (values, part) in enumerate(groups(grid, [grid[facet] for facet in axes.facets])):
        parts.append(bordered(part, axes).assign(panel=place))
        titles.append(facet_label(axes.facets, values))
        scattered.append(is_scattered(part, axes))
    frame = pd.concat(parts).loc[grid.index]
    borders = {name: short(frame[name], 6) for name in ("x", "y", "x0", "x1", "y0", "y1")}
    return {"panel": frame["panel"].tolist(), **borders, "titles": titles, "scattered": scattered}


def color_channels(cells: pd.DataFrame, measures: Sequence[str]) -> dict[str, Any]:
    """Return the color channel of each measure: its domain is that of the cells as they ended."""
    found: dict[str, Any] = {}
    for name in measures:
        known = [value for value in short(cells[name]) if value is not None]
        low, high = min(known), max(known)
        log = 0 < low < high / 10
        scale = number_scale(log, scheme="viridis", nice=False, domain=[low, high], clamp=True)
        legend = gradient_legend(column_title(name), paper=True)
        legend.gradientLength, legend.titleFontSize, legend.titleLimit = 260, 13, 0
        legend = with_ends(legend, low, high, log)
        found[name] = alt.Color("value:Q", scale=scale, legend=legend).to_dict()
    return found


def regime_channel() -> Any:
    """Return the color channel of the regimes."""
    labels = " : ".join(f"datum.value == '{name}' ? '{LETTERS[name]}  {name}'" for name in REGIMES)
    legend = alt.Legend(
        title=None, orient="top", offset=4, symbolType="square", symbolStrokeWidth=0, symbolSize=160,
        labelExpr=f"{labels} : datum.value", columns=len(REGIMES), labelFontSize=13,
    )  # fmt: skip
    scale = alt.Scale(domain=list(REGIMES), range=[COLORS[name] for name in REGIMES])
    return alt.Color("regime:N", scale=scale, legend=legend).to_dict()


def _of(kind: str, more: str = "") -> str:
    return f"datum.kind == '{kind}'" + (f" && {more}" if more else "")


def _fills(scales: tuple[Any, Any]) -> list[Any]:
    """Return what is coloured: rectangles, or the picture between points and the points on it."""
    rectangle = {
        "x": renamed(scales[0], "x0"), "x2": alt.X2("x1"), "y": renamed(scales[1], "y0"), "y2": alt.Y2("y1"),
    }  # fmt: skip
    fade = alt.Opacity("fade:Q", scale=None)
    cells = alt.Chart().transform_filter(_of("cell"))
    white = cells.mark_rect(fill=PAPER).encode(**rectangle)
    rects = cells.mark_rect(stroke=theme("paper"), strokeWidth=0.6).encode(**rectangle, opacity=fade)
    corners = alt.Chart().transform_filter(_of("corner")).mark_rect(stroke=INK, strokeWidth=0.6)
    corners = corners.encode(**rectangle, fill=alt.Fill("fill:N", scale=None), opacity=fade)
    picture = alt.Chart().transform_filter(_of("map")).mark_image(aspect=False, smooth=True)
    return [
        white.properties(name="white"),
        rects.properties(name="cells"),
        corners.properties(name="corners"),
        picture.encode(**rectangle, url=alt.Url("url:N")).properties(name="map"),
        cells.mark_point(
            shape="square", filled=True, size=300, opacity=1, stroke=theme("ink"), strokeWidth=0.8
        ).encode(x=scales[0], y=scales[1], opacity=fade).properties(name="chips"),
    ]  # fmt: skip


def _lines(scales: tuple[Any, Any]) -> list[Any]:
    """Return boundaries with the ends of their intervals, and theory's line."""
    x, y = scales
    lines = alt.Chart().transform_filter(_of("line"))
    drawn = []
    for end in ("low", "high"):  # not filled: a veil would change the colours that the legend explains
        for color, thick in ((PAPER, 2.2), (INK, 0.9)):  # seen on dark cells, too
            edge = lines.mark_line(
                stroke=color, strokeWidth=thick, opacity=0.6 if thick > 1 else 1, clip=True
            )
            drawn.append(edge.encode(x=x, y=renamed(y, end), detail="words:N"))
    theory = alt.Chart().transform_filter(_of("theory"))
    for source, width, dash in ((theory, 1.6, [5, 4]), (lines, 2.2, [1, 0])):
        for color, thick, pattern in ((PAPER, width + 2.2, [1, 0]), (INK, width, dash)):
            mark = source.mark_line(stroke=color, strokeWidth=thick, strokeDash=pattern, clip=True)
            drawn.append(mark.encode(x=x, y=y, detail="words:N"))
    return [layer.properties(name=f"line{place}") for place, layer in enumerate(drawn)]


def _marks(scales: tuple[Any, Any]) -> list[Any]:
    """Return letters, labels, frames, and on top what the pointer meets."""
    x, y = scales
    cells, labels = alt.Chart().transform_filter(_of("cell")), alt.Chart().transform_filter(_of("label"))
    # Rows of every kind that has one: the second letter of a tie is no cell.
    text = (
        alt.Chart()
        .transform_filter("datum.letterSize > 0")
        .encode(
            x=renamed(x, "letterX"),
            y=renamed(y, "letterY"),
            text=alt.Text("letter:N"),
            size=alt.Size("letterSize:Q", scale=None),
        )
    )
    halo = text.mark_text(fontWeight="bold", strokeWidth=5, strokeJoin="round").encode(
        stroke=alt.Stroke("fill:N", scale=None), color=alt.Color("fill:N", scale=None),
        opacity=alt.Opacity("fade:Q", scale=None),
    )  # fmt: skip
    letter = text.mark_text(fontWeight="bold").encode(color=alt.Color("ink:N", scale=None))
    words = labels.mark_text(align="left", dx=5, fontSize=12, color=theme("ink"), limit=90)
    rectangle = {"x": renamed(x, "x0"), "x2": alt.X2("x1"), "y": renamed(y, "y0"), "y2": alt.Y2("y1")}
    frames = [
        alt.Chart().transform_filter(_of("pick")).mark_rect(fill=None, strokeWidth=width).encode(
            **rectangle, stroke=stroke
        )
        for width, stroke in ((6, alt.StrokeValue(PAPER)), (3, alt.Stroke("stroke:N", scale=None)))
    ]  # fmt: skip
    target = cells.mark_rect(fill="transparent", stroke=None, cursor="pointer").encode(
        **rectangle, tooltip=alt.Tooltip("tip:N")
    )
    brush = alt.selection_interval(
        name=BRUSH, encodings=["x", "y"], mark=alt.BrushConfig(fill=INK, fillOpacity=0.1, stroke=INK)
    )
    places = alt.Chart().transform_filter(_of("line", "datum.tip")).mark_point(
        filled=True, size=22, fill=PAPER, stroke=INK, strokeWidth=1.3, opacity=1
    )  # fmt: skip
    return [
        *(frame.properties(name=f"frame{place}") for place, frame in enumerate(frames)),
        target.add_params(brush).properties(name="targets"),
        places.encode(x=x, y=y, tooltip=alt.Tooltip("tip:N")).properties(name="places"),
        halo.properties(
            name="letters_halo"
        ),  # over lines and their points: the pointer does not meet letters
        letter.properties(name="letters"),
        words.encode(x=x, y=y, text=alt.Text("words:N")).properties(name="labels"),
    ]
