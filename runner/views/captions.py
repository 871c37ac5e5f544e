"""Words that captions, the page and the terminal share: the sweep, its cells and seeds."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pandas as pd

from runner.analysis.agreement import same_networks
from runner.analysis.columns import config_columns, distinct, records, show, show_values
from runner.analysis.critical import PLAIN, critical_sharpness
from runner.analysis.phase import STEP, Axes
from runner.analysis.regime import REGIMES
from runner.analysis.selection import tied_keys


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
        config: Config of the launch, for the name of the sweep.
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
    parts += [f"{' and '.join(keys)} run together." for keys in tied_keys(config)]
    parts += filter(None, [same_words(cells)])
    if at := config.get("at"):
        parts.append(f"Measures {at}.")
    if where:
        parts.append(f"Only cells with {' and '.join(where)}.")
    return " ".join(parts)


def same_parameterizations(cells: pd.DataFrame) -> list[tuple[str, ...]]:
    """Return the names of parameterizations whose networks are the same, as :func:`same_networks` does."""
    found = same_networks(records(cells.drop_duplicates(["parameterization", "exponents", "optimizer"])))
    return [tuple(sorted(names)) for names in found]


def same_words(cells: pd.DataFrame) -> str:
    """Return why cells of some parameterizations coincide; empty where none do."""
    return " ".join(
        f"{' and '.join(names)} are the same networks: their exponents differ by a shift in each layer that "
        "leaves every step as it was (Yang & Hu, arXiv 2011.14522), so their cells coincide up to rounding, "
        "which training near divergence amplifies."
        for names in same_parameterizations(cells)
    )


def repeated(cells: pd.DataFrame) -> frozenset[str]:
    """Return the parameterizations whose networks are those of another one before, by name."""
    return frozenset(name for names in same_parameterizations(cells) for name in names[1:])


def twin_series(named: pd.DataFrame, same: Collection[str]) -> list[str]:
    """Return the series of parameterizations whose networks are those of one before.

    Args:
        named: Rows with ``series``, and ``parameterization`` where it is a facet.
        same: As :func:`repeated` gives them.
    """
    if "parameterization" not in named:
        return []
    return list(dict.fromkeys(named.loc[named["parameterization"].isin(list(same)), "series"]))


def hollow_words(cells: pd.DataFrame) -> str:
    """Return whose marks are larger for lying on others, as a sentence; empty where none do."""
    names = sorted(repeated(cells))
    return f"The larger marks around others are those of {' and '.join(names)}." if names else ""


INTERVAL = (
    "The interval is of the mean over seeds (Student's t, the spread of seeds pooled over the places of a "
    "line), joined with what the grid leaves open: half of the step between two cells, or, where a level was "
    "interpolated between them, the error of the interpolation, by the cells beyond. It may be narrower than "
    "the bracket, which is what was seen: no seed at its one end, every seed at the other, and wider where "
    "seeds differ."
)
"""Of what the 95 % interval of a boundary is."""
MOVEMENT = (
    "Movement: the larger of ntk_change and feature_movement; a boundary is where it passes the level, also "
    "where cells did not train."
)
"""Of what the thresholds of the regimes are."""
NO_CONTRADICTION = (
    "The rate at init is where descent on the linearized network loses its stability: to diverge at more is "
    "no contradiction, as the note below the diagram says."
)
"""In short, of a measured edge beside the critical learning rate."""
BEST_INTERVAL = (
    "Best rates lie at the vertex of a parabola through the smallest loss and its neighbours on the grid. "
    "Their 95 % intervals join the spread of the best rates of single seeds (Student's t, pooled over {x}) "
    "with the error of the parabola, by the rates beyond, or half of the step where nothing tells it"
)
"""Of what the interval of a best rate is."""
AT_EDGE = "the last rate before training diverges: a bound, the best may lie up to the rate that diverged"
"""What it means that a best rate is at the edge of divergence."""


def critical_words(cells: pd.DataFrame) -> str:
    """Return what the critical learning rate is, and why training may diverge at a larger one, in sentences.

    Empty where it is not known. References: Lewkowycz et al., arXiv 2003.02218.
    """
    known = critical_sharpness(cells).dropna()
    if known.empty:
        return ""
    critical = float(known.median())
    far = "; wide ones up to about 4/λmax, those of relu beyond" if critical == PLAIN else ""
    return (
        f"{critical:.3g}/λmax: theory's critical rate at init, where full-batch descent on the MSE of the "
        "linearized network loses its stability. Training may survive larger rates: the loss rises, the "
        f"network leaves the lazy regime and comes to rest where λmax is smaller (a catapult: Lewkowycz "
        f"et al., arXiv 2003.02218{far}), or it stays untrained: divergence may be measured above that line."
    )


def step_of(cells: pd.DataFrame) -> list[str]:
    """Return after how many steps cells ended, as a condition, where all have as many."""
    steps = distinct(cells["steps"])
    return [f"after {steps[0]} steps"] if len(steps) == 1 else []


def step_words(axes: Axes) -> str:
    """Return what must be known of a diagram over the steps, with a space before it."""
    if STEP not in axes.keys:
        return ""
    return (
        " At each measured step after init a cell is shown as if it had ended there; one that a stop rule "
        "ended stays as it was, one that diverged is diverged from then on."
    )


def count_line(cells: pd.DataFrame, planned: int | None = None) -> str:
    """Return how many cells there are of each status and regime, as one line."""
    status = cells["status"].astype(object).value_counts().to_dict()
    regime = cells["regime"].astype(object).value_counts().to_dict()
    words = [f"{status[name]} {name}" for name in ("ok", "diverged", "failed") if status.get(name)]
    if planned is not None and planned > len(cells):
        words.append(f"{planned - len(cells)} missing")
    regimes = [f"{regime[name]} {name}" for name in REGIMES if regime.get(name)]
    count = f"{len(cells)} cell{'' if len(cells) == 1 else 's'}"
    return f"{count}: {', '.join(words)}" + (f"; regimes: {', '.join(regimes)}" if regimes else "")
