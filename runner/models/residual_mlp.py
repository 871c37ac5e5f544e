"""The residual multilayer perceptron."""

import math

from jaxtyping import Float
from torch import Tensor, nn

from runner.layers import Activation, Linear
from runner.models.keys import layer_keys


class ResidualMLP(nn.Module):
    """Fully connected network with a skip connection around every hidden layer but the first.

    ``h_1 = W_1 x``, ``h_(l+1) = h_l + beta W_(l+1) phi(h_l)``, ``f = W_out phi(h_L)``, with L = ``depth`` and
    beta = 1, or 1 / sqrt(L), under which the limit of infinite depth exists.

    Args:
        width: Hidden units per layer.
        depth: Hidden layers, at least 1; there are ``depth + 1`` weight matrices, as in the MLP.
        inputs: Shape of one sample; it is flattened.
        depth_scaling: Whether beta is 1 / sqrt(depth).

    References:
        Bordelon et al. (2024), "Depthwise Hyperparameter Transfer in Residual Networks", arXiv 2309.16620,
        eq. 1; Yang et al. (2024), "Tensor Programs VI", arXiv 2310.02244.
    """

    def __init__(
        self, width: int, depth: int, inputs: tuple[int, ...], outputs: int,
        activation: str = "relu", depth_scaling: bool = True,
        bias: bool = False, sigma_weight: float = 1.0, sigma_bias: float = 0.0, normalize_input: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        features = math.prod(inputs)
        self.input_scale, first, rest = layer_keys(features, bias, sigma_weight, sigma_bias, normalize_input)
        self.branch_scale = 1 / math.sqrt(depth) if depth_scaling else 1.0
        self.activation = Activation(activation)
        self.input = Linear(features, width, "input", **first)
        self.hidden = nn.ModuleList(Linear(width, width, "hidden", **rest) for _ in range(depth - 1))
        self.output = Linear(width, outputs, "output", **rest)

    def forward(self, x: Float[Tensor, "#cell sample *inputs"]) -> Float[Tensor, "cell sample output"]:
        """Map samples to outputs."""
        x = self.input(x.flatten(2) * self.input_scale)
        for layer in self.hidden:
            x = x + self.branch_scale * layer(self.activation(x))
        outputs: Tensor = self.output(self.activation(x))
        return outputs
