"""Multi-head self-attention."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from runner.errors import UserError
from runner.grid.cell import Cell
from runner.layers.base import Layer, per_cell
from runner.layers.dense import Linear
from runner.layers.lowered import Value
from runner.layers.lowered_tokens import attention
from runner.layers.lowering import Lowering
from runner.scaling.parameterization import Scaling


class Attention(Layer):
    """Self-attention, ``softmax(r^(-e) q k^T / sqrt(d_head)) v`` in every head.

    The exponent e is the parameterization's: 1/2 for maximal update, so that logits scale as 1 / d_head once
    queries and keys have aligned; 0 elsewhere. The layer has no parameters of its own, its four maps do.

    Args:
        size: Features of a token, also of the result.
        causal: Whether a position sees only itself and those before it.
        bias: Whether the maps have biases.
        sigma_weight: Init standard deviation of the maps' weights times sqrt(fan_in), at base width.

    Raises:
        UserError: If the features cannot be shared evenly.

    References:
        Vaswani et al. (2017), arXiv 1706.03762, section 3.2; Yang et al. (2022), arXiv 2203.03466,
        definition 4.1.
    """

    logit_factor: Tensor

    def __init__(
        self, size: int, heads: int, *, causal: bool = False, bias: bool = False, sigma_weight: float = 1.0,
        sigma_bias: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        if heads < 1 or size % heads:
            raise UserError(
                f"width must be divisible by model.heads, got width {size} and {heads} heads; "
                "change one of them"
            )
        self.heads, self.causal = heads, causal

        def linear() -> Linear:
            return Linear(size, size, "hidden", bias=bias, sigma_weight=sigma_weight, sigma_bias=sigma_bias)

        self.query, self.key, self.value, self.output = linear(), linear(), linear(), linear()
        self.register_buffer("logit_factor", torch.empty(0), persistent=False)

    def populate(self, cells: Sequence[Cell], like: Tensor) -> None:
        """Set the factor of the logits."""
        self.register_buffer("logit_factor", Scaling(cells).attention().to(like), persistent=False)

    def forward(
        self, x: Float[Tensor, "cell sample position size"]
    ) -> Float[Tensor, "cell sample position size"]:
        """Let positions attend to each other."""
        # [cell, sample, head, position, feature of a head]
        query, key, value = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(2, 3)
            for layer in (self.query, self.key, self.value)
        )
        query = query * per_cell(self.logit_factor / math.sqrt(query.shape[-1]), query.dim())
        logits = query @ key.mT
        if self.causal:
            positions = x.shape[2]
            future = torch.ones(positions, positions, dtype=torch.bool, device=x.device).triu(1)
            logits = logits.masked_fill(future, -math.inf)
        mixed: Tensor = self.output((logits.softmax(-1) @ value).transpose(2, 3).flatten(3))
        return mixed

    def lower(
        self, lowering: Lowering, x: Value, onto: Value | None = None, factor: Tensor | None = None
    ) -> Value:
        """Add all of it to compiled steps; see :class:`runner.layers.Lowerable`."""
        scale = self.logit_factor / math.sqrt(x.rows.shape[2] // self.heads)
        maps = self.query, self.key, self.value
        mixed = attention(lowering, x, maps, self.heads, scale, causal=self.causal)
        return self.output.lower(lowering, mixed, onto, factor)
