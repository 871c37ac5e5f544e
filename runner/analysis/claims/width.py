"""Rules on what shrinks with width and what does not: C1, C2, C4, C6, C9.

A band reaches from the slope of theory to the one that independent prototypes gave at these widths, where the
asymptote is not reached yet, and 0.1 beyond on both sides, because seeds are few.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd

from runner.analysis.claims.slopes import at_step, of_layer, part_of, slope
from runner.analysis.claims.verdict import Check, Frames, within
from runner.analysis.estimate import Estimate, Tables, Unsupported, numbers, over_seeds, require_seeds
from runner.analysis.theory import r_exponent

MARGIN = 0.1
RICH = ("mup", "mean_field")
FIXED = 0.0


def band(name: str, estimate: Callable[[], Estimate], *figures: float, rival: float | None = None) -> Check:
    """Check a slope against the band that expectation and prototype span."""
    return within(name, estimate, min(figures) - MARGIN, max(figures) + MARGIN, rival)


def lazy_parameters(frames: Frames) -> Sequence[Check]:
    """C1: under ntk the relative movement vanishes with width, in every layer (T3, T3s)."""
    ntk, sp = (_networks(frames["claim_width"], name) for name in ("ntk", "sp"))
    checks = [band("param_movement, ntk", partial(slope, ntk, "param_movement"), -0.5, -1.0, rival=FIXED)]
    for role, figures in {"input": (-0.5,), "hidden": (-1.0,), "output": (-0.5, -0.54)}.items():
        checks.append(_moved("ntk", ntk, "movement_frobenius", role, figures, FIXED))
    checks.append(_moved("ntk", ntk, "movement_spectral", "hidden", (-0.5, -0.53), FIXED))
    for role, figures in {"input": (-1.5, -1.58), "hidden": (-1.0,), "output": (-0.5, -0.52)}.items():
        checks.append(_moved("sp", sp, "movement_frobenius", role, figures, FIXED))
    return checks


def linear_in_parameters(frames: Frames) -> Sequence[Check]:
    """C2: under ntk the output becomes its first-order expansion (T5)."""
    data = frames["claim_width"]
    tanh, relu = (
        partial(slope, _networks(data, "ntk", activation=name), "linearization_error")
        for name in ("tanh", "relu")
    )
    return [
        band("linearization_error, ntk, tanh", tanh, -1.0, -0.8, rival=FIXED),
        within("linearization_error, ntk, relu", relu, -0.8, -0.45, FIXED),
    ]


def deterministic_kernel(frames: Frames) -> Sequence[Check]:
    """C4: the kernel at init converges, its spread over seeds vanishes, training leaves it alone (T1, T2)."""
    checks = []
    for activation in ("relu", "erf"):
        cells = part_of(frames["claim_limit"], model__activation=activation)
        distance = partial(slope, cells, "ntk_limit_distance", diverged=True)
        spread = partial(_spread, cells, "lambda_max_init")
        checks += [
            within(f"ntk_limit_distance, {activation}", distance, -0.6, -0.4, FIXED),
            band(f"spread of lambda_max over seeds, {activation}", spread, -0.3, -0.7, rival=FIXED),
        ]
    data = frames["claim_width"]
    for depth in (1, 2):
        for name in ("ntk", "sp"):
            changes = (-2.0, -1.94) if (name, depth) == ("sp", 1) else (-1.0, -0.86)
            checks.append(_change(name, depth, _networks(data, name, depth), changes, FIXED))
    for name in ("ntk", *RICH, "sp"):
        top = partial(slope, _networks(data, name), "lambda_max_init", diverged=True)
        figures = (1.0,) if name == "sp" else (0.0, -0.05)
        checks.append(band(f"lambda_max at init, {name}", top, *figures))
    return checks


def features_move(frames: Frames) -> Sequence[Check]:
    """C6: under mup kernel and features change by the same amount at every width (T2, T3s, T4)."""
    checks = []
    for name in RICH:
        cells = _networks(frames["claim_width"], name)
        features = partial(slope, cells, "feature_movement")
        checks += [
            band(f"feature_movement, {name}", features, 0.02, -0.01, rival=-0.5),
            _change(name, 2, cells, (0.0, -0.07), -1.0),
            _moved(name, cells, "movement_spectral", "hidden", (0.0, -0.02), -0.5),
        ]
        for role, figures in {"input": (0.0, 0.01), "hidden": (-0.5, -0.48), "output": (0.0,)}.items():
            checks.append(_moved(name, cells, "movement_frobenius", role, figures, None))
    return checks


def parameterization_decides(frames: Frames) -> Sequence[Check]:
    """C9: the r exponent of each parameterization is the one of its abc table; T9, early update sizes."""
    data = frames["claim_width"]
    checks = []
    for name in ("mup", "mean_field", "ntk", "sp"):
        cells = _networks(data, name, activation="tanh")
        expected: float | None = 0.0
        if len(cells.cells):
            first = cells.cells.iloc[0]
            # At a fixed lr * lambda_max, sp's lr falls as the inverse of its lambda_max.
            extra = 1.0 if name == "sp" and first["lr_unit"] == "sharpness" else 0.0
            expected = r_exponent(str(first["exponents"]), extra)
        rival = None if expected is None else 0.5 - expected
        checks.append(band(f"r exponent, {name}", partial(_measured_r, cells), expected or 0.0, rival=rival))
    checks += _early_updates(data, "", {"mup": (0.0, 0.01), "mean_field": (0.0, 0.01), "ntk": (-0.5, -0.46)})
    adam = {"mup": (0.0, 0.01), "mean_field": (0.0, 0.01), "ntk": (-0.5, -0.49)}
    return checks + _early_updates(frames["claim_adam"], " of adam", adam)


def _networks(data: Tables, parameterization: str, depth: int = 2, activation: str = "relu") -> Tables:
    """Return the tables of the networks of one kind, at every width and seed."""
    return part_of(data, parameterization=parameterization, depth=depth, model__activation=activation)


def _early_updates(data: Tables, optimizer: str, expected: Mapping[str, tuple[float, ...]]) -> list[Check]:
    """Check how far the first five steps move activations and loss (T9)."""
    checks = []
    for name, figures in expected.items():
        cells = _networks(data, name, activation="tanh")
        rival = -0.5 if name in RICH else FIXED
        for layer in ("input", "hidden"):
            update = partial(_layer_slope, cells, "feature_movement", layer, step=5)
            what = f"update of the {layer} layer's activations in 5 steps{optimizer}, {name}"
            checks.append(band(what, update, *figures, rival=rival))
        checks.append(
            band(f"fall of the loss in 5 steps{optimizer}, {name}", partial(_fall_slope, cells, 5), 0.0, 0.01)
        )
    return checks


def _moved(
    name: str, cells: Tables, metric: str, role: str, figures: tuple[float, ...], rival: float | None
) -> Check:
    """Check the slope of a layer's movement."""
    return band(
        f"{metric}, {role}, {name}", partial(_layer_slope, cells, metric, role), *figures, rival=rival
    )


def _change(name: str, depth: int, cells: Tables, figures: tuple[float, ...], rival: float) -> Check:
    """Check the slope of the kernel's change."""
    return band(
        f"ntk_change, {name}, depth {depth}", partial(slope, cells, "ntk_change"), *figures, rival=rival
    )


def _layer_slope(cells: Tables, metric: str, role: str, step: int | None = None) -> Estimate:
    """Return the slope of a measure of the last layer of a role."""
    return slope(cells, of_layer(cells, metric, role, step))


def _measured_r(cells: Tables) -> Estimate:
    """Return r: how fast the movement of the last hidden features falls with width."""
    found = slope(cells, "feature_movement")
    return Estimate(-found.value, -found.high, -found.low, found.cells)


def _fall_slope(cells: Tables, step: int) -> Estimate:
    """Return the slope of how much of the initial train loss is gone at a step."""
    return slope(cells, 1 - at_step(cells, "train_loss", step) / at_step(cells, "train_loss", 0))


def _spread(tables: Tables, metric: str) -> Estimate:
    """Return the slope in width of the relative standard deviation over seeds."""
    cells = tables.cells.assign(value=numbers(tables.cells, metric)) if len(tables.cells) else tables.cells
    if cells.empty or len(require_seeds(cells)) < 4:
        raise Unsupported("fewer than four seeds: no spread")
    if cells["width"].nunique() < 3:
        raise Unsupported(f"{cells['width'].nunique()} widths, a slope needs 3")

    widths = np.unique(cells["width"].to_numpy(float))

    def statistic(part: pd.DataFrame) -> float:
        width, value = part["width"].to_numpy(float), part["value"].to_numpy()
        drawn = [n for n in widths if (width == n).any()]
        found = [value[(width == n) & ~np.isnan(value)] for n in drawn]
        if min(map(len, found)) < 2:
            return float("nan")
        relative = np.array([values.std(ddof=1) / values.mean() for values in found])
        if not (relative > 0).all():
            return float("nan")
        return float(np.polyfit(np.log(drawn), np.log(relative), 1)[0])

    return over_seeds(cells[["seed", "width", "value"]], statistic)
