"""Layers that multiply by a matrix."""

from collections.abc import Iterator

from jaxtyping import Float
from torch import Tensor, nn

from runner.errors import unknown
from runner.layers.base import Call, Layer, ParameterSpec
from runner.layers.contraction import Pairing, dense_kernel
from runner.scaling.parameterization import Role

MATRIX_ROLES: tuple[Role, ...] = ("input", "hidden", "output")


class Affine(Layer):
    """What sums over its inputs at every position: ``z_t = r^(-a) A_t w + r^(-a_bias) b``.

    Args:
        role: ``input``, ``hidden`` or ``output``: which of the two grow with width.
        bias: Whether to add a bias.
        sigma_weight: Init standard deviation of the weight times sqrt(fan_in), at base width.
    """

    weight: nn.Parameter
    bias: nn.Parameter

    def __init__(
        self, shape: tuple[int, ...], fan_in: int, fan_out: int, role: Role, *, bias: bool,
        sigma_weight: float, sigma_bias: float,
    ) -> None:  # fmt: skip
        super().__init__()
        if role not in MATRIX_ROLES:
            raise unknown(f"role of a {type(self).__name__} layer", role, MATRIX_ROLES)
        self.declare("weight", ParameterSpec(shape, role, fan_in, sigma_weight))
        if bias:
            bias_role: Role = "scalar" if role == "output" else "vector"
            self.declare("bias", ParameterSpec((fan_out,), bias_role, 1, sigma_bias))

    def multiply(
        self, inputs: Float[Tensor, "#cell sample ..."], weight: Float[Tensor, "cell fan_in fan_out"]
    ) -> Float[Tensor, "cell sample ..."]:
        """Multiply the last axis by a matrix, and by r^(-a)."""
        # One product per cell: with more axes, matmul would repeat the weight for every sample.
        flat = inputs if inputs.dim() == 3 else inputs.flatten(1, -2)
        outputs = self.scale("weight", flat @ weight)
        return outputs.view(outputs.shape[0], *inputs.shape[1:-1], -1)

    def cost(self, call: Call) -> tuple[int, int]:
        """Return the numbers that a call returned, and one multiplication of each entry at every position."""
        positions = self.rows(call.outputs.unsqueeze(1)).shape[3]
        return call.outputs.numel(), positions * self.weight.numel()

    def kernel(
        self,
        columns: Float[Tensor, "#cell sample position fan_in"],
        rows: Float[Tensor, "cell output sample position fan_out"],
        pairing: Pairing,
    ) -> Float[Tensor, "cell *pair"]:
        """Return the layer's summand of the kernel by the cheapest contraction."""
        kernel = dense_kernel(columns, rows, pairing, self.kernel_factor("weight"))
        if self.has_bias:
            kernel += self.weigh("bias", pairing.gram(rows.sum(3)))
        return kernel

    def jacobians(
        self,
        columns: Float[Tensor, "#cell sample position fan_in"],
        rows: Float[Tensor, "cell output sample position fan_out"],
    ) -> Iterator[tuple[str, Float[Tensor, "cell output sample parameter"]]]:
        """Yield the gradients of weight and bias, summed over positions."""
        cells, outputs, samples, _, fan_out = rows.shape
        products = rows.new_empty(cells, outputs, samples, columns.shape[3], fan_out)
        # One output after the other: in one product the inputs, of images many times larger, would be copied
        # for each, or all gradients once.
        for product, row in zip(products.unbind(1), rows.unbind(1), strict=True):
            product.copy_(columns.mT @ row)
        yield "weight", products.flatten(3)
        if self.has_bias:
            yield "bias", rows.sum(3)


class Linear(Affine):
    """An affine map of features, ``z = r^(-a) x w + r^(-a_bias) b``, at every position.

    Args:
        role: ``input``, ``hidden`` or ``output``: which of the two grow with width.
        bias: Whether to add a bias.
        sigma_weight: Init standard deviation of the weight times sqrt(fan_in), at base width.
    """

    def __init__(
        self, fan_in: int, fan_out: int, role: Role, *, bias: bool = False, sigma_weight: float = 1.0,
        sigma_bias: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__(
            (fan_in, fan_out), fan_in, fan_out, role,
            bias=bias, sigma_weight=sigma_weight, sigma_bias=sigma_bias,
        )  # fmt: skip

    def forward(self, x: Float[Tensor, "#cell sample ..."]) -> Float[Tensor, "cell sample ..."]:
        """Apply every cell's map to the last axis of its samples."""
        outputs = self.multiply(x, self.weight)
        if self.has_bias:
            bias = self.scale("bias", self.bias)
            outputs = outputs + bias.view(-1, *(1,) * (x.dim() - 2), bias.shape[-1])
        self.remember(x, outputs)
        return outputs


class Embedding(Affine):
    """A table with one row per token; a token is an index, or a one-hot vector.

    Nothing is summed over, so rows have standard deviation sigma whatever the size of the table.

    Args:
        sigma_weight: Init standard deviation of an entry, at base width.

    References:
        Yang et al. (2022), arXiv 2203.03466, table 8: embeddings are input weights, of unit variance.
    """

    def __init__(self, count: int, fan_out: int, *, sigma_weight: float = 1.0) -> None:
        super().__init__(
            (count, fan_out), 1, fan_out, "input", bias=False, sigma_weight=sigma_weight, sigma_bias=0.0
        )

    def forward(self, x: Tensor) -> Float[Tensor, "cell sample position fan_out"]:
        """Look up ``[cell or 1, sample, position]`` indices, or multiply one-hot vectors in a last axis."""
        if not x.is_floating_point():
            x = nn.functional.one_hot(x, self.specs["weight"].shape[0]).to(self.weight.dtype)
        outputs = self.multiply(x, self.weight)
        self.remember(x, outputs)
        return outputs
