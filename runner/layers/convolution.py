"""Convolution of images, ``[cell, sample, channel, height, width]``."""

from jaxtyping import Float
from torch import Tensor, nn

from runner.layers.dense import Affine
from runner.scaling.parameterization import Role


class Conv2d(Affine):
    """A convolution: an affine map of the patch around every position.

    All cells are one grouped convolution, whose groups are the cells. Between convolutions the memory is
    ordered sample, cell, channel, so that nothing is copied.

    Args:
        role: ``input``, ``hidden`` or ``output``: which of the two grow with width.
        padding: Zeros around the image; by default enough to keep its size at stride 1.
        bias: Whether to add a bias.
        sigma_weight: Init standard deviation of the weight times sqrt(fan_in), at base width; the fan-in is
            channels_in * kernel_size^2.
    """

    def __init__(
        self, channels_in: int, channels_out: int, role: Role, *, kernel_size: int = 3, stride: int = 1,
        padding: int | None = None, bias: bool = False, sigma_weight: float = 1.0, sigma_bias: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__(
            (channels_out, channels_in, kernel_size, kernel_size),
            channels_in * kernel_size**2,
            channels_out,
            role,
            bias=bias,
            sigma_weight=sigma_weight,
            sigma_bias=sigma_bias,
        )
        self.kernel_size, self.stride = kernel_size, stride
        self.padding = kernel_size // 2 if padding is None else padding

    def forward(
        self, x: Float[Tensor, "#cell sample channel height width"]
    ) -> Float[Tensor, "cell sample channel_out height_out width_out"]:
        """Convolve every cell's images with its kernels."""
        cells = self.weight.shape[0]
        # Images shared by all cells need no groups: all kernels see the same channels.
        groups = 1 if x.shape[0] == 1 else cells
        kernels = self.scale("weight", self.weight).flatten(0, 1)
        images = x.transpose(0, 1).flatten(1, 2)
        outputs = nn.functional.conv2d(
            images, kernels, stride=self.stride, padding=self.padding, groups=groups
        )
        samples, _, height, width = outputs.shape
        outputs = outputs.view(samples, cells, -1, height, width).transpose(0, 1)
        if self.has_bias:
            outputs = outputs + self.scale("bias", self.bias)[:, None, :, None, None]
        self.remember(x, outputs)
        return outputs

    def columns(
        self, inputs: Float[Tensor, "#cell sample channel height width"]
    ) -> Float[Tensor, "#cell sample position fan_in"]:
        """Cut the images into patches."""
        patches = nn.functional.unfold(
            inputs.flatten(0, 1), self.kernel_size, padding=self.padding, stride=self.stride
        )
        return patches.mT.reshape(*inputs.shape[:2], patches.shape[2], patches.shape[1])

    def rows(
        self, gradients: Float[Tensor, "cell output sample channel height width"]
    ) -> Float[Tensor, "cell output sample position channel"]:
        """Bring channels last, and positions to one axis."""
        return gradients.flatten(4).mT
