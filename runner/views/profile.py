"""A measure of the layers against their depth in the network."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

from runner.analysis.axes import calm_conditions
from runner.analysis.columns import column, distinct, groups, show
from runner.analysis.moment import at_level
from runner.analysis.phase import Axes
from runner.analysis.selection import choose, default_facets, facet_label, require_no_other_varying, select
from runner.errors import UserError, unknown
from runner.schema import KEYS
from runner.store import Store
from runner.views import alt
from runner.views.captions import sweep_words
from runner.views.picture import COLUMN, Part, Picture, Section, conditions, names
from runner.views.scales import Scale, column_words, value_scale
from runner.views.style import Layout, concat, layered, legend, rows_of, series_scales
from runner.views.terminal import MISSING, plain_table, short, some
from runner.views.view import View

METRIC = "feature_movement"


def profile(
    store: Store, metric: str = METRIC, by: str = "width", facet: str | Sequence[str] | None = None,
    where: str | Sequence[str] = (), all: bool = False,
    at: str | None = None,
) -> View:  # fmt: skip
    """Return a measure of the layers against their depth, at the last measured step.

    Args:
        metric: Numeric column of the layers table.
        by: One line per value of this key.
        facet: One panel per value of these keys, ``none`` for a single one (the config's ``facet``).
        where: Conditions that choose cells, ``lr=0.1`` or ``width=64,128``.
        all: Whether to take the cells of all launches, not only those of the newest.
        at: Where to look at each cell: at the moment when a measure came to a level, ``train_loss=0.02``.
    """
    where, store = conditions(where), at_level(store, at)
    cells = choose(store, where, all)
    facets = default_facets(store, (by,)) if facet is None else names(facet)
    table = along_depth(cells, store.layers, metric, by, facets)
    return View(
        table,
        f"{metric} of each layer against its place in the network (from the first layer to the last where "
        f"depths differ), one line per {by}. "
        f"{sweep_words(cells, store.config, where, (by, *facets))} Points are geometric means over the seeds "
        "that trained, at the last measured step; bands reach from the smallest to the largest.",
        lambda layout: _chart(table, metric, by, facets, layout),
        len(table.drop_duplicates(list(facets))) if facets else 1,
        lambda out: _print(table, metric, by, facets, out),
        {"metric": metric, "by": by, "facets": facets, "at": store.config.get("at")},
    )


def along_depth(
    cells: pd.DataFrame, layers: pd.DataFrame, metric: str, by: str, facets: Sequence[str]
) -> pd.DataFrame:
    """Return a measure by layer at the last step at which a cell has it.

    Args:
        cells: The chosen rows of ``cells``; nothing may vary but the seed, ``by`` and the facets.
        layers: Rows of ``layers``.
        metric: Numeric column of ``layers``.
        by: Key with one line per value.
        facets: Keys with one panel per combination of values.

    Returns:
        The facet keys, ``by``, ``layer_index`` (from 0), ``layer``, ``role``, ``place`` (from 0 to 1, that of
        the network's last layer), ``value`` (geometric mean over seeds; values that are not positive are left
        out), ``low``, ``high`` (their range) and ``seeds``.

    Raises:
        UserError: If the metric or a key is unknown, another key varies, or nothing was measured.
    """
    keys_of_layers = {*KEYS["layers"], "layer_index"}
    known = [str(name) for name in layers.select_dtypes("number") if name not in keys_of_layers]
    if metric not in known:
        raise unknown("--metric", metric, known)
    keys = list(dict.fromkeys([*facets, by]))
    chosen = pd.DataFrame({key: column(cells, key, "--facet" if key in facets else "--by") for key in keys})
    require_no_other_varying(cells, (by,), facets)
    chosen["cell_id"] = cells["cell_id"]
    rows = layers.merge(chosen[(cells["status"].astype(object) == "ok").to_numpy()], on="cell_id")
    rows["place"] = rows["layer_index"] / rows.groupby("cell_id")["layer_index"].transform("max").clip(
        lower=1
    )
    rows["value"] = np.log(rows[metric].astype(float).where(lambda value: value > 0))
    rows = rows[np.isfinite(rows["value"])]
    rows = rows[rows["step"] == rows.groupby(["cell_id", "layer"])["step"].transform("max")]
    if rows.empty:
        raise UserError(
            f"--metric must have positive values of cells that trained, got {metric} without any; "
            "`runner schema layers` lists the others"
        )
    of_layer = [*keys, "layer_index", "layer", "role", "place"]
    found = rows.groupby(of_layer, dropna=False, observed=True)["value"].agg(
        value="mean", low="min", high="max", seeds="size"
    )
    found[["value", "low", "high"]] = np.exp(found[["value", "low", "high"]])
    table: pd.DataFrame = found.reset_index()
    return table


def _chart(table: pd.DataFrame, metric: str, by: str, facets: Sequence[str], layout: Layout) -> Any:
    """Return one panel per facet, with a line and its range per value of ``by``."""
    values = distinct(table[by])
    x = "place" if table.groupby("layer")["place"].nunique().max() > 1 else "layer_index"
    up = value_scale(table[["value", "low", "high"]].stack(), column_words(metric))
    scales = (_across(table, x), up)
    panels = [
        _panel(part, facet_label(facets, facet), scales, by, values, x, layout)
        for facet, part in groups(table, [table[key] for key in facets])
    ]
    return concat(panels, layout)


def _across(table: pd.DataFrame, key: str) -> Scale:
    """Return the axis of the layer's number or, where depths differ, of its place."""
    if key == "place":
        return Scale("place in the network", False, (-0.03, 1.03), [0.0, 0.5, 1.0])
    last = int(table["layer_index"].max())
    step = max(1, round(last / 6))
    return Scale("layer", False, (-0.2, last + 0.2), [float(layer) for layer in range(0, last + 1, step)])


def _panel(
    rows: pd.DataFrame, title: str, scales: tuple[Scale, Scale], by: str, values: Sequence[Any], key: str,
    layout: Layout,
) -> Any:  # fmt: skip
    """Return the lines of one facet, against the layer's number or, where depths differ, its place."""
    rows = rows.assign(series=rows[by].map(show))
    fields = ["series", "place", "layer_index", "layer", "role", "value", "low", "high", "seeds"]
    ordered = all(isinstance(value, (int, float)) for value in values)
    series = [show(value) for value in values]
    names = legend(series, layout, by, 6, symbolType="stroke", symbolStrokeWidth=2, symbolOpacity=1)
    color = alt.Color("series:N", scale=series_scales(series, ordered)["color"], legend=names)
    x = scales[0].encode(alt.X, key)
    low, y = (scales[1].encode(alt.Y, field) for field in ("low", "value"))
    base = alt.Chart(rows_of(rows[fields])).encode(x=x, color=color)
    tooltip = [alt.Tooltip(f"{name}:N") for name in ("series", "layer", "role")]
    tooltip += [alt.Tooltip("value:Q", format=".3~g"), alt.Tooltip("seeds:Q")]
    area = base.mark_area(opacity=0.18).encode(y=low, y2=alt.Y2("high"))
    line = base.mark_line(strokeWidth=1.6).encode(y=y)
    points = base.mark_point(filled=True, size=16 if layout.paper else 32, opacity=1).encode(
        y=y, tooltip=tooltip
    )
    return layered([area, line, points], title, *layout.size())


def _print(table: pd.DataFrame, metric: str, by: str, facets: Sequence[str], out: Console) -> None:
    """Print one table per facet: layers downwards, as many values of ``by`` across as there is room for."""
    for values, part in groups(table, [table[key] for key in facets]):
        view = plain_table(", ".join(word for word in (facet_label(facets, values), metric) if word))
        lead = max(len(by), *(len(f"{row.layer} ({row.role})") for row in part.itertuples()))
        across = some(distinct(part[by]), max(2, (out.width - lead) // 10))
        view.add_column(by, no_wrap=True, header_style="dim")
        for value in across:
            view.add_column(show(value), justify="right", no_wrap=True)
        for (_, layer, role), rows in groups(part, [part[key] for key in ("layer_index", "layer", "role")]):
            at = dict(zip(rows[by], rows["value"], strict=True))
            texts = (short(at[value]) if value in at else MISSING for value in across)
            view.add_row(f"{layer} ({role})", *texts)
        out.print(view)
        out.print()
    seeds = int(table["seeds"].max())
    of = f"geometric mean of {seeds} seeds" if seeds > 1 else "one seed"
    out.print(f"{of}, at the last measured step", style="dim")


def _on_page(store: Store, cells: pd.DataFrame, axes: Axes) -> Part | None:
    """Return the profile where the fewest cells were lost; nothing where layers were not measured."""
    measured = [name for name in (METRIC, "movement_frobenius") if store.layers[name].notna().any()]
    if not measured:
        return None
    where = calm_conditions(cells, axes)
    part = select(cells, where)
    facets = [facet for facet in axes.facets if facet != "width"]
    table = along_depth(part, store.layers, measured[0], "width", facets)
    words = [f"runner profile {store.path}", f"--metric {measured[0]}"]
    words += [f"--where {condition}" for condition in where]
    return Part(
        _chart(table, measured[0], "width", facets, Layout()),
        sweep_words(part, store.config, where, ("width", *facets)),
        " ".join([*words, f"--facet {','.join(facets) or 'none'}"]),
    )


PICTURE = Picture(
    profile,
    (
        "runner profile --where lr=0.1",
        "runner profile outputs/width_scaling --metric movement_spectral --out profile.pdf",
        "runner profile --by lr --where width=256 --metric update_size --json",
        "runner profile outputs/depths --by depth --metric branch_linearization_error",
    ),
    {"metric": COLUMN},
)
SECTIONS = [
    Section(
        "profile",
        "Layers",
        "A measure of each layer against its place in the network, at the last measured step: "
        "geometric means over seeds, bands their range. Where features are learned, it does not "
        "fall with width in any layer.",
        _on_page,
        (105, 190, 290),
        "No profile",
    )
]
