"""The residual multilayer perceptron."""

import math
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from runner.layers import Activation, Branch, Linear, Lowering, Value, lower_all
from runner.models.keys import block_layers_key, layer_keys


class ResidualMLP(nn.Module):
    """Fully connected network with skip connections.

    With one layer in a block, around every hidden layer but the first: ``h_1 = W_1 x``,
    ``h_(l+1) = h_l + beta W_(l+1) phi(h_l)``, ``f = W_out phi(h_L)``, with L = ``depth``. With two layers
    there are L blocks, ``h_(l+1) = h_l + beta V_l phi(W_l h_l)``. Beta is 1, or 1 / sqrt(L), under which the
    limit of infinite depth exists; a parameterization that depends on depth multiplies it.

    Args:
        width: Hidden units per layer.
        depth: Hidden layers, at least 1; there are ``depth + 1`` weight matrices, as in the MLP. With two
            layers in a block, blocks: there are ``2 depth + 2``.
        inputs: Shape of one sample; it is flattened.
        depth_scaling: Whether beta is 1 / sqrt(depth); under a parameterization that depends on depth it is
            1 / sqrt(base_depth), times the parameterization's factor.
        block_layers: Layers in a block, 1 or 2.

    Raises:
        UserError: If ``block_layers`` is neither.

    References:
        Bordelon et al. (2024), "Depthwise Hyperparameter Transfer in Residual Networks", arXiv 2309.16620,
        eq. 1; Yang et al. (2024), "Tensor Programs VI", arXiv 2310.02244, for blocks of one layer; Dey et al.
        (2025), arXiv 2505.01618, for those of two.
    """

    def __init__(
        self, width: int, depth: int, inputs: tuple[int, ...], outputs: int,
        activation: str = "relu", depth_scaling: bool = True, block_layers: int = 1,
        bias: bool = False, sigma_weight: float = 1.0, sigma_bias: float = 0.0, normalize_input: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        features = math.prod(inputs)
        self.input_scale, first, rest = layer_keys(features, bias, sigma_weight, sigma_bias, normalize_input)
        self.activation = Activation(activation)
        self.input = Linear(features, width, "input", **first)
        one = block_layers_key(block_layers) == 1
        self.hidden = nn.ModuleList(
            Linear(width, width, "hidden", **rest) if one else TwoLayers(width, self.activation, rest)
            for _ in range(depth - one)
        )
        before = [self.activation] if one else []
        self.branches = nn.ModuleList(Branch(*before, block, root=depth_scaling) for block in self.hidden)
        self.output = Linear(width, outputs, "output", **rest)
        self.activation.feeds(*(block if one else block.second for block in self.hidden), self.output)

    def forward(self, x: Float[Tensor, "#cell sample *inputs"]) -> Float[Tensor, "cell sample output"]:
        """Map samples to outputs."""
        x = self.input(self.flat(x))
        for branch in self.branches:
            x = branch(x)
        outputs: Tensor = self.output(self.activation(x))
        return outputs

    def flat(self, x: Float[Tensor, "#cell sample *inputs"]) -> Float[Tensor, "#cell sample features"]:
        """Return what the first layer is given."""
        return x.flatten(2) * self.input_scale

    def lower(self, lowering: Lowering, x: Value) -> Value:
        """Add all layers to compiled steps."""
        return lower_all((self.input, *self.branches, self.activation, self.output), lowering, x)


class TwoLayers(nn.Module):
    """The branch of a block of two layers, V phi(W h)."""

    def __init__(self, width: int, activation: Activation, keys: dict[str, Any]) -> None:
        super().__init__()
        self.first = Linear(width, width, "hidden", **keys)
        self.activation = activation
        self.second = Linear(width, width, "hidden", **keys)

    def forward(self, x: Float[Tensor, "cell sample width"]) -> Float[Tensor, "cell sample width"]:
        """Apply both layers."""
        outputs: Tensor = self.second(self.activation(self.first(x)))
        return outputs

    def lower(
        self, lowering: Lowering, x: Value, onto: Value | None = None, factor: Tensor | None = None
    ) -> Value:
        """Add both layers to compiled steps."""
        return lower_all((self.first, self.activation, self.second), lowering, x, onto, factor)
