"""What theory needs to know of the optimizers."""

from typing import Any

OPTIMIZERS = {
    "sgd": "sgd",
    "momentum": "sgd",
    "nesterov": "sgd",
    "flow": "sgd",
    "adam": "adam",
    "adamw": "adam",
    "signsgd": "adam",
    "lion": "adam",
    "adam_atan2": "adam",
    "muon": "adam",
}
"""Optimizer -> whose exponents c it takes; Muon, those of input and output weights."""


def orthogonalized(table: dict[str, Any], scale: str | None) -> dict[str, Any]:
    """Return a table whose hidden weights have, as Adam's, steps of the size of Muon's.

    An aligned step of signs has a spectral norm of width times its entries. Muon gives the weight in force
    one of its own, see :mod:`runner.optim.muon`: the same at any width, or with ``match_rms`` as sqrt(width).

    Args:
        table: With ``a`` and ``c`` by role.
        scale: ``optimizer.scale``; None for the default.
    """
    if "adam" not in table["c"]:
        return table
    hidden = (0.5 if scale == "match_rms" else 1.0) - table["a"]["hidden"]
    return {**table, "c": {**table["c"], "adam": {**table["c"]["adam"], "hidden": hidden}}}
