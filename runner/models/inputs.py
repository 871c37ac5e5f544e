"""The scale of samples, which all architectures share."""

import math


def input_scale(fan_in: int, normalize_input: bool) -> float:
    """Return what samples are multiplied by: 1 / sqrt(fan_in) if they are normalized, else 1.

    Input weights are drawn larger by its inverse, so that the function at init stays; the input layer then
    learns fan_in times more slowly, and does not dominate the kernel.

    Args:
        fan_in: What the input layer sums over: the dimension of a vector, a token or a patch.
        normalize_input: The model's key of that name.
    """
    return 1 / math.sqrt(fan_in) if normalize_input else 1.0
