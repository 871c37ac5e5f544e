"""Layers as steps of compiled code: forward, and back without autograd, on one block of samples.

A module says in ``lower`` what it does in these terms, and the way back follows.
What a block of samples needs is to stay in the nearest caches from its inputs to its gradients, so that a
pass over memory costs little.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from runner.layers.base import Layer, per_cell
from runner.layers.lowered import Blocks, CannotLower, Gradient, Update, Value
from runner.numerics import compiled
from runner.numerics.images import Convolve
from runner.numerics.operations import Blend, Curve, Operation, Step

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
        self.like, self.samples, self.update, self.blocks = like, samples, update, blocks
        self.forward: list[Step] = []
        self.numbers = 0
        self._pulls: list[Callable[[], Sequence[Step]]] = []
        self._spare: dict[tuple[object, ...], list[Tensor]] = {}

    def room(self, rows: int, columns: int) -> Float[Tensor, "cell row column"]:
        """Return memory of one cell for all of them, zeros: the next begins when one is done."""
        self.numbers += rows * columns
        return self.beside(rows, columns)

    def beside(self, rows: int, columns: int) -> Float[Tensor, "cell row column"]:
        """Return memory whose size does not depend on the block."""
        return self.like.new_zeros(1, rows, columns).expand(len(self.like), -1, -1)

    def back(self, pull: Callable[[], Sequence[Step]]) -> None:
        """Say what the way back of the operations so far is; it begins with what was added last."""
        self._pulls.append(pull)

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
        weight = raw(layer, "weight")
        rows, (fan_in, fan_out) = x.rows.shape[1], weight.shape[1:]
        if not compiled.takes(weight):
            raise CannotLower
        if x.shared:  # others will have added to it when its gradient is asked for
            x = self.copy(x)
        y = onto or into or Value(self.room(rows, fan_out), Gradient())
        also = None if factor is None else per_cell(factor, 3)
        common, each = common_factor(factor_of(layer, "weight"))
        name, above = layer.name, y.gradient
        assert above is not None
        add = onto is not None
        if layer.has_bias:
            bias, scale = raw(layer, "bias").unsqueeze(1), factor_of(layer, "bias")
            scale = scale if also is None else scale * also
            self.forward.append(
                Blend("itself", y.rows, bias.expand(-1, rows, -1), keep=float(add), each=scale)
            )
        self.forward.append(Operation(y.rows, x.rows, weight, common, each, also, add=add or layer.has_bias))

        def pull() -> list[Step]:
            right, steps, late = above.room, list[Step](), list[Step]()
            assert right is not None
            if x.gradient is not None:
                out, add, late = self.contribution(x, right)
                across = self.blocks.transpose(name, weight) if self.blocks else weight.mT
                back = Operation(out, right, across, common, each, also, add=add, above=x.slope)
                steps.append(back._replace(times=x.slope is not None and x.slope is not x.rows))
            if layer.has_bias:
                ones = self.like.new_ones(1, 1, rows).expand(len(weight), -1, -1)
                steps += self.learn(f"{name}.bias", (1, fan_out), ones, right, each=scale)
            steps += self.learn(
                f"{name}.weight", (fan_in, fan_out), x.rows.mT, right, factor=common, each=each, also=also
            )
            if onto is None and into is None:
                self.release(above)
            return steps + late

        self.back(pull)
        return y

    def curve(self, x: Value, name: str) -> Value:
        """Apply a nonlinearity, without its gain."""
        if name == "linear":
            return x
        if name not in CURVES or x.slope is not None or x.gradient is None:
            raise CannotLower
        last = self.forward[-1]
        if name == "relu" and isinstance(last, Operation | Convolve) and last.out is x.rows and not x.shared:
            self.forward[-1] = last._replace(rectify=True)
            return Value(x.rows, x.gradient, x.rows, image=x.image)
        room = self.room(*x.rows.shape[1:])
        # Functions of 0 are 0, their derivatives not: margins of images stay zero.
        out, slope = (room, x.rows) if x.image is None else (x.rows, room)
        if x.shared:
            out, slope = room, self.room(*x.rows.shape[1:])
        self.forward.append(Curve(name, out, x.rows, slope))
        return Value(out, x.gradient, slope, image=x.image)

    def copy(self, x: Value) -> Value:
        """Keep numbers that will be overwritten before their gradient is asked for."""
        kept = self.room(*x.rows.shape[1:])
        self.forward.append(Blend("itself", kept, x.rows, keep=0.0))
        return Value(kept, x.gradient, x.slope, image=x.image)

    def contribution(self, x: Value, right: Tensor) -> tuple[Tensor, bool, list[Step]]:
        """Do as :meth:`contribute` while ``right`` is read: what has to be added to it is so later."""
        out, add = self.contribute(x)
        if out is not right:
            return out, add, []
        aside = self.room(*x.rows.shape[1:])
        return aside, False, [Blend("itself", right, aside)]

    def contribute(self, x: Value) -> tuple[Tensor, bool]:
        """Return where a contribution to a gradient goes, and whether it is added to others."""
        assert x.gradient is not None
        if x.gradient.room is None:
            # Margins of images are zero, and stay so.
            kind = *x.rows.shape[1:], x.image
            spare = self._spare.get(kind)
            x.gradient.room = spare.pop() if spare else self.room(*x.rows.shape[1:])
            x.gradient.kind = kind
        begun, x.gradient.begun = x.gradient.begun, True
        return x.gradient.room, begun

    def release(self, gradient: Gradient) -> None:
        """Let others use the room of a gradient that nothing needs any more."""
        if gradient.room is not None and gradient.kind is not None:
            self._spare.setdefault(gradient.kind, []).append(gradient.room)

    def gradient_room(self, path: str, shape: tuple[int, int]) -> Float[Tensor, "cell row column"]:
        """Return room for the gradient of a parameter, the same for all blocks."""
        if self.blocks is None:
            return self.beside(*shape)
        if path not in self.blocks.sums:
            self.blocks.sums[path] = self.beside(*shape)
        return self.blocks.sums[path]

    def learn(
        self, path: str, shape: tuple[int, int], left: Tensor, right: Tensor, *, factor: float = 1.0,
        each: Tensor | None = None, also: Tensor | None = None,
    ) -> Sequence[Step]:  # fmt: skip
        """Return what is done with the gradient of a parameter, ``factor * each * also * left @ right``."""
        product = Operation(self.gradient_room(path, shape), left, right, factor, each, also)
        if self.update is None:
            return [product._replace(sums=True)]
        return self.update.product(path, product)

    def take(self, path: str, gradient: Tensor) -> Sequence[Step]:
        """Return what is done with a gradient that is there; with those of blocks, later."""
        return [] if self.update is None else self.update.formed(path, gradient)


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


def raw(layer: Layer, name: str) -> Float[Tensor, "cell ..."]:
    """Return a parameter as it is stored, without its factor; steps change it in place."""
    parameter: Tensor = getattr(layer, name)
    return parameter.detach()


def factor_of(layer: Layer, name: str) -> Float[Tensor, "cell 1 1"]:
    """Return the factor of a parameter, r^(-a), and that of the activation that feeds a weight."""
    factor: Tensor = getattr(layer, f"{name}_multiplier")
    return per_cell(factor * layer.gain if name == "weight" else factor, 3)


def common_factor(factor: Float[Tensor, "cell 1 1"]) -> tuple[float, Tensor | None]:
    """Return a factor that all cells share, or 1 and the cells' own."""
    if bool((factor == factor[:1]).all()):
        return float(factor[0]) if len(factor) else 1.0, None
    return 1.0, factor
