"""Convolution of images, ``[cell, sample, channel, height, width]``."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import grad

from runner.layers.base import recording
from runner.layers.dense import Affine
from runner.layers.lowered import CannotLower, Value
from runner.layers.lowered_images import convolution
from runner.layers.lowering import Lowering
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
            axes=(1, 0),
        )
        self.kernel_size, self.stride = kernel_size, stride
        self.padding = kernel_size // 2 if padding is None else padding

    def forward(
        self, x: Float[Tensor, "#cell sample channel height width"]
    ) -> Float[Tensor, "cell sample channel_out height_out width_out"]:
        """Convolve every cell's images with its kernels."""
        outputs = self.multiply(x, self.weight)
        if self.has_bias:
            outputs = outputs + self.scale("bias", self.bias)[:, None, :, None, None]
        self.remember(x, outputs)
        return outputs

    def multiply(
        self,
        inputs: Float[Tensor, "#cell sample channel height width"],
        weight: Float[Tensor, "cell channel_out channel size size"],
    ) -> Float[Tensor, "cell sample channel_out height_out width_out"]:
        """Convolve with kernels, times r^(-a)."""
        cells = weight.shape[0]
        # Images shared by all cells need no groups: all kernels see the same channels.
        groups = 1 if inputs.shape[0] == 1 else cells
        kernels = self.scale("weight", weight).flatten(0, 1)
        images = inputs.transpose(0, 1).flatten(1, 2)
        keys = self.stride, self.padding
        if recording():
            outputs = convolve(images, kernels, *keys, groups)
        else:
            outputs = nn.functional.conv2d(images, kernels, None, *keys, 1, groups)
        samples, _, height, width = outputs.shape
        return outputs.view(samples, cells, -1, height, width).transpose(0, 1)

    def lower(
        self, lowering: Lowering, x: Value, onto: Value | None = None, factor: Tensor | None = None
    ) -> Value:
        """Add the convolution to compiled steps, if it keeps sides; see :class:`runner.layers.Lowerable`."""
        if self.stride != 1 or self.kernel_size % 2 == 0 or self.padding != self.kernel_size // 2:
            raise CannotLower
        return convolution(lowering, x, self, self.kernel_size, onto, factor)

    def columns(
        self, inputs: Float[Tensor, "#cell sample channel height width"]
    ) -> Float[Tensor, "#cell sample position fan_in"]:
        """Cut the images into patches."""
        # As views whose copy is the only one: four times as fast as torch's unfold on the CPU.
        padded = nn.functional.pad(inputs, (self.padding,) * 4)
        patches = padded.unfold(3, self.kernel_size, self.stride).unfold(4, self.kernel_size, self.stride)
        patches = patches.permute(0, 1, 2, 5, 6, 3, 4).flatten(2, 4).flatten(3)
        return patches.mT

    def rows(
        self, gradients: Float[Tensor, "cell output sample channel height width"]
    ) -> Float[Tensor, "cell output sample position channel"]:
        """Bring channels last, and positions to one axis."""
        return gradients.flatten(4).mT


class _OfImages(torch.autograd.Function):
    """A convolution that leaves the gradient of its kernels to :class:`_OfKernels`.

    The second derivative that torch has for a convolution always computes the gradient of the kernels, which
    a product with a Jacobian has no use for: two fifths of its time. Here autograd passes over what nobody
    asked for, since each gradient is a node of its own, and a convolution itself.
    """

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, kernels: Tensor, moved: Tensor, stride: int, padding: int, groups: int
    ) -> Tensor:
        ctx.save_for_backward(images, kernels)
        ctx.keys = stride, padding, groups
        return nn.functional.conv2d(images, kernels, None, stride, padding, 1, groups)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,), (images, kernels) = gradients, ctx.saved_tensors
        if not ctx.needs_input_grad[0]:
            return None, None, gradient, None, None, None
        stride, padding, groups = ctx.keys
        sides = zip(images.shape[2:], gradient.shape[2:], kernels.shape[2:], strict=True)
        beyond = [side - ((count - 1) * stride - 2 * padding + size) for side, count, size in sides]
        back = nn.functional.conv_transpose2d(gradient, kernels, None, stride, padding, beyond, groups)
        return back, None, gradient, None, None, None


class _OfKernels(torch.autograd.Function):
    """Zero, of the shape of a convolution's outputs, with the gradient of the kernels.

    Autograd does not see images in a tuple: no way to what lies before them leads through here.
    """

    @staticmethod
    def forward(
        ctx: Any, kernels: Tensor, given: tuple[Tensor], stride: int, padding: int, groups: int
    ) -> Tensor:
        (images,) = given
        ctx.save_for_backward(kernels, images)
        ctx.keys = stride, padding, 1, groups
        size = kernels.shape[2]
        sides = [(side + 2 * padding - size) // stride + 1 for side in images.shape[2:]]
        return kernels.new_zeros(1).expand(images.shape[0], kernels.shape[0], *sides)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        kernels, images = ctx.saved_tensors
        moved = grad.conv2d_weight(  # type: ignore[no-untyped-call]
            images, kernels.shape, *gradients, *ctx.keys
        )
        return moved, None, None, None, None


def convolve(images: Tensor, kernels: Tensor, *keys: int) -> Tensor:
    """As torch's, and derivatives of its gradients cost no more than what is asked for."""
    moved = _OfKernels.apply(kernels, (images,), *keys)  # type: ignore[no-untyped-call]
    outputs: Tensor = _OfImages.apply(images, kernels, moved, *keys)  # type: ignore[no-untyped-call]
    return outputs
