"""The settings of layers that all architectures share."""

import math
from typing import Any

from runner.errors import UserError


def layer_keys(
    fan_in: int, bias: bool, sigma_weight: float, sigma_bias: float, normalize_input: bool
) -> tuple[float, dict[str, Any], dict[str, Any]]:
    """Return what samples are multiplied by, the keys of the input layer, and those of all others.

    Normalized samples are multiplied by 1 / sqrt(fan_in), as papers on the NTK do. Input weights are drawn
    larger by its inverse, so that the function at init stays; the input layer then learns fan_in times more
    slowly, and does not dominate the kernel.

    Args:
        fan_in: What the input layer sums over: the dimension of a vector, a token or a patch.
    """
    scale = 1 / math.sqrt(fan_in) if normalize_input else 1.0
    keys = {"bias": bias, "sigma_weight": sigma_weight, "sigma_bias": sigma_bias}
    return scale, keys | {"sigma_weight": sigma_weight / scale}, keys


def block_layers_key(value: object) -> int:
    """Return how many layers a residual block has; UserError if it is neither 1 nor 2."""
    if value not in (1, 2) or isinstance(value, bool):
        raise UserError(
            f"model.block_layers must be 1 or 2, got {value}; 2 is a branch with an activation inside"
        )
    return int(str(value))
