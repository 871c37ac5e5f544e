"""The phase diagram: which regime, or which value of a measure, at each point of the grid."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pandas as pd
from rich.console import Console

from runner.analysis.moment import at_level
from runner.analysis.phase import STEP, Axes, boundary, phase_grid
from runner.analysis.regime import JUDGED, LETTERS, classify, marks_words, thresholds_of
from runner.analysis.selection import choose, default_facets
from runner.analysis.slopes import read_slope
from runner.analysis.steps import at_steps, with_derived
from runner.errors import UserError, unknown
from runner.store import Store
from runner.views.captions import common_words, step_words, sweep_words
from runner.views.phase.blocks import traces_of
from runner.views.phase.chart import phase_chart
from runner.views.phase.critical import critical_of
from runner.views.phase.slopes import slope_view
from runner.views.phase.terminal import print_phase
from runner.views.picture import COLUMN, THRESHOLDS, Picture, conditions, names
from runner.views.scales import column_title, lr_unit
from runner.views.sentences import boundary_words
from runner.views.terminal import drawable
from runner.views.view import View


def phase(
    store: Store, x: str = "width", y: str = "lr", color: str = "regime",
    facet: str | Sequence[str] | None = None, where: str | Sequence[str] = (), all: bool = False,
    regime: str | Path | None = None, at: str | None = None,
) -> View:  # fmt: skip
    """Return the phase diagram: which regime at each point of the grid.

    Args:
        x: Numeric key across; ``step`` for the measured steps.
        y: Numeric key upwards, likewise.
        color: ``regime``, a numeric column, or a slope: ``slope:METRIC:KEY``, ``slope:METRIC@LAYER:KEY``.
        facet: One panel per value of these keys, ``none`` for a single one (the config's ``facet``).
        where: Conditions that choose cells, ``lr=0.1`` or ``width=64,128``.
        all: Whether to take the cells of all launches, not only those of the newest.
        regime: Thresholds to judge anew by: ``conf/regime/NAME.yaml`` or a YAML file.
        at: Where to look at each cell: at the moment when a measure came to a level, ``train_loss=0.02``.
    """
    where, store = conditions(where), at_level(store, at)
    facets = default_facets(store, (x, y)) if facet is None else names(facet)
    cells = choose(store, where, all)
    thresholds = thresholds_of(store.config, regime)
    if regime is not None:
        judged = classify(cells, thresholds)
        cells = cells.drop(columns=[*JUDGED], errors="ignore").join(judged)
    axes, slope = Axes(x, y, facets, color), read_slope(color)
    shown = color if slope is None else slope.metric
    points = None
    if STEP in axes.keys:
        _check_step(store, shown, at, "color" if slope is None else "slope")
        points = at_steps(cells, store.trace, thresholds)
    else:
        cells = with_derived(store, cells, thresholds, (*axes.keys, shown))
    view = phase_view if slope is None else partial(slope_view, slope=slope)
    return view(store, cells, axes, where=where, points=points)


def _check_step(store: Store, shown: str, at: str | None, what: str) -> None:
    """Refuse what has no meaning where cells are looked at at each step."""
    if at is not None:
        raise UserError(
            f"--at must be left out where the step is an axis or facet, got {at}; drop one of them"
        )
    tables = (store.trace,) if what == "color" else (store.trace, store.layers)
    known = {str(name) for table in tables for name in table.select_dtypes("number")} - {STEP, "layer_index"}
    if shown.rpartition(".")[2] not in {*known, "regime"}:
        asked = "--color" if what == "color" else "the METRIC of --color slope"
        raise unknown(f"{asked} over the step", shown, {*known, *(("regime",) if what == "color" else ())})


def phase_view(
    store: Store, cells: pd.DataFrame, axes: Axes, where: Sequence[str] = (),
    points: pd.DataFrame | None = None,
) -> View:  # fmt: skip
    """Return the phase diagram of some cells.

    Args:
        store: The store that they are of.
        cells: Rows of its ``cells``.
        axes: What is shown.
        where: The conditions that chose them, for the caption.
        points: What is shown of them, where it is not these rows: themselves at each step.

    Raises:
        UserError: If there is nothing to show, a key is unknown, or another key varies.
    """
    grid = phase_grid(cells if points is None else points, axes)
    keys = (axes.x, axes.y, *axes.facets)
    title, unit = common_words(cells, keys), lr_unit(cells)

    def show(out: Console) -> None:
        known = points is None and axes.color != "regime" and drawable(out)
        print_phase(grid, axes, out, traces_of(cells, store.trace, axes) if known else None)
        for line in boundary_words(store, cells, axes) if points is None else ():
            out.print(line)

    return View(
        grid,
        _caption(grid, axes, sweep_words(cells, store.config, where, keys)),
        lambda layout: phase_chart(grid, axes, "" if layout.paper else title, unit, layout),
        len(grid.drop_duplicates(list(axes.facets))) if axes.facets else 1,
        show,
        {"x": axes.x, "y": axes.y, "facets": axes.facets, "color": axes.color, "at": store.config.get("at")},
        {"boundary": boundary(grid, axes)},
    )


def _caption(grid: pd.DataFrame, axes: Axes, shared: str) -> str:
    """Return the caption of a phase diagram."""
    what = "Regime" if axes.color == "regime" else f"{column_title(axes.color).capitalize()}"
    panels = f", one panel per {' and '.join(axes.facets)}" if axes.facets else ""
    several = int(grid["seeds"].max()) > 1
    rule = "Each point is one seed"
    if axes.color == "regime":
        if several:
            rule = "Each point shows the regime of the majority of its seeds, "
            rule += "pale where others disagree, two halves where they tie"
        letters = ", ".join(f"{letter} {regime}" for regime, letter in LETTERS.items())
        letters = ", ".join(words for words in (letters, marks_words(grid)) if words)
        rule += f"; letters name the regimes ({letters}), solid lines mark where they change"
        rule += ", at a tie by its left half" * bool(grid["second"].notna().any())
    elif several:
        rule = "Each point shows the median over its seeds that trained"
    lines = ""
    if grid["critical"].notna().any():
        critical = critical_of(grid)
        lines = (
            f" Dashed: the critical learning rate {critical:.3g}/lambda_max of full-batch descent on MSE at "
            "init, median over seeds."
        )
    return (
        f"{what} over {axes.x} and {axes.y}{panels}. {shared} {len(grid)} points. {rule}.{lines}"
        f"{step_words(axes)}"
    )


PICTURE = Picture(
    phase,
    (
        "runner phase",
        "runner phase outputs/digits --out phase.pdf",
        "runner phase --color ntk_change --where parameterization=ntk,mup",
        "runner phase --y lr_sharpness --facet parameterization,depth --where model.activation=relu",
        "runner phase --x gamma --where width=256 --regime my_thresholds.yaml",
        "runner phase --x gamma --y lr --color slope:ntk_change:width",
        "runner phase --x gamma --y step --where width=256",
    ),
    {"color": COLUMN, "regime": THRESHOLDS},
)
