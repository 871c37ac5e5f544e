"""What theory says of an exponent against width, to stand beside the measured one.

A prediction belongs to the *exponents* of a parameterization, not to its name. By the symmetry of abc
parameterizations (Yang & Hu, arXiv 2011.14522) a network is told by ``a + b`` (its scale at init) and by its
effective learning rate, ``c + 2a`` under SGD and ``c + a`` under Adam, per role; ``mup`` and ``mean_field``
are then one family.

Predictions hold at a fixed ``lr * lambda_max``. In the families whose ``lambda_max`` does not depend on width
a fixed absolute lr is the same thing; under ``sp`` it is not, and only the kernel at init is predicted.
"""

import json
from typing import Any

ROLES = ("input", "hidden", "output")
FAMILIES: dict[str, dict[tuple[tuple[float, ...], tuple[float, ...]], str]] = {
    "sgd": {
        ((0, 0.5, 0.5), (0, 1, 1)): "ntk",
        ((0, 0.5, 1), (-1, 0, 1)): "mup",
        ((0, 0.5, 0.5), (0, 0, 0)): "sp",
    },
    "adam": {
        ((0, 0.5, 0.5), (0.5, 1.5, 1)): "ntk",
        ((0, 0.5, 1), (0, 1, 1)): "mup",
        ((0, 0.5, 0.5), (0, 0, 0)): "sp",
    },
}
"""Exponents of the learning rate -> (a + b, c + 2a or c + a) over input, hidden, output -> family."""

OPTIMIZERS = {
    "sgd": "sgd",
    "momentum": "sgd",
    "nesterov": "sgd",
    "adam": "adam",
    "adamw": "adam",
    "signsgd": "adam",
}
"""Optimizer -> whose exponents it takes."""

AT_INIT: dict[str, dict[str, float]] = {"lambda_max_init": {"ntk": 0.0, "mup": 0.0, "sp": 1.0}}
"""T1: quantities that no learning rate enters."""

_CHANGE = {"ntk": -1.0, "mup": 0.0, "sp": -1.0}
TRAINED: dict[tuple[str, str | None], dict[str, float]] = {
    ("ntk_change", None): _CHANGE,  # T2
    ("kernel_distance", None): {family: 2 * slope for family, slope in _CHANGE.items()},
    ("movement_frobenius", "input"): {"ntk": -0.5, "mup": 0.0, "sp": -1.5},  # T3
    ("movement_frobenius", "hidden"): {"ntk": -1.0, "mup": -0.5, "sp": -1.0},
    ("movement_frobenius", "output"): {"ntk": -0.5, "mup": 0.0, "sp": -0.5},
    ("movement_spectral", "hidden"): {"ntk": -0.5, "mup": 0.0},  # T3s
    ("feature_movement", None): {"ntk": -0.5, "mup": 0.0},  # T4
}
"""(metric, role or None for a metric of the whole cell) -> family -> slope."""

_LAZY_HIDDEN = {"ntk": -0.5, "mup": 0.0}
UPDATES: dict[str, dict[str, float]] = {
    "input": _LAZY_HIDDEN,
    "hidden": _LAZY_HIDDEN,
    "vector": _LAZY_HIDDEN,
    "output": {"ntk": 0.0, "mup": 0.0},
}
"""T9: role -> family -> slope of ``update_size``, under SGD and Adam."""

# With one hidden layer sp's output weights dominate the kernel; only its input weights, which lag, change it.
SP_ONE_HIDDEN = {"ntk_change": -2.0, "kernel_distance": -4.0}


def family(exponents: str, optimizer: str) -> str | None:
    """Return which family an abc table belongs to, None if to none that theory speaks of.

    Args:
        exponents: JSON of the table, as in the ``exponents`` column.
        optimizer: A key of ``OPTIMIZERS``; theory says nothing of others.
    """
    rates = OPTIMIZERS.get(optimizer)
    if rates is None:
        return None
    table = json.loads(exponents)
    try:
        a, b, c = (
            tuple(float(part[role]) for role in ROLES) for part in (table["a"], table["b"], table["c"][rates])
        )
    except KeyError:
        return None
    times = 2 if rates == "sgd" else 1
    scale = tuple(round(x + y, 9) for x, y in zip(a, b, strict=True))
    rate = tuple(round(x + times * y, 9) for x, y in zip(c, a, strict=True))
    return FAMILIES[rates].get((scale, rate))


def predicted_slope(metric: str, role: str | None, cell: dict[str, Any]) -> float | None:
    """Return the slope of log metric against log width that theory predicts, None where it predicts nothing.

    Args:
        role: Role of the layer for a metric per layer, else None.
        cell: Any cell of the fit: ``exponents``, ``optimizer``, ``depth`` and ``lr_unit`` are read.

    References:
        Jacot et al., arXiv 1806.07572; Yang & Hu, arXiv 2011.14522, section 3 and appendix.
    """
    if metric in AT_INIT:
        # The kernel is that of gradient descent, whatever the optimizer.
        kind = family(cell["exponents"], "sgd")
        return None if kind is None else AT_INIT[metric][kind]
    kind = family(cell["exponents"], cell["optimizer"])
    if kind is None:
        return None
    if metric == "update_size":
        return UPDATES.get(role or "", {}).get(kind)
    if OPTIMIZERS[cell["optimizer"]] != "sgd":
        return None
    if kind == "sp":
        if cell["lr_unit"] != "sharpness":
            return None
        if cell["depth"] == 1 and role is None and metric in SP_ONE_HIDDEN:
            return SP_ONE_HIDDEN[metric]
    return TRAINED.get((metric, role), {}).get(kind)


def r_exponent(exponents: str, faster: float = 0.0) -> float | None:
    """Return r of an abc table under SGD: features change by width^-r; 0 learns features, above is lazy.

    r = min(a_out + b_out, 2 a_out + c) + c - 1 + min(2 a_hidden, 2 a_input + 1), with one c for all layers.

    Args:
        exponents: JSON of the table, as in the ``exponents`` column.
        faster: Added to c where the learning rate falls faster with width than the table says.

    Returns:
        None if the layers have different c, of which the formula does not speak.

    References:
        Yang & Hu, arXiv 2011.14522, definition 3.2 and appendix H.
    """
    table = json.loads(exponents)
    rates = {float(table["c"]["sgd"][role]) for role in ROLES}
    if len(rates) > 1:
        return None
    c = rates.pop() + faster
    a, b = table["a"], table["b"]
    features = min(2 * a["hidden"], 2 * a["input"] + 1)
    return float(min(a["output"] + b["output"], 2 * a["output"] + c) + c - 1 + features)
