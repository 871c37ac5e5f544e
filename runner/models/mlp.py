"""The multilayer perceptron."""

import math

from jaxtyping import Float
from torch import Tensor, nn

from runner.layers import Activation, DenseChain, Linear, Lowering, Value, lower_all
from runner.models.keys import layer_keys


class MLP(nn.Module):
    """Fully connected network of ``depth`` hidden layers.

    Args:
        width: Hidden units per layer.
        depth: Hidden layers, at least 1; there are ``depth + 1`` weight matrices.
        inputs: Shape of one sample; it is flattened.
    """

    def __init__(
        self, width: int, depth: int, inputs: tuple[int, ...], outputs: int, activation: str = "relu",
        bias: bool = False, sigma_weight: float = 1.0, sigma_bias: float = 0.0, normalize_input: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        features = math.prod(inputs)
        self.input_scale, first, rest = layer_keys(features, bias, sigma_weight, sigma_bias, normalize_input)
        self.activation = Activation(activation)
        self.hidden = nn.ModuleList(
            [Linear(features, width, "input", **first)]
            + [Linear(width, width, "hidden", **rest) for _ in range(depth - 1)]
        )
        self.output = Linear(width, outputs, "output", **rest)
        self.activation.feeds(*self.hidden[1:], self.output)

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

    def lower(self, lowering: Lowering, x: Value) -> Value:
        """Add all layers to compiled steps."""
        hidden = [part for layer in self.hidden for part in (layer, self.activation)]
        return lower_all((*hidden, self.output), lowering, x)
