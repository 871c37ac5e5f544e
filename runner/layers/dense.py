"""Layers that multiply by a matrix."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn

from runner.errors import unknown
from runner.grid.cell import Cell
from runner.layers.base import Call, Layer, per_cell, recording
from runner.layers.contraction import Pairing, dense_kernel
from runner.layers.lowered import Value
from runner.layers.lowering import Lowering
from runner.layers.specs import ParameterSpec
from runner.scaling.parameterization import Role, Scaling

MATRIX_ROLES: tuple[Role, ...] = ("input", "hidden", "output")


class Affine(Layer):
    """What sums over its inputs at every position: ``z_t = r^(-a) A_t w + r^(-a_bias) b``.

    Args:
        role: ``input``, ``hidden`` or ``output``: which of the two grow with width.
        bias: Whether to add a bias.
        sigma_weight: Init standard deviation of the weight times sqrt(fan_in), at base width.
        axes: Of the weight's inputs and outputs.
    """

    weight: nn.Parameter
    bias: nn.Parameter

    def __init__(
        self, shape: tuple[int, ...], fan_in: int, fan_out: int, role: Role, *, bias: bool,
        sigma_weight: float, sigma_bias: float, axes: tuple[int, int] = (0, -1),
    ) -> None:  # fmt: skip
        super().__init__()
        if role not in MATRIX_ROLES:
            raise unknown(f"role of a {type(self).__name__} layer", role, MATRIX_ROLES)
        self.declare("weight", ParameterSpec(shape, role, fan_in, sigma_weight, axes=axes))
        if bias:
            bias_role: Role = "scalar" if role == "output" else "vector"
            self.declare("bias", ParameterSpec((fan_out,), bias_role, 1, sigma_bias))

    def multiply(
        self, inputs: Float[Tensor, "#cell sample ..."], weight: Float[Tensor, "cell fan_in fan_out"]
    ) -> Float[Tensor, "cell sample ..."]:
        """Multiply the last axis by a matrix, and by r^(-a)."""
        # One product per cell: with more axes, matmul would repeat the weight for every sample.
        flat = inputs if inputs.dim() == 3 else inputs.flatten(1, -2)
        # The factor goes where there is less to multiply, forward and back.
        if flat.shape[1] > weight.shape[1]:
            outputs = flat @ self.scale("weight", weight)
        else:
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

    def lower(
        self, lowering: Lowering, x: Value, onto: Value | None = None, factor: Tensor | None = None
    ) -> Value:
        """Add the map to compiled steps; see :class:`runner.layers.Lowerable`."""
        return lowering.linear(x, self, onto, factor)


class Embedding(Affine):
    """A table with one row per token; a token is an index, or a one-hot vector.

    Nothing is summed over, so rows have standard deviation sigma whatever the size of the table.

    Args:
        sigma_weight: Init standard deviation of an entry, at base width.
        tied: Whether :meth:`read_out` may use the table as a readout, too.

    References:
        Yang et al. (2022), arXiv 2203.03466, table 8: embeddings are input weights, of unit variance.
    """

    readout_factor: Tensor

    def __init__(self, count: int, fan_out: int, *, sigma_weight: float = 1.0, tied: bool = False) -> None:
        super().__init__(
            (count, fan_out), 1, fan_out, "input", bias=False, sigma_weight=sigma_weight, sigma_bias=0.0
        )
        self.tied = tied
        if tied:
            self.register_buffer("readout_factor", torch.empty(0), persistent=False)

    def populate(self, cells: Sequence[Cell], like: Tensor) -> None:
        """Draw the table and, where it is tied, set the factor of the readout."""
        super().populate(cells, like)
        if self.tied:
            scaling = Scaling(cells)
            fan_in_base = self.specs["weight"].shape[1] / scaling.width
            factor = scaling.multiplier("output") / scaling.multiplier("input") / fan_in_base.sqrt()
            self.register_buffer("readout_factor", factor.to(like), persistent=False)

    def forward(self, x: Shaped[Tensor, "#cell sample *tokens"]) -> Float[Tensor, "cell sample ... fan_out"]:
        """Look up ``[cell or 1, sample, position]`` indices, or multiply one-hot vectors in a last axis."""
        if x.is_floating_point():
            outputs = self.multiply(x, self.weight)
            self.remember(x, outputs)
            return outputs
        outputs = self.scale("weight", self._rows(x))
        if recording():  # gradients are products of what a layer was given
            self.remember(self._one_hot(x), outputs)
        return outputs

    def cost(self, call: Call) -> tuple[int, int]:
        """Return the numbers that a call returned; a lookup multiplies nothing."""
        return call.outputs.numel(), 0

    def read_out(
        self, x: Float[Tensor, "cell sample position fan_out"]
    ) -> Float[Tensor, "cell sample position token"]:
        """Return the product of features with every row, ``r^(-a_output) / sqrt(fan_in_base) x w^T``.

        The raw table w is the embedding's, with its init and its learning rate; in the readout it has the
        multiplier of an output weight. The root of the fan-in at base width is what an untied readout has in
        its init, so that outputs start as large. A readout is a second call of the layer, on every token: its
        gradients add to those of the first, and the kernel has the products between the two.

        References:
            Press & Wolf (2017), arXiv 1608.05859; Yang et al. (2022), arXiv 2203.03466, appendix B, and
            MuSharedReadout of https://github.com/microsoft/mup.
        """
        x = x * per_cell(self.readout_factor, 4)
        if not recording():
            table = self.scale("weight", self.weight)
            outputs: Tensor = x.flatten(1, 2) @ table.mT
            return outputs.view(*x.shape[:3], -1)
        every = torch.eye(self.specs["weight"].shape[0], dtype=x.dtype, device=x.device)[None, None]
        # A copy for each sample, though all are the same: derivatives with respect to them are per sample.
        table = self.multiply(every, self.weight).expand(-1, x.shape[1], -1, -1)
        self.remember(every.expand(-1, x.shape[1], -1, -1), table)
        return x @ table.mT

    def _rows(
        self, tokens: Int64[Tensor, "#cell sample position"]
    ) -> Float[Tensor, "cell sample position _"]:
        """Copies of rows: several times as fast, forward and back, as one-hot vectors times the tables."""
        cells, count, _ = self.weight.shape
        first = torch.arange(0, cells * count, count, device=tokens.device).view(-1, 1, 1)
        return nn.functional.embedding(first + tokens, self.weight.flatten(0, 1))

    def _one_hot(
        self, tokens: Int64[Tensor, "#cell sample position"]
    ) -> Float[Tensor, "#cell sample position _"]:
        every = torch.arange(self.specs["weight"].shape[0], device=tokens.device)
        return (tokens.unsqueeze(-1) == every).to(self.weight.dtype)
