"""The page put together: what it shows, what it leaves out, and how large it is."""

import html
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd

from runner.analysis.axes import largest_facets, measured_columns, natural_axes
from runner.analysis.columns import column, groups, numeric_column, plain
from runner.analysis.phase import Axes, phase_grid
from runner.analysis.regime import COLORS, LETTERS, REGIMES, TEXT_COLORS, check_thresholds, thresholds_of
from runner.analysis.selection import choose, default_facets
from runner.errors import UserError
from runner.schema import CELLS
from runner.store import Store
from runner.views.bundle import vega
from runner.views.captions import common_words, same_parameterizations
from runner.views.curves import FIELDS, curve_panel
from runner.views.figures import specification, write_text
from runner.views.page.answers import SINGLE_CELLS, contents, in_short, moved_answer, place_of
from runner.views.page.cells import cell_table, free_keys, judged_steps, regimes_at_steps, varying_keys
from runner.views.page.diagram import color_channels, diagram, points_table, regime_channel
from runner.views.page.explorer import parallel, scatter
from runner.views.page.lines import BEST_BY, best_rates, critical_lines, line_meanings, lines_at_steps
from runner.views.page.packing import pack_curves
from runner.views.page.script import script
from runner.views.page.sections import known_columns, picture_section, sections
from runner.views.picture import Answer, Part, Section
from runner.views.pictures import sections as picture_sections
from runner.views.scales import column_title, lr_unit
from runner.views.style import OWN, Layout, concat

MOST_PANELS = 24
MOST_CURVE_BYTES = 10_000_000


@dataclass(frozen=True, slots=True)
class Page:
    """A page that was written.

    Attributes:
        path: Where to.
        size: Its bytes.
        left_out: What it does not show, in sentences.
    """

    path: Path
    size: int
    left_out: tuple[str, ...]


@dataclass
class _Content:
    """What the script of the page gets: specifications, their data by name, and curves by point."""

    charts: dict[str, Any] = field(default_factory=dict)
    rooms: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    datasets: dict[str, Any] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    answers: list[tuple[str, Answer]] = field(default_factory=list)

    def add(self, name: str, chart: Any) -> None:
        """Add a chart; equal data of several charts are kept once, under Altair's name for them."""
        spec = specification(chart)
        self.datasets.update(spec.pop("datasets", {}))
        self.charts[name] = spec


def write_page(store: Store, path: str | Path, where: Sequence[str] = (), everything: bool = False) -> Page:
    """Write the report of a store.

    Args:
        where: Conditions ``key=value[,value]`` that choose cells.
        everything: Whether to take the cells of all launches.

    Raises:
        UserError: If there are no such cells, or the file cannot be written.
    """
    path = Path(path)
    cells = choose(store, where, everything)
    axes = natural_axes(cells, default_facets(store, ()))
    content = _Content()
    shown, dropped = largest_facets(
        cells, [column(cells, facet, "--facet") for facet in axes.facets], MOST_PANELS
    )
    if dropped:
        content.left_out.append(
            f"{dropped} of {dropped + MOST_PANELS} facets ({', '.join(axes.facets)}): choose with --where"
        )
    extra = _instrument(content, store, shown, axes)
    asked = shlex.join([*(word for one in where for word in ("--where", one)), *(["--all"] * everything)])
    pictures = "\n".join(
        _section(content, section, store, shown, axes, asked) for section in picture_sections()
    )
    if (moved := moved_answer(shown, axes)) is not None:
        content.answers.append((SINGLE_CELLS, moved))
    text = _document(store, cells, axes, where, content, extra | {"rooms": content.rooms}, pictures)
    write_text(path, text)
    return Page(path, len(text.encode()), tuple(content.left_out))


def _instrument(content: _Content, store: Store, shown: pd.DataFrame, axes: Axes) -> dict[str, Any]:
    """Add the charts whose rows the script makes; return what it makes them of."""
    grid = phase_grid(shown, axes)
    points = _points(shown, grid, axes).dropna().astype(int)
    cells = shown.loc[points.index]
    cells.attrs.update(shown.attrs)
    content.add("diagram", diagram(grid, axes, lr_unit(cells)))
    content.add("scatter", scatter())
    content.add("parallel", parallel())
    thresholds = thresholds_of(store.config)
    judged = judged_steps(cells, store.trace, thresholds)
    steps, regimes = regimes_at_steps(cells, judged)
    panels = {
        values: place for place, (values, _) in enumerate(groups(grid, [grid[one] for one in axes.facets]))
    }
    keys = varying_keys(cells, axes)
    return {
        "axes": {"x": axes.x, "y": axes.y, "facets": list(axes.facets)},
        "points": points_table(grid, axes),
        "cells": cell_table(cells, points, keys, measured_columns(cells, least=1)),
        "free": free_keys(keys),
        "steps": steps,
        "regimes": regimes,
        "legend": {"names": list(REGIMES), "letters": LETTERS, "fills": COLORS, "inks": TEXT_COLORS},
        "lines": lines_at_steps(store, cells, judged, steps, axes, thresholds, panels),
        "theory": critical_lines(grid, axes, panels),
        "words": _words(cells, store) | line_meanings(thresholds, cells),
        "best": list(best_rates(cells, axes, panels)),
        "bestBy": BEST_BY,
        "rose": check_thresholds(thresholds)["catapult"],
        "same": same_parameterizations(cells),
        "colors": {"regime": regime_channel(), **color_channels(cells, measured_columns(cells))},
        "curves": _curves(content, store, cells, points),
    }  # fmt: skip


def _words(cells: pd.DataFrame, store: Store) -> dict[str, tuple[str, str]]:
    """Return what each measure is called, and what it means."""
    known = {column.name for column in CELLS}
    meanings = {column.name: column.meaning for column in known_columns(store)}
    rates = ("lr_absolute", "lr_sharpness")  # by their columns: in words all of them are a learning rate

    def words(name: str) -> str:
        return column_title(name) if name in known and name not in rates else name.replace("_", " ")

    return {name: (words(name), meanings.get(name, "")) for name in measured_columns(cells, least=1)}


def _curves(content: _Content, store: Store, cells: pd.DataFrame, points: pd.Series) -> dict[str, Any]:
    """Add the empty panel of a curve; return the packed curves."""
    packed, count = pack_curves(cells, points, store.trace, store.layers, MOST_CURVE_BYTES)
    # A failed cell has no curves to leave out.
    traced = int(cells["cell_id"].isin(store.trace["cell_id"]).sum())
    if count < traced:
        content.left_out.append(
            f"the curves of {traced - count} of {traced} cells, those of the first seeds being "
            "here: `runner curves` draws any"
        )
    blank = pd.DataFrame([dict.fromkeys(FIELDS, 1.0) | {"series": "", "line": ""}])
    content.add("curves", concat([curve_panel(blank, "", "", None, False, Layout())], Layout(), own=OWN))
    return packed


def _points(cells: pd.DataFrame, grid: pd.DataFrame, axes: Axes) -> pd.Series:
    """Return the point of the grid at which each cell lies."""
    keys = (*axes.facets, axes.x, axes.y)
    places = {
        values: index for index, *values_ in grid[list(keys)].itertuples() for values in [_key(values_)]
    }
    columns = [column(cells, facet, "--facet") for facet in axes.facets]
    columns += [numeric_column(cells, axis, "--x") for axis in (axes.x, axes.y)]
    return pd.Series([places.get(_key(values)) for values in zip(*columns, strict=True)], index=cells.index)


def _key(values: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(plain(value) for value in values)


def _section(
    content: _Content, section: Section, store: Store, cells: pd.DataFrame, axes: Axes, asked: str
) -> str:
    """Add a picture's chart; return its section as HTML, empty where there is nothing to show."""
    try:
        part = section.draw(store, cells, axes)
    except UserError as error:
        return picture_section(section, Part(None, f"{section.lacking}: {error}."))
    if part is None:
        return ""
    if part.chart is not None:
        content.add(section.name, part.chart)
        content.rooms[section.name] = section.room
    content.answers += [(place_of(section.name), answer) for answer in part.answers]
    return picture_section(section, part, asked)


def _document(
    store: Store, cells: pd.DataFrame, axes: Axes, where: Sequence[str], content: _Content,
    extra: dict[str, Any], pictures: str,
) -> str:  # fmt: skip
    """Return the page as text."""
    keys = (axes.x, axes.y, *axes.facets)
    name = str(store.config.get("name") or store.path.name)
    data = {"name": name, "charts": content.charts, "datasets": content.datasets, **extra}
    folder = files("runner.views.page")
    parts = {
        "title": html.escape(name),
        "subtitle": html.escape(common_words(cells, keys)),
        "style": (folder / "page.css").read_text("utf-8"),
        "script": _in_script(script()),
        "vega": _in_script(vega("window.vegaEmbed = vegaEmbed;")),
        # No < in the data: neither the end of the script nor a comment can begin in a name.
        "data": json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
        "pictures": pictures,
        "in_short": in_short(content.answers, extra["points"]["titles"], extra["same"]),
        **sections(store, cells, axes, where, content.left_out),
    }
    head, body = (
        _filled(half, parts) for half in (folder / "page.html").read_text("utf-8").split("{{contents}}")
    )
    return head + contents(body) + body


def _filled(text: str, parts: Mapping[str, str]) -> str:
    """Return a template with its parts put in, in one pass: what is put in is never looked at again."""
    pieces = text.split("{{")
    return pieces[0] + "".join(
        parts[name] + rest for name, _, rest in (piece.partition("}}") for piece in pieces[1:])
    )


def _in_script(code: str) -> str:
    """Return code as it may stand in a script element."""
    return code.replace("</script", "<\\/script").replace("<!--", "<\\!--")
