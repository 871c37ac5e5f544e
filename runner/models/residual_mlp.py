"""The residual multilayer perceptron."""

import math

from jaxtyping import Float
from torch import Tensor, nn

from runner.layers import Activation, Linear
from runner.models.inputs import input_scale
from runner.scaling.parameterization import Role


class ResidualMLP(nn.Module):
    """Fully connected network with a skip connection around every hidden layer but the first.

    ``h_1 = W_1 x``, ``h_(l+1) = h_l + beta W_(l+1) phi(h_l)``, ``f = W_out phi(h_L)``, with L = ``depth`` and
    beta = 1, or 1 / sqrt(L), under which the limit of infinite depth exists.

    Args:
        width: Hidden units per layer.
        depth: Hidden layers, at least 1; there are ``depth + 1`` weight matrices, as in the MLP.
        inputs: Shape of one sample; it is flattened.
        activation: ``relu`` (times sqrt 2), ``gelu``, ``tanh``, ``erf`` or ``linear``.
        depth_scaling: Whether beta is 1 / sqrt(depth).
        sigma_weight: Init standard deviation of a weight times sqrt(fan_in), at base width.

    References:
        Bordelon et al. (2024), "Depthwise Hyperparameter Transfer in Residual Networks", arXiv 2309.16620,
        eq. 1; Yang et al. (2024), "Tensor Programs VI", arXiv 2310.02244.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        inputs: tuple[int, ...],
        outputs: int,
        activation: str = "relu",
        depth_scaling: bool = True,
        bias: bool = False,
        sigma_weight: float = 1.0,
        sigma_bias: float = 0.0,
        normalize_input: bool = True,
    ) -> None:
        super().__init__()
        dimension = math.prod(inputs)
        self.input_scale = input_scale(dimension, normalize_input)
        self.branch_scale = 1 / math.sqrt(depth) if depth_scaling else 1.0
        self.activation = Activation(activation)

        def linear(fan_in: int, fan_out: int, role: Role) -> Linear:
            sigma = sigma_weight / self.input_scale if role == "input" else sigma_weight
            return Linear(fan_in, fan_out, role, bias=bias, sigma_weight=sigma, sigma_bias=sigma_bias)

        self.input = linear(dimension, width, "input")
        self.hidden = nn.ModuleList([linear(width, width, "hidden") for _ in range(depth - 1)])
        self.output = linear(width, outputs, "output")

    def forward(self, x: Float[Tensor, "#cell sample *inputs"]) -> Float[Tensor, "cell sample output"]:
        """Map samples to outputs."""
        x = self.input(x.flatten(2) * self.input_scale)
        for layer in self.hidden:
            x = x + self.branch_scale * layer(self.activation(x))
        outputs: Tensor = self.output(self.activation(x))
        return outputs
