"""The convolutional network."""

from jaxtyping import Float
from torch import Tensor, nn

from runner.layers import (
    Activation,
    Conv2d,
    Linear,
    Lowering,
    Value,
    lower_all,
    lowered_images,
    lowered_readouts,
)
from runner.models.images import given, image_channels, pooled, readout, with_margins
from runner.models.keys import layer_keys


class CNN(nn.Module):
    """Convolutions of ``width`` channels, an average over all positions, and a linear readout.

    Args:
        width: Channels.
        depth: Convolutions, at least 1; there are ``depth + 1`` weights.
        inputs: Shape of one sample, (channels, height, width).
        kernel_size: Side of a patch.
        stride: Step of every convolution after the first.
        pool: Side of the average pooling after every convolution but the last; 1 for none.

    Raises:
        UserError: If samples are no images, or too small.

    References:
        Arora et al. (2019), "On Exact Computation with an Infinitely Wide Neural Net", arXiv 1904.11955,
        section 4.2 (CNN with global average pooling).
    """

    def __init__(
        self, width: int, depth: int, inputs: tuple[int, ...], outputs: int,
        activation: str = "relu", kernel_size: int = 3, stride: int = 1, pool: int = 1,
        bias: bool = False, sigma_weight: float = 1.0, sigma_bias: float = 0.0, normalize_input: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        channels = image_channels(inputs, "cnn", [stride * pool] * (depth - 1))
        self.input_scale, first, rest = layer_keys(
            channels * kernel_size**2, bias, sigma_weight, sigma_bias, normalize_input
        )
        self.activation = Activation(activation)
        self.pool, self.inputs, self.margin = pool, inputs, kernel_size // 2
        self.hidden = nn.ModuleList([Conv2d(channels, width, "input", kernel_size=kernel_size, **first)])
        for _ in range(depth - 1):
            self.hidden.append(Conv2d(width, width, "hidden", kernel_size=kernel_size, stride=stride, **rest))
        self.output = Linear(width, outputs, "output", **rest)
        self.activation.feeds(*self.hidden[1:], self.output)

    def forward(
        self, x: Float[Tensor, "#cell sample channel height width"]
    ) -> Float[Tensor, "cell sample output"]:
        """Map images to outputs."""
        x = x * self.input_scale
        for place, layer in enumerate(self.hidden):
            if place:
                x = pooled(x, self.pool)
            x = self.activation(layer(x))
        outputs: Tensor = self.output(readout(x))
        return outputs

    def flat(self, x: Float[Tensor, "#cell sample *inputs"]) -> Float[Tensor, "#cell sample features"]:
        """Return what compiled steps are given."""
        return with_margins(x * self.input_scale, self.margin)

    def lower(self, lowering: Lowering, x: Value) -> Value:
        """Add all layers to compiled steps."""
        x = given(x, self.inputs, self.margin)
        for place, layer in enumerate(self.hidden):
            if place and self.pool != 1:
                x = lowered_images.pool(lowering, x, self.pool)
            x = lower_all((layer, self.activation), lowering, x)
        return self.output.lower(lowering, lowered_readouts.mean(lowering, x))
