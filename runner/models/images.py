"""What the convolutional networks share."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from runner.errors import UserError
from runner.layers import hidden


def image_shape(inputs: tuple[int, ...], model: str) -> tuple[int, int, int]:
    """Return (channels, height, width) of one sample.

    Raises:
        UserError: If samples are no images.
    """
    if len(inputs) != 3:
        raise UserError(
            f"data must hold images (channels, height, width) for model={model}, got samples of shape "
            f"{inputs}; use data=digits, or model=mlp"
        )
    channels, height, width = inputs
    return channels, height, width


def check_pooling(side: int, factors: Sequence[int]) -> None:
    """Raise UserError if an image is divided into less than one pixel.

    Args:
        side: Length of the image's shorter side, in pixels.
        factors: What it is divided by, one after the other.
    """
    left = side
    for factor in factors:
        left //= factor
    if left < 1:
        raise UserError(
            f"depth must leave an image of at least one pixel, got a side of {side} to be divided by "
            f"{' * '.join(map(str, factors))}; lower the depth, model.pool or model.stride, or model.stages"
        )


def pooled(
    x: Float[Tensor, "cell sample channel height width"], side: int
) -> Float[Tensor, "cell sample channel low narrow"]:
    """Average over squares of ``side`` pixels; what is left over at the edges is dropped."""
    if side == 1:
        return x
    low, narrow = (length // side for length in x.shape[3:])
    tiles = x[..., : low * side, : narrow * side].reshape(*x.shape[:3], low, side, narrow, side)
    return tiles.mean((4, 6))


def readout(x: Float[Tensor, "cell sample channel height width"]) -> Float[Tensor, "cell sample channel"]:
    """Average over positions: the last hidden representation."""
    return hidden(x.mean((3, 4)))
