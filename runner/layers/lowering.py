"""Layers as steps of compiled code: forward, and back without autograd, on one block of samples.

A module says in ``lower`` what it does in these terms, and the way back follows.
What a block of samples needs is to stay in the nearest caches from its inputs to its gradients, so that a
pass over memory costs little.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from runner.layers.lowered import Blocks, CannotLower, Gradient, Update, Value
from runner.numerics import compiled
from runner.numerics.steps import Attend, AttendBack, Blend, Curve, Norm, NormBack, Operation, Step

if TYPE_CHECKING:
    from runner.layers.base import Layer

CURVES = ("relu", "gelu", "tanh", "erf")


class Lowering:
    """The operations of one block of samples, in the order in which they are carried out.

    Args:
        like: Has a ``cell`` axis, the dtype and the device.
        samples: In the block.
        update: What becomes of gradients, if a block is a whole batch.
        blocks: What it shares with the others, if there are more blocks.

    Attributes:
        forward: Operations so far.
        numbers: That the block holds.
    """

    def __init__(
        self, like: Tensor, samples: int, update: Update | None, blocks: Blocks | None = None
    ) -> None:
        self._like, self.samples, self._update, self._blocks = like, samples, update, blocks
        self.forward: list[Step] = []
        self.numbers = 0
        self._pulls: list[Callable[[], Sequence[Step]]] = []
        self._spare: dict[tuple[int, ...], list[Tensor]] = {}

    def room(self, rows: int, columns: int) -> Float[Tensor, "cell row column"]:
        """Return memory of one cell for all of them: the next begins when one is done."""
        self.numbers += rows * columns
        return self._like.new_empty(1, rows, columns).expand(len(self._like), -1, -1)

    def backward(self) -> list[Step]:
        """Return the way back, once the gradient with respect to the last value is written."""
        return [step for pull in reversed(self._pulls) for step in pull()]

    def linear(
        self, x: Value, layer: Layer, onto: Value | None = None, factor: Tensor | None = None,
        into: Value | None = None,
    ) -> Value:  # fmt: skip
        """Multiply by a layer's weight and add its bias.

        Args:
            onto: What the result is added to, in place.
            factor: Of the result of each cell.
            into: Where it is written.

        Raises:
            CannotLower: If the weight is none that compiled code takes.
        """
        weight: Tensor = layer.weight.detach()  # type: ignore[operator]
        rows, (fan_in, fan_out) = x.rows.shape[1], weight.shape[1:]
        if not compiled.takes(weight):
            raise CannotLower
        if x.shared:  # others will have added to it when its gradient is asked for
            kept = self.room(*x.rows.shape[1:])
            self.forward.append(Blend("itself", kept, x.rows, keep=0.0))
            x = Value(kept, x.gradient, x.slope)
        y = onto or into or Value(self.room(rows, fan_out), Gradient())
        also = None if factor is None else factor.view(-1, 1, 1)
        common, each = _common(_factor(layer, "weight"))
        name, above = layer.name, y.gradient
        assert above is not None
        add = onto is not None
        if layer.has_bias:
            bias, scale = layer.bias.detach().unsqueeze(1), _factor(layer, "bias")  # type: ignore[operator]
            scale = scale if factor is None else scale * factor.view(-1, 1, 1)
            self.forward.append(
                Blend("itself", y.rows, bias.expand(-1, rows, -1), keep=float(add), each=scale)
            )
        self.forward.append(Operation(y.rows, x.rows, weight, common, each, also, add=add or layer.has_bias))

        def pull() -> list[Step]:
            right, steps, late = above.room, list[Step](), list[Step]()
            assert right is not None
            if x.gradient is not None:
                out, add = self._contribute(x)
                if out is right:  # past a branch: what is read may not change meanwhile
                    out = self.room(rows, fan_in)
                    late.append(Blend("itself", right, out))
                    add = False
                across = self._blocks.transpose(name, weight) if self._blocks else weight.mT
                back = Operation(out, right, across, common, each, also, add=add, above=x.slope)
                steps.append(back._replace(times=x.slope is not None and x.slope is not x.rows))
            if layer.has_bias:
                ones = self._like.new_ones(1, 1, rows).expand(len(weight), -1, -1)
                steps += self._learn(f"{name}.bias", (1, fan_out), ones, right, each=scale)
            steps += self._learn(
                f"{name}.weight", (fan_in, fan_out), x.rows.mT, right, factor=common, each=each, also=also
            )
            if onto is None and into is None:
                self._release(above)
            return steps + late

        self._pulls.append(pull)
        return y

    def curve(self, x: Value, name: str) -> Value:
        """Apply a nonlinearity, without its gain."""
        if name == "linear":
            return x
        if name not in CURVES or x.slope is not None or x.gradient is None:
            raise CannotLower
        last = self.forward[-1]
        if name == "relu" and isinstance(last, Operation) and last.out is x.rows and not x.shared:
            self.forward[-1] = last._replace(rectify=True)
            return Value(x.rows, x.gradient, x.rows)
        out = self.room(*x.rows.shape[1:])
        slope = self.room(*x.rows.shape[1:]) if x.shared else x.rows
        self.forward.append(Curve(name, out, x.rows, slope))
        return Value(out, x.gradient, slope)

    def norm(self, x: Value, layer: Layer, epsilon: float) -> Value:
        """Standardize rows and multiply by a layer's gain."""
        if x.slope is not None or x.gradient is None:
            raise CannotLower
        rows, columns = x.rows.shape[1:]
        gain = layer.weight.detach().unsqueeze(1)  # type: ignore[operator]
        scale = _factor(layer, "weight")
        y, kept, more = (
            Value(self.room(rows, columns), Gradient()),
            self.room(rows, columns),
            self.room(1, rows),
        )
        self.forward.append(Norm(y.rows, x.rows, gain, kept, more, epsilon, scale))
        if layer.has_bias:
            bias, factor = layer.bias.detach().unsqueeze(1), _factor(layer, "bias")  # type: ignore[operator]
            self.forward.append(Blend("itself", y.rows, bias.expand(-1, rows, -1), each=factor))
        above = y.gradient
        assert above is not None

        def pull() -> list[Step]:
            assert above.room is not None
            steps = list[Step]()
            if layer.has_bias:
                ones = self._like.new_ones(1, 1, rows).expand(len(gain), -1, -1)
                steps += self._learn(f"{layer.name}.bias", (1, columns), ones, above.room, each=factor)
            out, add = self._contribute(x)
            path = f"{layer.name}.weight"
            found = self._gradient(path, (1, columns))
            sums = self._blocks is not None
            steps.append(
                NormBack(out, above.room, gain, kept, more, found, scale, keep=float(add), sums=sums)
            )
            self._release(above)
            return [*steps, *self._formed(path, found)]

        self._pulls.append(pull)
        return y

    def positions(self, x: Value, layer: Layer) -> Value:
        """Add a vector to every position, in place."""
        weight = layer.weight.detach().flatten(1).unsqueeze(1)  # type: ignore[operator]
        scale, columns = _factor(layer, "weight"), weight.shape[2]
        rows = x.rows.view(len(weight), self.samples, columns)
        self.forward.append(Blend("itself", rows, weight.expand(-1, self.samples, -1), each=scale))

        def pull() -> Sequence[Step]:
            assert x.gradient is not None
            assert x.gradient.room is not None
            ones = self._like.new_ones(1, 1, self.samples).expand(len(weight), -1, -1)
            right = x.gradient.room.view(len(weight), self.samples, columns)
            return self._learn(f"{layer.name}.weight", (1, columns), ones, right, each=scale)

        self._pulls.append(pull)
        return x

    def attention(
        self, x: Value, maps: Sequence[Layer], heads: int, factor: Tensor, *, causal: bool
    ) -> Value:
        """Map to queries, keys and values, and let the positions of every sample attend to each other.

        Args:
            factor: Of the logits of each cell.
        """
        rows, columns = x.rows.shape[1:]
        count, size = rows // self.samples, columns // heads
        three, of_three = self.room(rows, 3 * columns), self.room(rows, 3 * columns)
        for place, layer in enumerate(maps):
            part = slice(place * columns, (place + 1) * columns)
            self.linear(x, layer, into=Value(three[..., part], Gradient(of_three[..., part])))
        kept, y = self.room(rows * heads, count), Value(self.room(rows, columns), Gradient())
        self.forward.append(Attend(y.rows, three, kept, size, count, causal, factor))

        def pull() -> list[Step]:
            assert y.gradient is not None
            assert y.gradient.room is not None
            right, more = y.gradient.room, self.room(count, count)
            self._release(y.gradient)
            return [AttendBack(of_three, three, right, kept, more, size, count, factor)]

        self._pulls.append(pull)
        return y

    def mean(self, x: Value) -> Value:
        """Average over the positions of every sample."""
        rows, columns = x.rows.shape[1:]
        count, y = rows // self.samples, Value(self.room(self.samples, columns), Gradient())
        for place in range(count):
            part = x.rows[:, place::count]
            self.forward.append(Blend("itself", y.rows, part, keep=float(place > 0), factor=1 / count))

        def pull() -> list[Step]:
            assert y.gradient is not None
            assert y.gradient.room is not None
            out, add = self._contribute(x)
            self._release(y.gradient)
            return [
                Blend("itself", out[:, place::count], y.gradient.room, keep=float(add), factor=1 / count)
                for place in range(count)
            ]

        if x.slope is not None:
            raise CannotLower
        self._pulls.append(pull)
        return y

    def last(self, x: Value) -> Value:
        """Take the last position of every sample."""
        count = x.rows.shape[1] // self.samples
        y = Value(x.rows[:, count - 1 :: count], Gradient())

        def pull() -> list[Step]:
            assert y.gradient is not None
            assert y.gradient.room is not None
            out, add = self._contribute(x)
            self._release(y.gradient)
            part, steps = out[:, count - 1 :: count], list[Step]()
            if not add:
                steps.append(
                    Blend("itself", out, self._like.new_zeros(1, *out.shape[1:]).expand_as(out), keep=0.0)
                )
            return [*steps, Blend("itself", part, y.gradient.room)]

        if x.slope is not None:
            raise CannotLower
        self._pulls.append(pull)
        return y

    def _contribute(self, x: Value) -> tuple[Tensor, bool]:
        """Return where a contribution to a gradient goes, and whether it is added to others."""
        assert x.gradient is not None
        if x.gradient.room is None:
            shape = tuple(x.rows.shape[1:])
            spare = self._spare.get(shape)
            x.gradient.room = spare.pop() if spare else self.room(*shape)
        begun, x.gradient.begun = x.gradient.begun, True
        return x.gradient.room, begun

    def _release(self, gradient: Gradient) -> None:
        """Let others use the room of a gradient that nothing needs any more."""
        assert gradient.room is not None
        self._spare.setdefault(tuple(gradient.room.shape[1:]), []).append(gradient.room)

    def _gradient(self, path: str, shape: tuple[int, int]) -> Float[Tensor, "cell row column"]:
        if self._blocks is None:
            return self.room(*shape)
        if path not in self._blocks.sums:
            self._blocks.sums[path] = self._like.new_empty(1, *shape).expand(len(self._like), -1, -1)
        return self._blocks.sums[path]

    def _learn(
        self, path: str, shape: tuple[int, int], left: Tensor, right: Tensor, *, factor: float = 1.0,
        each: Tensor | None = None, also: Tensor | None = None,
    ) -> Sequence[Step]:  # fmt: skip
        """Return what is done with the gradient of a parameter, ``factor * each * also * left @ right``."""
        product = Operation(self._gradient(path, shape), left, right, factor, each, also)
        if self._update is None:
            return [product._replace(sums=True)]
        return self._update.product(path, product)

    def _formed(self, path: str, gradient: Tensor) -> Sequence[Step]:
        return [] if self._update is None else self._update.formed(path, gradient)


@runtime_checkable
class Lowerable(Protocol):
    """A module that has a compiled form."""

    def lower(
        self, lowering: Lowering, x: Value, onto: Value | None = None, factor: Tensor | None = None
    ) -> Value:
        """Add what it does to compiled steps.

        Args:
            onto: What the result is added to, in place, if anything.
            factor: Of the result of each cell.

        Raises:
            CannotLower: If it has no compiled form with these settings.
        """


def lower_all(
    parts: Iterable[object], lowering: Lowering, x: Value, onto: Value | None = None,
    factor: Tensor | None = None,
) -> Value:  # fmt: skip
    """Add modules one after the other; the last has ``onto`` and ``factor``.

    Raises:
        CannotLower: If one has no compiled form.
    """
    modules = list(parts)
    for place, module in enumerate(modules):
        if not isinstance(module, Lowerable):
            raise CannotLower
        x = module.lower(lowering, x, *((onto, factor) if place == len(modules) - 1 else ()))
    return x


def _factor(layer: Layer, name: str) -> Float[Tensor, "cell 1 1"]:
    """Return the factor of a parameter, r^(-a), and that of the activation that feeds a weight."""
    factor: Tensor = getattr(layer, f"{name}_multiplier")
    return (factor * layer.gain if name == "weight" else factor).view(-1, 1, 1)


def _common(factor: Float[Tensor, "cell 1 1"]) -> tuple[float, Tensor | None]:
    """Return a factor that all cells share, or 1 and the cells' own."""
    if bool((factor == factor[:1]).all()):
        return float(factor[0]) if len(factor) else 1.0, None
    return 1.0, factor
