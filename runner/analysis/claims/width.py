"""Rules on what shrinks with width and what does not: C1, C2, C4, C6, C9.

A band reaches from what theory expects to what independent prototypes gave at these widths (they bend towards
the asymptote), and 0.1 beyond on both sides: seeds are few.
"""

from __future__ import annotations

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
    data = frames["claim_width"]
    ntk = part_of(data, parameterization="ntk", depth=2, model__activation="relu")
    expected = {"input": (-0.5,), "hidden": (-1.0,), "output": (-0.5, -0.54)}
    checks = [band("param_movement, ntk", partial(slope, ntk, "param_movement"), -0.5, -1.0, rival=FIXED)]
    for role, figures in expected.items():
        checks.append(_moved("ntk", ntk, role, figures, FIXED))
    checks.append(
        band(
            "movement_spectral, hidden, ntk",
            partial(_layer_slope, ntk, "movement_spectral", "hidden"),
            -0.5, -0.53, rival=FIXED,
        )
    )  # fmt: skip
    sp = part_of(data, parameterization="sp", depth=2, model__activation="relu")
    for role, figures in {"input": (-1.5, -1.58), "hidden": (-1.0,), "output": (-0.5, -0.52)}.items():
        checks.append(_moved("sp", sp, role, figures, FIXED))
    return checks


def linear_in_parameters(frames: Frames) -> Sequence[Check]:
    """C2: under ntk the output becomes its first-order expansion (T5)."""
    data = frames["claim_width"]
    checks = []
    for activation, figures in {"tanh": (-1.0, -0.8), "relu": (-0.8, -0.45)}.items():
        cells = part_of(data, parameterization="ntk", depth=2, model__activation=activation)
        checks.append(
            within(
                f"linearization_error, ntk, {activation}",
                partial(slope, cells, "linearization_error"),
                figures[0] - (MARGIN if activation == "tanh" else 0),
                figures[1] + (MARGIN if activation == "tanh" else 0),
                FIXED,
            )
        )
    return checks


def deterministic_kernel(frames: Frames) -> Sequence[Check]:
    """C4: the kernel at init converges, its spread over seeds vanishes, training leaves it alone (T1, T2)."""
    checks = []
    limit = frames["claim_limit"]
    for activation in ("relu", "erf"):
        cells = part_of(limit, model__activation=activation)
        checks.append(
            within(
                f"ntk_limit_distance, {activation}",
                partial(slope, cells, "ntk_limit_distance", diverged=True),
                -0.6, -0.4, FIXED,
            )
        )  # fmt: skip
        checks.append(
            band(
                f"spread of lambda_max over seeds, {activation}",
                partial(_spread, cells, "lambda_max_init"),
                -0.3, -0.7, rival=FIXED,
            )
        )  # fmt: skip
    data = frames["claim_width"]
    for depth in (1, 2):
        for name in ("ntk", "sp"):
            cells = part_of(data, parameterization=name, depth=depth, model__activation="relu")
            changes = (-2.0, -1.94) if (name, depth) == ("sp", 1) else (-1.0, -0.86)
            checks.append(_change(name, depth, cells, changes, FIXED))
    for name in ("ntk", *RICH, "sp"):
        cells = part_of(data, parameterization=name, depth=2, model__activation="relu")
        tops = (1.0, 1.0) if name == "sp" else (0.0, -0.05)
        checks.append(
            band(
                f"lambda_max at init, {name}",
                partial(slope, cells, "lambda_max_init", diverged=True),
                *tops,
            )
        )
    return checks


def features_move(frames: Frames) -> Sequence[Check]:
    """C6: under mup kernel and features change by the same amount at every width (T2, T3s, T4)."""
    data = frames["claim_width"]
    checks = []
    for name in RICH:
        cells = part_of(data, parameterization=name, depth=2, model__activation="relu")
        checks.append(
            band(
                f"feature_movement, {name}",
                partial(slope, cells, "feature_movement"),
                0.02, -0.01, rival=-0.5,
            )
        )  # fmt: skip
        checks.append(_change(name, 2, cells, (0.0, -0.07), -1.0))
        checks.append(
            band(
                f"movement_spectral, hidden, {name}",
                partial(_layer_slope, cells, "movement_spectral", "hidden"),
                0.0, -0.02, rival=-0.5,
            )
        )  # fmt: skip
        for role, figures in {"input": (0.0, 0.01), "hidden": (-0.5, -0.48), "output": (0.0,)}.items():
            checks.append(_moved(name, cells, role, figures, None))
    return checks


def parameterization_decides(frames: Frames) -> Sequence[Check]:
    """C9: the r exponent of each parameterization is the one of its abc table; T9, early update sizes."""
    data = frames["claim_width"]
    checks = []
    for name in ("mup", "mean_field", "ntk", "sp"):
        cells = part_of(data, parameterization=name, depth=2, model__activation="tanh")
        try:
            first = cells.cells.iloc[0]
            # At a fixed lr * lambda_max, sp's lr falls as the inverse of its lambda_max.
            extra = 1.0 if name == "sp" and first["lr_unit"] == "sharpness" else 0.0
            expected = r_exponent(str(first["exponents"]), extra)
        except IndexError:
            expected = 0.0
        rival = None if expected is None else 0.5 - expected
        value = 0.0 if expected is None else expected
        checks.append(
            band(
                f"r exponent, {name}",
                partial(_measured_r, cells),
                value, rival=rival,
            )
        )  # fmt: skip
    checks += _early_updates(data, "", {"mup": (0.0, 0.01), "mean_field": (0.0, 0.01), "ntk": (-0.5, -0.46)})
    adam = {"mup": (0.0, 0.01), "mean_field": (0.0, 0.01), "ntk": (-0.5, -0.49)}
    return checks + _early_updates(frames["claim_adam"], " of adam", adam)


def _early_updates(data: Tables, optimizer: str, expected: Mapping[str, tuple[float, ...]]) -> list[Check]:
    """Check how far the first five steps move activations and loss (T9)."""
    checks = []
    for name, figures in expected.items():
        cells = part_of(data, parameterization=name, depth=2, model__activation="tanh")
        rival = -0.5 if name in RICH else FIXED
        for layer in ("input", "hidden"):
            checks.append(
                band(
                    f"update of the {layer} layer's activations in 5 steps{optimizer}, {name}",
                    partial(_layer_slope, cells, "feature_movement", layer, step=5),
                    *figures, rival=rival,
                )
            )  # fmt: skip
        checks.append(
            band(f"fall of the loss in 5 steps{optimizer}, {name}", partial(_fall_slope, cells, 5), 0.0, 0.01)
        )
    return checks


def _moved(name: str, cells: Tables, role: str, figures: tuple[float, ...], rival: float | None) -> Check:
    """Check the slope of a layer's Frobenius movement."""
    return band(
        f"movement_frobenius, {role}, {name}",
        partial(_layer_slope, cells, "movement_frobenius", role),
        *figures, rival=rival,
    )  # fmt: skip


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
    if len(require_seeds(cells) if len(cells) else []) < 4:
        raise Unsupported("fewer than four seeds: no spread")
    if cells["width"].nunique() < 3:
        raise Unsupported(f"{cells['width'].nunique()} widths, a slope needs 3")

    def statistic(part: pd.DataFrame) -> float:
        by = part.groupby("width")["value"]
        relative = by.std() / by.mean()
        if not (relative > 0).all():
            return float("nan")
        return float(np.polyfit(np.log(relative.index.to_numpy(float)), np.log(relative.to_numpy()), 1)[0])

    return over_seeds(cells, statistic)
