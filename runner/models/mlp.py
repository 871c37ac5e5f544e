"""The multilayer perceptron."""

import math

from jaxtyping import Float
from torch import Tensor, nn

from runner.layers import Activation, DenseChain, Linear
from runner.models.inputs import input_scale
from runner.scaling.parameterization import Role


class MLP(nn.Module):
    """Fully connected network of ``depth`` hidden layers.

    Args:
        width: Hidden units per layer.
        depth: Hidden layers, at least 1; there are ``depth + 1`` weight matrices.
        inputs: Shape of one sample; it is flattened.
        activation: ``relu`` (times sqrt 2), ``gelu``, ``tanh``, ``erf`` or ``linear``.
        sigma_weight: Init standard deviation of a weight times sqrt(fan_in), at base width.
        normalize_input: Divide samples by sqrt(their dimension d) and draw input weights sqrt(d) larger, as
            papers on the NTK do. The function at init stays; the input layer learns d times more slowly,
            and no longer dominates the kernel.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        inputs: tuple[int, ...],
        outputs: int,
        activation: str = "relu",
        bias: bool = False,
        sigma_weight: float = 1.0,
        sigma_bias: float = 0.0,
        normalize_input: bool = False,
    ) -> None:
        super().__init__()
        dimension = math.prod(inputs)
        self.input_scale = input_scale(dimension, normalize_input)
        self.activation = Activation(activation)

        def linear(fan_in: int, fan_out: int, role: Role) -> Linear:
            sigma = sigma_weight / self.input_scale if role == "input" else sigma_weight
            return Linear(fan_in, fan_out, role, bias=bias, sigma_weight=sigma, sigma_bias=sigma_bias)

        self.hidden = nn.ModuleList(
            [linear(dimension, width, "input")] + [linear(width, width, "hidden") for _ in range(depth - 1)]
        )
        self.output = linear(width, outputs, "output")

    def forward(self, x: Float[Tensor, "#cell sample *inputs"]) -> Float[Tensor, "cell sample output"]:
        """Map samples to outputs."""
        x = self.flat(x)
        for layer in self.hidden:
            x = self.activation(layer(x))
        outputs: Tensor = self.output(x)
        return outputs

    def flat(self, x: Float[Tensor, "#cell sample *inputs"]) -> Float[Tensor, "#cell sample features"]:
        """Return what the first layer is given."""
        return x.flatten(2) * self.input_scale

    def chain(self, samples: int) -> DenseChain:
        """Return the present cells as a chain that trains without autograd, on batches of this size."""
        return DenseChain([*self.hidden, self.output], self.activation.function, samples)
