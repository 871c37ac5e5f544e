"""The multilayer perceptron."""

import math

from jaxtyping import Float
from torch import Tensor, nn

from runner.layers import Activation, CompiledChain, DenseChain, Linear
from runner.layers.activation import Nonlinearity
from runner.layers.compiled_chain import Update
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
        return DenseChain(*self._dense(), samples)

    def is_compilable(self, samples: int) -> bool:
        """Say whether :meth:`compiled_chain` can be had for batches of this size."""
        return CompiledChain.takes(*self._dense(), samples)

    def compiled_chain(self, samples: int, loss: str, update: Update) -> CompiledChain:
        """Return the present cells as a chain that takes whole steps on a loss."""
        return CompiledChain(*self._dense(), samples, loss, update)

    def _dense(self) -> tuple[list[Linear], Nonlinearity]:
        return [*self.hidden, self.output], self.activation.function
