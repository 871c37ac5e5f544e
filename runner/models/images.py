"""What the convolutional networks share."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from runner.errors import UserError
from runner.layers import Value, hidden


def image_channels(inputs: tuple[int, ...], model: str, factors: Sequence[int]) -> int:
    """Return the channels of one sample, (channels, height, width).

    Args:
        factors: What the sides will be divided by, one after the other.

    Raises:
        UserError: If samples are no images, or are divided into less than one pixel.
    """
    if len(inputs) != 3:
        raise UserError(
            f"data must hold images (channels, height, width) for model={model}, got samples of shape "
            f"{inputs}; use data=digits, or model=mlp"
        )
    left = side = min(inputs[1:])
    for factor in factors:
        left //= factor
    if left < 1:
        raise UserError(
            f"depth must leave an image of at least one pixel, got a side of {side} to be divided by "
            f"{' * '.join(map(str, factors))}; lower the depth, model.pool or model.stride, or model.stages"
        )
    return inputs[0]


def with_margins(
    x: Float[Tensor, "cell sample channel height width"], margin: int
) -> Float[Tensor, "cell sample _"]:
    """Return images as compiled steps take them: channels in rows, with a margin of zeros."""
    padded = nn.functional.pad(x, (margin,) * 4)
    return padded.permute(0, 1, 3, 4, 2).flatten(2)


def given(x: Value, inputs: tuple[int, ...], margin: int) -> Value:
    """Return those of a block, a row for each pixel."""
    channels, height, width = inputs
    return Value(x.rows.reshape(len(x.rows), -1, channels), None, image=(height, width, margin))


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
    # The gradient of a mean is written out for every position, that of a sum is one number that all look at.
    return hidden(x.sum((3, 4)) / (x.shape[3] * x.shape[4]))
