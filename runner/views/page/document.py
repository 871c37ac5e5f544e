"""The page put together: what it shows, what it leaves out, and how large it is."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from runner.analysis.axes import calmest, largest_facets, measured_columns, natural_axes
from runner.analysis.columns import column, distinct, numeric_column, plain, show
from runner.analysis.exponents import DEFAULT_METRICS, fit, fit_points
from runner.analysis.phase import Axes, phase_grid
from runner.analysis.selection import choose, default_facets, select
from runner.analysis.transfer import lr_curves, transfer
from runner.errors import UserError
from runner.views.captions import common_words, sweep_words
from runner.views.charts import (
    Layout,
    color_channels,
    gain_chart,
    phase_chart,
    scaling_chart,
    spectrum_chart,
    transfer_chart,
)
from runner.views.charts.curves import FIELDS, curve_panel
from runner.views.charts.style import concat
from runner.views.figures import specification, write_text
from runner.views.page.packing import layer_measure, pack_curves
from runner.views.page.sections import sections
from runner.views.views import lr_unit

if TYPE_CHECKING:
    from runner.store import Store

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
    notes: dict[str, str] = field(default_factory=dict)
    datasets: dict[str, Any] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def add(self, name: str, chart: Any) -> None:
        """Add a chart; equal data of several charts are kept once, under Altair's name for them."""
        spec = specification(chart)
        self.datasets.update(spec.pop("datasets", {}))
        self.charts[name] = spec


def write_page(store: Store, path: str | Path, where: Sequence[str] = (), everything: bool = False) -> Page:
    """Write the report of a store.

    Args:
        store: An opened store.
        path: The file.
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
    extra = _phase(content, store, shown, axes)
    _scaling(content, store, shown, axes)
    _transfer(content, shown, axes)
    for name, chart in (("spectrum", spectrum_chart), ("gain", gain_chart)):
        drawn = chart(shown, axes.facets)
        if drawn is not None:
            content.add(name, drawn)
    text = _document(store, cells, axes, where, content, extra)
    write_text(path, text)
    return Page(path, len(text.encode()), tuple(content.left_out))


def _phase(content: _Content, store: Store, cells: pd.DataFrame, axes: Axes) -> dict[str, Any]:
    """Add the diagram and the empty panels of the curves; return the colours and the packed curves."""
    measures = measured_columns(cells)
    grid = phase_grid(cells, axes, measures)
    content.add("phase", phase_chart(grid, axes, lr_unit=lr_unit(cells), measures=measures))
    points = _points(cells, grid, axes)
    placed = points.dropna().index
    chosen = cells.loc[placed]
    chosen = chosen[
        chosen["cell_id"].isin(store.trace["cell_id"])
    ]  # a failed cell has no curves to leave out
    packed, count = pack_curves(
        chosen, points[chosen.index].astype(int), store.trace, store.layers, MOST_CURVE_BYTES
    )
    if count < len(chosen):
        content.left_out.append(
            f"the curves of {len(chosen) - count} of {len(chosen)} cells, those of the first seeds being "
            "here: `runner curves` draws any"
        )
    blank = pd.DataFrame([dict.fromkeys(FIELDS, 1.0) | {"series": "", "line": ""}])
    measure = layer_measure(store.layers)
    panels = [(name, "seed") for name in packed["measures"]] + ([(measure, "layer")] if measure else [])
    content.add("curves", concat(
        [
            curve_panel(blank.assign(step=place), name.replace("_", " "), by, None, False, Layout())
            for place, (name, by) in enumerate(panels)
        ],
        Layout(), own=True,
    ))  # fmt: skip
    return {
        "x": axes.x, "y": axes.y, "facets": list(axes.facets),
        "colors": color_channels(grid, measures), "curves": packed,
    }  # fmt: skip


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


def _scaling(content: _Content, store: Store, cells: pd.DataFrame, axes: Axes) -> None:
    """Add the exponents at the learning rate that most cells survived."""
    facets = axes.facets
    try:
        where = [
            f"{key}={show(calmest(cells, key))}"
            for key in (axes.x, axes.y)
            if key != "width" and key in cells and len(distinct(cells[key])) > 1
        ]
        part = select(cells, where)
        points = fit_points(part, store.trace, store.layers, DEFAULT_METRICS, facets)
        if points.empty:
            raise UserError("nothing was measured that could be fitted")
        fits = fit(part, store.trace, store.layers, DEFAULT_METRICS, facets)
    except UserError as error:
        content.notes["scaling"] = f"No fits: {error}."
        return
    content.add("scaling", scaling_chart(points, fits[fits["cells"] > 0], facets))
    words = " ".join(f"--where {condition}" for condition in where)
    if facets != default_facets(store, ("width",)):
        words += f" --facet {','.join(facets) or 'none'}"
    content.notes["scaling"] = sweep_words(part, store.config, where, ("width", *facets))
    content.notes["scaling command"] = f"runner fit {store.path} {words}".strip()


def _transfer(content: _Content, cells: pd.DataFrame, axes: Axes) -> None:
    """Add the best learning rates."""
    try:
        metric = "train_loss"
        losses, best = lr_curves(cells, metric, axes.facets), transfer(cells, metric, axes.facets)
    except UserError as error:
        content.notes["transfer"] = f"No best learning rates: {error}."
        return
    content.add("transfer", transfer_chart(losses, best, axes.facets, metric, lr_unit(cells)))


def _document(
    store: Store,
    cells: pd.DataFrame,
    axes: Axes,
    where: Sequence[str],
    content: _Content,
    extra: dict[str, Any],
) -> str:
    """Return the page as text."""
    import vl_convert

    keys = (axes.x, axes.y, *axes.facets)
    data = {"charts": content.charts, "datasets": content.datasets, **extra}
    folder = files("runner.views.page")
    parts = {
        "title": html.escape(str(store.config.get("name") or store.path.name)),
        "subtitle": html.escape(common_words(cells, keys)),
        "style": (folder / "page.css").read_text("utf-8"),
        "script": (folder / "page.js").read_text("utf-8"),
        "vega": _in_script(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")),
        # No < in the data: neither the end of the script nor a comment can begin in a name.
        "data": json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
        **sections(store, cells, axes, where, content.notes, content.left_out, [*content.charts]),
    }
    text = (folder / "page.html").read_text("utf-8")
    pieces = text.split("{{")
    # One pass: what is put in is never looked at again.
    return pieces[0] + "".join(
        parts[name] + rest for name, _, rest in (piece.partition("}}") for piece in pieces[1:])
    )


def _in_script(code: str) -> str:
    """Return code as it may stand in a script element."""
    return code.replace("</script", "<\\/script").replace("<!--", "<\\!--")
