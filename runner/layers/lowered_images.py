"""Convolutions as steps of compiled code; see :mod:`runner.layers.lowering`."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor

from runner.layers.base import Layer, per_cell
from runner.layers.lowered import CannotLower, Gradient, Value
from runner.layers.lowering import Lowering, common_factor, factor_of, raw
from runner.numerics import compiled
from runner.numerics.images import Convolve, ConvolveBack, Pool, PoolBack
from runner.numerics.operations import Blend, Operation, Step, Transpose

_LEAST_TILED = 16
"""Channels from which on fewer products outweigh the sums that tiles take."""
_LARGEST_UNTILED = 1 << 16
"""Numbers in all kernels beyond which torch is faster without tiles."""


def convolution(
    lowering: Lowering, x: Value, layer: Layer, side: int, onto: Value | None = None,
    factor: Tensor | None = None,
) -> Value:  # fmt: skip
    """Convolve images with a layer's kernels and add its bias; their sides stay.

    Args:
        side: Of a patch, odd.
        onto: As of :meth:`runner.layers.Lowering.linear`; so is the next.

    Raises:
        CannotLower: If kernels or margins are none that compiled code takes.
    """
    weight = raw(layer, "weight")
    outs, channels = weight.shape[1:3]
    flat = weight.flatten(2)
    if x.image is None or x.image[2] != side // 2:
        raise CannotLower
    height, breadth, _ = x.image
    tiled = side == 3 and height % 2 == breadth % 2 == 0 and min(channels, outs) >= _LEAST_TILED
    small = tiled or flat[0].numel() <= _LARGEST_UNTILED
    if not (small and compiled.takes(weight[..., 0, 0])):
        raise CannotLower
    if x.shared:
        x = lowering.copy(x)
    rows = x.rows.shape[1]
    y = onto or Value(lowering.room(rows, outs), Gradient(), image=x.image)
    above = y.gradient
    assert above is not None
    also = None if factor is None else per_cell(factor, 3)
    common, each = common_factor(factor_of(layer, "weight"))
    kernels, turned = _kernels(lowering, layer.name, flat, side, channels)
    keys: dict[str, Any] = {"height": height, "breadth": breadth, "side": side, "tiled": tiled}
    scales: dict[str, Any] = {"factor": common, "each": each, "also": also}
    add, scale = onto is not None, None
    if layer.has_bias:
        scale = factor_of(layer, "bias")
        scale = scale if also is None else scale * also
        inside = _inside(lowering, rows, (height, breadth, side // 2))
        lowering.forward.append(
            Operation(y.rows, inside, raw(layer, "bias").unsqueeze(1), each=scale, add=add)
        )
    lowering.forward.append(
        Convolve(y.rows, x.rows, kernels, channels, **keys, **scales, add=add or layer.has_bias)
    )

    def pull() -> list[Step]:
        right, steps, late = above.room, list[Step](), list[Step]()
        assert right is not None
        if x.gradient is not None:
            out, add, late = lowering.contribution(x, right)
            steps.append(
                Convolve(
                    out, right, turned, outs, **keys, **scales, add=add, above=x.slope,
                    times=x.slope is not None and x.slope is not x.rows,
                )
            )  # fmt: skip
        if layer.has_bias:
            ones = lowering.like.new_ones(1, 1, rows).expand(len(weight), -1, -1)
            steps += lowering.learn(f"{layer.name}.bias", (1, outs), ones, right, each=scale)
        path = f"{layer.name}.weight"
        found = lowering.gradient_room(path, (side * side * channels, outs))
        sums = lowering.blocks is not None
        steps.append(ConvolveBack(found, x.rows, right, rows, **keys, **scales, sums=sums))
        arranging, gradient = _as_kernels(lowering, found, side, channels)
        if lowering.blocks is not None:
            lowering.blocks.after[path] = arranging, gradient
        elif lowering.update is not None:
            steps += [*arranging, *lowering.update.formed(path, gradient)]
        if onto is None:
            lowering.release(above)
        return steps + late

    lowering.back(pull)
    return y


def pool(lowering: Lowering, x: Value, side: int) -> Value:
    """Average over squares of ``side`` pixels; what is left over at the edges is dropped."""
    assert x.image is not None
    height, breadth, margin = x.image
    low, narrow = height // side, breadth // side
    rows = lowering.samples * (low + 2 * margin) * (narrow + 2 * margin)
    y = Value(lowering.room(rows, x.rows.shape[2]), Gradient(), image=(low, narrow, margin))
    keys: dict[str, Any] = {
        "inner": margin, "height": height, "breadth": breadth, "side": side, "factor": 1 / side**2,
    }  # fmt: skip
    lowering.forward.append(Pool(y.rows, x.rows, **keys))

    def pull() -> list[Step]:
        assert y.gradient is not None
        assert y.gradient.room is not None
        given = y.gradient.room
        out, add = lowering.contribute(x)
        lowering.release(y.gradient)
        times = x.slope is not None and x.slope is not x.rows
        return [PoolBack(out, given, **keys, add=add, above=x.slope, times=times)]

    lowering.back(pull)
    return y


def _inside(lowering: Lowering, rows: int, image: tuple[int, int, int]) -> Float[Tensor, "cell row 1"]:
    """Return 1 for each pixel of the images of a block, and 0 in their margins."""
    height, breadth, margin = image
    high, wide = height + 2 * margin, breadth + 2 * margin
    pixels = lowering.like.new_zeros(rows // (high * wide), high, wide)
    pixels[:, margin : margin + height, margin : margin + breadth] = 1
    return pixels.view(1, rows, 1).expand(len(lowering.like), -1, -1)


def _kernels(
    lowering: Lowering, path: str, flat: Float[Tensor, "cell out _"], side: int, channels: int
) -> tuple[Tensor, Tensor]:
    """Return kernels with a row for each pixel and channel; and turned round, from outputs to channels."""
    taps, outs = side * side, flat.shape[1]
    columns, kernels = lowering.beside(channels * taps, outs), lowering.beside(taps * channels, outs)
    turned = lowering.beside(taps * outs, channels)
    steps: list[Step] = [Transpose(columns, flat)]
    for tap in range(taps):
        part = kernels[:, tap * channels : (tap + 1) * channels]
        steps.append(Blend("itself", part, columns[:, tap::taps], keep=0.0))
        back = turned[:, (taps - 1 - tap) * outs : (taps - tap) * outs]
        steps.append(Transpose(back, part))
    if lowering.blocks is None:
        lowering.forward += steps
        return kernels, turned
    if path not in lowering.blocks.transposed:
        lowering.blocks.transposed[path], lowering.blocks.transposed[f"{path} turned"] = kernels, turned
        lowering.blocks.before += steps
    return lowering.blocks.transposed[path], lowering.blocks.transposed[f"{path} turned"]


def _as_kernels(lowering: Lowering, found: Tensor, side: int, channels: int) -> tuple[list[Step], Tensor]:
    """Arrange a gradient, a row for each pixel and channel, as kernels are."""
    taps, outs = side * side, found.shape[2]
    columns, gradient = lowering.beside(channels * taps, outs), lowering.beside(outs, channels * taps)
    steps: list[Step] = [
        Blend("itself", columns[:, tap::taps], found[:, tap * channels : (tap + 1) * channels], keep=0.0)
        for tap in range(taps)
    ]
    return [*steps, Transpose(gradient, columns)], gradient
