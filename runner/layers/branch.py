"""Residual branches, which scale with depth."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from runner.grid.cell import Cell
from runner.layers.base import Layer, per_cell
from runner.layers.lowered import CannotLower, Value
from runner.layers.lowering import Lowering, lower_all
from runner.scaling.parameterization import Scaling


class Branch(Layer):
    """Modules applied one after the other beside a skip connection, times the parameterization's factor.

    Their parameters belong to the block: they learn at the rates that the parameterization has for blocks.

    Args:
        parts: What the branch consists of, a norm at its start included. They remain modules of the block,
            under its names: a module with two paths is more than ``torch.func.functional_call`` can put back.
        root: Whether it is multiplied by 1 / sqrt(base depth) besides, see
            :meth:`runner.scaling.parameterization.Scaling.branch`.
    """

    factor: Tensor

    def __init__(self, *parts: nn.Module, root: bool = False) -> None:
        super().__init__()
        self._root = root
        self.parts = parts
        for layer in (module for part in parts for module in part.modules()):
            if isinstance(layer, Layer):
                layer.belong_to_block()
        self.register_buffer("factor", torch.empty(0), persistent=False)
        self._multiplies = True

    def populate(self, cells: Sequence[Cell], like: Tensor) -> None:
        """Set the factor of these cells."""
        factor = Scaling(cells).branch(root=self._root)
        self._multiplies = bool((factor != 1).any())
        self.register_buffer("factor", factor.to(like), persistent=False)

    def returned(self, x: Float[Tensor, "cell sample ..."]) -> Float[Tensor, "cell sample ..."]:
        """Return parts(x)."""
        for part in self.parts:
            x = part(x)
        return x

    def forward(
        self, x: Float[Tensor, "cell sample ..."], past: Float[Tensor, "cell sample ..."] | None = None
    ) -> Float[Tensor, "cell sample ..."]:
        """Return what goes past the branch, x itself if it is not given, plus factor * parts(x)."""
        returned = self.returned(x)
        if self._multiplies:
            returned = per_cell(self.factor, returned.dim()) * returned
        return (x if past is None else past) + returned

    def lower(
        self, lowering: Lowering, x: Value, onto: Value | None = None, factor: Tensor | None = None
    ) -> Value:
        """Add it to compiled steps: the last part adds to x in place."""
        if onto is not None or factor is not None or x.slope is not None:
            raise CannotLower
        return lower_all(self.parts, lowering, x.beside(), x, self.factor if self._multiplies else None)
