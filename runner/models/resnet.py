"""The residual convolutional network, without batch norm."""

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from runner.layers import (
    Activation,
    Branch,
    CannotLower,
    Conv2d,
    Linear,
    Lowering,
    Value,
    lower_all,
    lowered_readouts,
)
from runner.models.images import given, image_channels, pooled, readout, with_margins
from runner.models.keys import block_layers_key, layer_keys


class ResNet(nn.Module):
    """A stem, residual blocks of 3x3 convolutions, an average over positions, and a linear readout.

    Block: ``h <- h + beta W_2 * phi(W_1 * phi(h))``, or ``h <- h + beta W * phi(h)`` with one layer. With
    more than one stage the image is halved and the channels are doubled from stage to stage, by average
    pooling and a 1x1 convolution of the skip. Batch norm has no per-sample kernel, hence
    beta = 1 / sqrt(depth) in its place.

    Args:
        width: Channels of the first stage.
        depth: Blocks, at least 1; each adds its convolutions to the stem and the readout.
        inputs: Shape of one sample, (channels, height, width).
        stages: Groups of blocks with one size of image, at most ``depth``.
        depth_scaling: Whether beta is 1 / sqrt(depth) instead of 1; under a parameterization that depends on
            depth it is 1 / sqrt(base_depth), times the parameterization's factor.
        block_layers: Convolutions in a block, 1 or 2.

    Raises:
        UserError: If samples are no images, or too small, or ``block_layers`` is neither.

    References:
        He et al. (2016), "Identity Mappings in Deep Residual Networks", arXiv 1603.05027, figure 4e; roles
        and branch scale: Bordelon et al. (2024), arXiv 2309.16620.
    """

    def __init__(
        self, width: int, depth: int, inputs: tuple[int, ...], outputs: int,
        activation: str = "relu", stages: int = 1, depth_scaling: bool = True, block_layers: int = 2,
        bias: bool = False, sigma_weight: float = 1.0, sigma_bias: float = 0.0, normalize_input: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        stages = min(stages, depth)
        channels = image_channels(inputs, "resnet", [2] * (stages - 1))
        self.input_scale, first, rest = layer_keys(
            channels * 9, bias, sigma_weight, sigma_bias, normalize_input
        )
        keys = rest | {"depth_scaling": depth_scaling, "block_layers": block_layers_key(block_layers)}
        self.inputs = inputs
        self.stem = Conv2d(channels, width, "input", **first)
        self.blocks = nn.ModuleList()
        now = width
        for place in range(depth):
            wanted = width * 2 ** (place * stages // depth)
            self.blocks.append(Block(now, wanted, activation, **keys))
            now = wanted
        self.activation = Activation(activation)
        self.output = Linear(now, outputs, "output", **rest)
        self.activation.feeds(self.output)

    def forward(
        self, x: Float[Tensor, "#cell sample channel height width"]
    ) -> Float[Tensor, "cell sample output"]:
        """Map images to outputs."""
        x = self.stem(x * self.input_scale)
        for block in self.blocks:
            x = block(x)
        outputs: Tensor = self.output(readout(self.activation(x)))
        return outputs

    def flat(self, x: Float[Tensor, "#cell sample *inputs"]) -> Float[Tensor, "#cell sample features"]:
        """Return what compiled steps are given."""
        return with_margins(x * self.input_scale, self.stem.padding)

    def lower(self, lowering: Lowering, x: Value) -> Value:
        """Add all layers to compiled steps; stages, which pool, have no compiled form."""
        if any(isinstance(block, Block) and block.side > 1 for block in self.blocks):
            raise CannotLower
        parts = [self.stem, *(block.branch for block in self.blocks), self.activation]
        x = lower_all(parts, lowering, given(x, self.inputs, self.stem.padding))
        return self.output.lower(lowering, lowered_readouts.mean(lowering, x))


class Block(nn.Module):
    """One or two convolutions beside a skip connection.

    Args:
        channels_out: Channels returned; if more, the image is halved.
    """

    def __init__(
        self, channels_in: int, channels_out: int, activation: str, *,
        depth_scaling: bool, block_layers: int, **keys: Any,
    ) -> None:  # fmt: skip
        super().__init__()
        self.side = 1 if channels_in == channels_out else 2
        self.skip: nn.Module = nn.Identity()
        if self.side > 1:
            self.skip = Conv2d(channels_in, channels_out, "hidden", kernel_size=1, **keys)
        self.activation = Activation(activation)
        self.first = Conv2d(channels_in, channels_out, "hidden", **keys)
        parts = [self.activation, self.first]
        if block_layers == 2:
            self.second = Conv2d(channels_out, channels_out, "hidden", **keys)
            parts += [self.activation, self.second]
        self.activation.feeds(*parts[1::2])
        self.branch = Branch(*parts, root=depth_scaling)

    def forward(
        self, x: Float[Tensor, "cell sample channel_in height width"]
    ) -> Float[Tensor, "cell sample channel_out low narrow"]:
        """Apply the block."""
        x = pooled(x, self.side)
        outputs: Tensor = self.branch(x, self.skip(x))
        return outputs
