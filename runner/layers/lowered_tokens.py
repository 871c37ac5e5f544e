"""Norms and attention as steps of compiled code; see :mod:`runner.layers.lowering`."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from runner.layers.base import Layer
from runner.layers.lowered import CannotLower, Gradient, Value
from runner.layers.lowering import Lowering, factor_of, raw
from runner.numerics.operations import Attend, AttendBack, Blend, Norm, NormBack, OneHot, Step


def norm(lowering: Lowering, x: Value, layer: Layer, epsilon: float) -> Value:
    """Standardize rows and multiply by a layer's gain."""
    if x.slope is not None or x.gradient is None:
        raise CannotLower
    rows, columns = x.rows.shape[1:]
    gain = raw(layer, "weight").unsqueeze(1)
    scale = factor_of(layer, "weight")
    y, kept, more = (
        Value(lowering.room(rows, columns), Gradient()),
        lowering.room(rows, columns),
        lowering.room(1, rows),
    )
    lowering.forward.append(Norm(y.rows, x.rows, gain, kept, more, epsilon, scale))
    if layer.has_bias:
        bias, factor = raw(layer, "bias").unsqueeze(1), factor_of(layer, "bias")
        lowering.forward.append(Blend("itself", y.rows, bias.expand(-1, rows, -1), each=factor))
    above = y.gradient
    assert above is not None

    def pull() -> list[Step]:
        assert above.room is not None
        steps = list[Step]()
        if layer.has_bias:
            ones = lowering.like.new_ones(1, 1, rows).expand(len(gain), -1, -1)
            steps += lowering.learn(f"{layer.name}.bias", (1, columns), ones, above.room, each=factor)
        out, add = lowering.contribute(x)
        path = f"{layer.name}.weight"
        found = lowering.gradient_room(path, (1, columns))
        sums = lowering.blocks is not None
        steps.append(NormBack(out, above.room, gain, kept, more, found, scale, keep=float(add), sums=sums))
        lowering.release(above)
        return [*steps, *lowering.take(path, found)]

    lowering.back(pull)
    return y


def one_hot(
    lowering: Lowering, symbols: Float[Tensor, "cell sample position"], vocabulary: int
) -> Float[Tensor, "cell sample*position symbol"]:
    """Return a row for every symbol of every sample, with 1 in its column."""
    samples, count = symbols.shape[1:]
    rows = lowering.room(samples * count, vocabulary)
    lowering.forward.append(OneHot(rows, symbols, count))
    return rows


def positions(lowering: Lowering, x: Value, layer: Layer) -> Value:
    """Add a vector to every position, in place."""
    weight = raw(layer, "weight").flatten(1).unsqueeze(1)
    scale, columns = factor_of(layer, "weight"), weight.shape[2]
    rows = x.rows.view(len(weight), lowering.samples, columns)
    lowering.forward.append(Blend("itself", rows, weight.expand(-1, lowering.samples, -1), each=scale))

    def pull() -> Sequence[Step]:
        assert x.gradient is not None
        assert x.gradient.room is not None
        ones = lowering.like.new_ones(1, 1, lowering.samples).expand(len(weight), -1, -1)
        right = x.gradient.room.view(len(weight), lowering.samples, columns)
        return lowering.learn(f"{layer.name}.weight", (1, columns), ones, right, each=scale)

    lowering.back(pull)
    return x


def attention(
    lowering: Lowering, x: Value, maps: Sequence[Layer], heads: int, factor: Tensor, *, causal: bool
) -> Value:
    """Map to queries, keys and values, and let the positions of every sample attend to each other.

    Args:
        factor: Of the logits of each cell.
    """
    rows, columns = x.rows.shape[1:]
    count, size = rows // lowering.samples, columns // heads
    three, of_three = lowering.room(rows, 3 * columns), lowering.room(rows, 3 * columns)
    for place, layer in enumerate(maps):
        part = slice(place * columns, (place + 1) * columns)
        lowering.linear(x, layer, into=Value(three[..., part], Gradient(of_three[..., part])))
    kept, y = lowering.room(rows * heads, count), Value(lowering.room(rows, columns), Gradient())
    lowering.forward.append(Attend(y.rows, three, kept, size, count, causal, factor))

    def pull() -> list[Step]:
        assert y.gradient is not None
        assert y.gradient.room is not None
        right, more = y.gradient.room, lowering.room(count, count)
        lowering.release(y.gradient)
        return [AttendBack(of_three, three, right, kept, more, size, count, factor)]

    lowering.back(pull)
    return y
