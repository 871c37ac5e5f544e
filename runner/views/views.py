"""From a store to a view: the analyses that commands, the page and notebooks share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from runner.analysis.curves import DEFAULT_METRICS as CURVE_METRICS
from runner.analysis.curves import curves
from runner.analysis.exponents import DEFAULT_METRICS, fit, fit_points
from runner.analysis.phase import Axes, phase_grid
from runner.analysis.selection import choose, default_facets
from runner.analysis.transfer import lr_curves, transfer
from runner.views.captions import (
    common_words,
    curves_caption,
    fit_caption,
    phase_caption,
    sweep_words,
    transfer_caption,
)
from runner.views.view import View

if TYPE_CHECKING:
    import pandas as pd

    from runner.store import Store


def lr_unit(cells: pd.DataFrame) -> str | None:
    """Return the unit of the learning rate, None where there are several."""
    units = cells["lr_unit"].unique()
    return str(units[0]) if len(units) == 1 else None


def phase_view(
    store: Store,
    axes: Axes | None = None,
    where: Sequence[str] = (),
    everything: bool = False,
    regime: str | Path | None = None,
    launch: str | None = None,
) -> View:
    """Return the phase diagram of a store.

    Args:
        store: An opened store.
        axes: What to show; width and lr, facetted as the config says, by default.
        where: Conditions ``key=value[,value]``.
        everything: Whether to take the cells of all launches.
        regime: Thresholds to judge the regimes anew by: a name of ``conf/regime`` or a YAML file.
        launch: The launch whose cells to take; the newest by default.

    Raises:
        UserError: If there is nothing to show, a key is unknown, or another key varies.
    """
    from runner.views.charts import phase_chart

    axes = axes or Axes(facets=default_facets(store, ("width", "lr"), launch))
    cells = choose(store, where, everything, launch)
    if regime is not None:
        from runner.analysis.regime import classify
        from runner.grid.config import load_thresholds

        judged = classify(cells, load_thresholds(regime))
        cells = cells.drop(columns=["regime", "catapult"]).join(judged)
    grid = phase_grid(cells, axes)
    keys = (axes.x, axes.y, *axes.facets)
    title, unit = common_words(cells, keys), lr_unit(cells)
    caption = phase_caption(grid, axes, sweep_words(cells, store.config, where, keys))
    return View(
        grid,
        caption,
        lambda layout: phase_chart(grid, axes, "" if layout.paper else title, unit, layout),
        len(grid.drop_duplicates(list(axes.facets))) if axes.facets else 1,
    )


def fit_view(
    store: Store,
    metrics: Sequence[str] = DEFAULT_METRICS,
    facets: Sequence[str] | None = None,
    where: Sequence[str] = (),
    everything: bool = False,
) -> View:
    """Return the exponents against width; arguments and errors as for :func:`phase_view`."""
    from runner.views.charts import scaling_chart

    cells = choose(store, where, everything)
    facets = default_facets(store, ("width",)) if facets is None else tuple(facets)
    fits = fit(cells, store.trace, store.layers, metrics, facets)
    points = fit_points(cells, store.trace, store.layers, metrics, facets)
    caption = fit_caption(
        fits[fits["cells"] > 0], facets, sweep_words(cells, store.config, where, ("width", *facets))
    )
    shown = points.drop_duplicates(["metric", "layer", "role"])
    return View(fits, caption, lambda layout: scaling_chart(points, fits, facets, layout=layout), len(shown))


def curves_view(
    store: Store,
    metrics: Sequence[str] = CURVE_METRICS,
    by: str = "width",
    facets: Sequence[str] | None = None,
    where: Sequence[str] = (),
    everything: bool = False,
) -> View:
    """Return training curves; arguments and errors as for :func:`phase_view`."""
    from runner.views.charts import curves_chart

    cells = choose(store, where, everything)
    facets = default_facets(store, (by,)) if facets is None else tuple(facets)
    table = curves(cells, store.trace, store.layers, metrics, by, facets)
    caption = curves_caption(metrics, by, sweep_words(cells, store.config, where, (by, *facets)))
    panels = len(table.drop_duplicates([*facets, "metric", "layer"]))
    return View(table, caption, lambda layout: curves_chart(table, facets, by, layout=layout), panels)


def transfer_view(
    store: Store,
    metric: str = "train_loss",
    facets: Sequence[str] | None = None,
    where: Sequence[str] = (),
    everything: bool = False,
) -> View:
    """Return the best learning rates by width; arguments and errors as for :func:`phase_view`."""
    from runner.views.charts import transfer_chart

    cells = choose(store, where, everything)
    facets = default_facets(store, ("width", "lr")) if facets is None else tuple(facets)
    losses, best = lr_curves(cells, metric, facets), transfer(cells, metric, facets)
    shared = sweep_words(cells, store.config, where, ("width", "lr", *facets))
    panels = 1 + (len(losses.drop_duplicates(list(facets))) if facets else 1)
    return View(
        best,
        transfer_caption(best, facets, metric, shared),
        lambda layout: transfer_chart(losses, best, facets, metric, lr_unit(cells), layout=layout),
        panels,
    )
