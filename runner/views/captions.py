"""Captions: the sweep, the number of cells and seeds, and the statistic that a figure shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from runner.analysis.columns import config_columns, distinct, plain, records, show, show_values
from runner.analysis.phase import Axes
from runner.analysis.selection import facet_label
from runner.views.charts.scales import column_title
from runner.views.charts.scaling import slope_lines


def common_words(cells: pd.DataFrame, varying: Sequence[str]) -> str:
    """Return what all cells of a figure have in common, in a few words.

    Args:
        cells: Rows of the ``cells`` table.
        varying: Keys on the axes and facets of the figure, which need no mention.
    """
    config = config_columns(cells)

    def only(key: str) -> str:
        values = distinct(config[key]) if key not in varying else []
        return show(values[0]) if len(values) == 1 else ""

    depth, steps = only("depth"), only("steps")
    words = [
        only("data"),
        only("model") + (f" of depth {depth}" if depth else ""),
        only("optimizer"),
        only("loss"),
    ]
    words = [word.strip().replace("_", " ") for word in words] + [f"{steps} steps" if steps else ""]
    return ", ".join(word for word in words if word)


def sweep_words(
    cells: pd.DataFrame, config: Mapping[str, Any], where: Sequence[str], keys: Sequence[str]
) -> str:
    """Return the part that all captions share: which sweep, how many cells and seeds.

    Args:
        cells: The cells that are shown.
        config: Config of the launch, for the name of the sweep.
        where: The conditions that chose them.
        keys: Keys on the axes and facets of the figure.
    """
    seeds = distinct(cells["seed"])
    status = cells["status"].astype(object).value_counts().to_dict()
    lost = ", ".join(f"{status[name]} {name}" for name in ("diverged", "failed") if status.get(name))
    common = common_words(cells, keys)
    fixed = [key for key in ("parameterization", "width", "lr", "gamma") if key not in keys]
    config_of = config_columns(cells)
    same = [f"{key} {show(values[0])}" for key in fixed if len(values := distinct(config_of[key])) == 1]
    units = distinct(cells["lr_unit"])
    unit = "lr in units of 1/lambda_max at init" if units == ["sharpness"] else ""
    parts = [
        f"Sweep {config.get('name', 'of cells')}: {', '.join(w for w in (common, *same, unit) if w)}.",
        f"{len(cells)} cells, {len(seeds)} seed{'s' if len(seeds) > 1 else ''} ({show_values(seeds)})"
        + (f"; {lost}." if lost else "."),
    ]
    if where:
        parts.append(f"Only cells with {' and '.join(where)}.")
    return " ".join(parts)


def phase_caption(grid: pd.DataFrame, axes: Axes, shared: str) -> str:
    """Return the caption of a phase diagram."""
    what = "Regime" if axes.color == "regime" else f"{column_title(axes.color).capitalize()}"
    panels = f", one panel per {' and '.join(axes.facets)}" if axes.facets else ""
    seeds = int(grid["seeds"].max())
    if axes.color == "regime":
        rule = "Each point shows the regime of the majority of its seeds, pale where they disagree"
        rule = (rule if seeds > 1 else "Each point is one seed") + (
            "; letters name the regimes (L lazy, C crossover, R rich, U untrained, D diverged), solid lines "
            "mark where they change."
        )
    else:
        rule = (
            "Each point shows the median over its seeds that trained."
            if seeds > 1
            else "Each point is one seed."
        )
    lines = ""
    if grid["critical"].notna().any():
        lines = (
            " Dashed: the critical learning rate 2/lambda_max of full-batch descent on MSE at init, median "
            "over seeds; finer dashes: 4/lambda_max; dotted: lr * lambda_max in decades off 2."
        )
    return f"{what} over {axes.x} and {axes.y}{panels}. {shared} {len(grid)} points. {rule}{lines}"


def fit_caption(fits: pd.DataFrame, facets: Sequence[str], shared: str) -> str:
    """Return the caption of a figure of exponents, the fitted slopes included."""
    named = fits.assign(
        series=[facet_label(facets, [row[facet] for facet in facets]) for row in records(fits)]
    )
    slopes = []
    for key in dict.fromkeys((row["metric"], plain(row["layer"])) for row in records(named)):
        same = [(row["metric"], plain(row["layer"])) == key for row in records(named)]
        slopes.append(f"{' of '.join(word for word in key if word)}: {'; '.join(slope_lines(named[same]))}")
    return (
        f"Measures against width. {shared} Points are geometric means over seeds of cells that trained, bars "
        "reach from the smallest to the largest seed, solid lines are least-squares fits in both logarithms, "
        "dotted ones have theory's slope. Slopes with 95 % bootstrap intervals over seeds: "
        f"{'. '.join(slopes)}."
    )


def curves_caption(metrics: Sequence[str], by: str, shared: str) -> str:
    """Return the caption of training curves."""
    return (
        f"{', '.join(metrics)} over optimizer steps, one curve per {by}. {shared} Curves are medians over "
        "the seeds that were still training, bands reach from the smallest to the largest."
    )


def transfer_caption(best: pd.DataFrame, facets: Sequence[str], metric: str, shared: str) -> str:
    """Return the caption of the best learning rates, their drift included."""
    named = best.assign(
        series=[facet_label(facets, [row[facet] for facet in facets]) for row in records(best)]
    )
    drifts = [
        f"{row['series'] or 'all'} {row['drift']:+.2f}"
        for row in records(named.drop_duplicates("series"))
        if plain(row["drift"]) is not None
    ]
    drift = (
        f" Doublings of the best learning rate per doubling of the width: {', '.join(drifts)}."
        if drifts
        else ""
    )
    ends = " Some best learning rates lie at an end of the grid." if best["at_end"].any() else ""
    return (
        f"{metric} along the learning rate, and the best learning rate against width. {shared} Losses are "
        "geometric means over seeds, left out where one diverged; diamonds mark the smallest. Bars: 95 % "
        f"bootstrap over seeds.{drift}{ends}"
    )
