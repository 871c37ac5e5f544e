"""Layers whose parameters multiply or add and sum over nothing."""

from collections.abc import Iterator

from jaxtyping import Float
from torch import Tensor, nn

from runner.layers.base import Layer
from runner.layers.lowered import CannotLower, Value
from runner.layers.lowered_tokens import norm, positions
from runner.layers.lowering import Lowering
from runner.layers.specs import ParameterSpec


class LayerNorm(Layer):
    """Standardize the last axis of every sample and position, then multiply by a gain and add a bias.

    Args:
        bias: Whether to add a bias.

    References:
        Ba, Kiros & Hinton (2016), arXiv 1607.06450. Roles: Yang et al. (2022), arXiv 2203.03466, appendix B.
    """

    weight: nn.Parameter
    bias: nn.Parameter

    def __init__(self, size: int, *, bias: bool = True, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.size, self.epsilon = size, epsilon
        self.declare("weight", ParameterSpec((size,), "vector", 1, 0.0, mean=1.0))
        if bias:
            self.declare("bias", ParameterSpec((size,), "vector", 1, 0.0))

    def forward(self, x: Float[Tensor, "cell sample ... size"]) -> Float[Tensor, "cell sample ... size"]:
        """Normalize."""
        standardized = nn.functional.layer_norm(x, (self.size,), eps=self.epsilon)
        outputs = self.multiply(standardized, self.weight)
        if self.has_bias:
            bias = self.scale("bias", self.bias)
            outputs = outputs + bias.view(-1, *(1,) * (x.dim() - 2), self.size)
        self.remember(standardized, outputs)
        return outputs

    def lower(
        self, lowering: Lowering, x: Value, onto: Value | None = None, factor: Tensor | None = None
    ) -> Value:
        """Add the norm to compiled steps; see :class:`runner.layers.Lowerable`."""
        if onto is not None or factor is not None:
            raise CannotLower
        return norm(lowering, x, self, self.epsilon)

    def multiply(
        self, inputs: Float[Tensor, "#cell sample ... size"], weight: Float[Tensor, "cell size"]
    ) -> Float[Tensor, "cell sample ... size"]:
        """Multiply standardized numbers by a gain, and by r^(-a)."""
        return inputs * self.scale("weight", weight).view(-1, *(1,) * (inputs.dim() - 2), self.size)

    def jacobians(
        self,
        columns: Float[Tensor, "#cell sample position size"],
        rows: Float[Tensor, "cell output sample position size"],
    ) -> Iterator[tuple[str, Float[Tensor, "cell output sample parameter"]]]:
        """Yield the gradients of gain and bias, summed over positions."""
        yield "weight", (columns.unsqueeze(1) * rows).sum(3)
        if self.has_bias:
            yield "bias", rows.sum(3)


class Position(Layer):
    """Add a learned vector to every position.

    The vectors multiply no part of the samples but 1 at their own position, which is what the tape keeps.

    Args:
        sigma_weight: Init standard deviation of an entry, at base width.
    """

    weight: nn.Parameter

    def __init__(self, count: int, size: int, *, sigma_weight: float = 1.0) -> None:
        super().__init__()
        self.declare("weight", ParameterSpec((count, size), "input", 1, sigma_weight))

    def forward(
        self, x: Float[Tensor, "cell sample position size"]
    ) -> Float[Tensor, "cell sample position size"]:
        """Add."""
        given = x.new_ones(1).expand(1, *x.shape[1:-1], 1)
        outputs = x + self.multiply(given[:, :1], self.weight)
        self.remember(given, outputs)
        return outputs

    def lower(
        self, lowering: Lowering, x: Value, onto: Value | None = None, factor: Tensor | None = None
    ) -> Value:
        """Add the vectors in place; see :class:`runner.layers.Lowerable`."""
        return positions(lowering, x, self)

    def multiply(
        self, inputs: Float[Tensor, "#cell sample position 1"], weight: Float[Tensor, "cell position size"]
    ) -> Float[Tensor, "cell sample position size"]:
        """Multiply the vectors by r^(-a), and by what stands at their positions."""
        return inputs * self.scale("weight", weight).unsqueeze(1)

    def jacobians(
        self,
        columns: Float[Tensor, "#cell sample position 1"],
        rows: Float[Tensor, "cell output sample position size"],
    ) -> Iterator[tuple[str, Float[Tensor, "cell output sample parameter"]]]:
        """Yield the gradients, those of the outputs themselves."""
        yield "weight", rows.flatten(3)
