"""The transformer."""

from typing import Any

from jaxtyping import Float, Shaped
from torch import Tensor, nn

from runner.data import Tokens
from runner.errors import UserError, unknown
from runner.layers import (
    Activation,
    Attention,
    Branch,
    CannotLower,
    Embedding,
    LayerNorm,
    Linear,
    Lowering,
    Position,
    Value,
    hidden,
    lower_all,
    lowered_readouts,
    lowered_tokens,
)
from runner.models.keys import layer_keys

READOUTS = ("every", "last", "mean")


class Transformer(nn.Module):
    """Pre-norm transformer with learned positions; it classifies a sequence, regresses on it or continues it.

    A sample is read as a sequence by its shape: (positions, features) as it is, an image (channels, height,
    width) as square patches, a vector as one position per coordinate. The embedding is a linear map; of
    symbols, a table. A model of language is ``causal`` with the readout ``every``.

    Args:
        width: Features of a token, d_model.
        depth: Blocks of attention and a two-layer network, at least 1.
        heads: Heads per block; they share the width evenly.
        head_size: Features of a head, in place of ``heads``: then their number grows with width.
        causal: Whether a position sees only itself and those before it.
        readout: What the readout sees: ``mean`` over positions, the ``last``, or ``every`` one by itself,
            with an equal share of the outputs for each.
        tied: Whether the readout is the table of the embedding; of symbols alone, and without a bias.
        patch_size: Side of an image's patches.
        hidden_ratio: Hidden units of a block's network over the width.

    Raises:
        UserError: If width and heads, or image and patches, do not fit, or a name is unknown.

    References:
        Vaswani et al. (2017), arXiv 1706.03762; pre-norm: Xiong et al. (2020), arXiv 2002.04745; patches:
        Dosovitskiy et al. (2021), arXiv 2010.11929; roles: Yang et al. (2022), "Tensor Programs V",
        arXiv 2203.03466, table 8 and appendix B.
    """

    def __init__(
        self, width: int, depth: int, inputs: tuple[int, ...], outputs: int,
        heads: int | None = 4, head_size: int | None = None, causal: bool = False, readout: str = "mean",
        tied: bool = False, patch_size: int = 2, hidden_ratio: int = 4, activation: str = "gelu",
        bias: bool = False, sigma_weight: float = 1.0, sigma_bias: float = 0.0, normalize_input: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        if readout not in READOUTS:
            raise unknown("model.readout", readout, READOUTS)
        self.readout = readout
        self.patch_size = patch_size
        positions, features = _sequence_shape(inputs, patch_size)
        if isinstance(inputs, Tokens) and not (causal and readout == "every"):
            raise UserError(
                f"model must predict every symbol from those before it, got causal={str(causal).lower()} and "
                f"readout={readout}; use model.causal=true model.readout=every"
            )
        if readout == "every" and outputs % positions:
            raise UserError(
                f"model.readout=every must share the outputs evenly, got {outputs} at {positions} positions; "
                "use mean or last"
            )
        self.input_scale, first, rest = layer_keys(features, bias, sigma_weight, sigma_bias, normalize_input)
        self.embedding: Embedding | Linear
        if isinstance(inputs, Tokens):
            self.embedding = Embedding(features, width, sigma_weight=sigma_weight, tied=tied)
        elif tied:
            raise UserError(
                "model.tied must be false where no symbols are embedded, got true; use data=text or untie it"
            )
        else:
            self.embedding = Linear(features, width, "input", **first)
        self.position = Position(positions, width, sigma_weight=sigma_weight)
        heads = _heads(width, heads, head_size)
        self.blocks = nn.ModuleList(
            Block(width, heads, causal, hidden_ratio, activation, rest) for _ in range(depth)
        )
        self.norm = LayerNorm(width, bias=bias)
        self.tied = tied
        if not tied:
            shares = positions if readout == "every" else 1
            self.output = Linear(width, outputs // shares, "output", **rest)

    def forward(self, x: Shaped[Tensor, "#cell sample *inputs"]) -> Float[Tensor, "cell sample output"]:
        """Map samples to outputs, those of all positions side by side."""
        if x.is_floating_point():
            x = self._sequence(x) * self.input_scale
        x = hidden(self.position(self.embedding(x)))
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        if self.readout != "every":
            x = x[:, :, -1] if self.readout == "last" else x.sum(2) / x.shape[2]
        x = hidden(x)
        outputs: Tensor = self.embedding.read_out(x) if self.tied else self.output(x)  # type: ignore[operator]
        return outputs.flatten(2)

    def flat(self, x: Shaped[Tensor, "#cell sample *inputs"]) -> Float[Tensor, "#cell sample features"]:
        """Return the sequences that the embedding is given, positions side by side."""
        if not x.is_floating_point():
            return x.to(self.position.weight)
        return (self._sequence(x) * self.input_scale).flatten(2)

    def lower(self, lowering: Lowering, x: Value) -> Value:
        """Add all layers to compiled steps; a tied readout has no compiled form."""
        if self.tied:
            raise CannotLower
        features = self.embedding.weight.shape[1]
        if isinstance(self.embedding, Embedding):
            x = Value(lowered_tokens.one_hot(lowering, x.rows, features), None)
        else:
            x = Value(x.rows.reshape(len(x.rows), -1, features), None)
        branches = [branch for block in self.blocks for branch in (block.attend, block.mix)]
        x = lowering.linear(x, self.embedding)
        x = lower_all((self.position, *branches, self.norm), lowering, x)
        if self.readout != "every":
            chosen = lowered_readouts.last if self.readout == "last" else lowered_readouts.mean
            x = chosen(lowering, x)
        return self.output.lower(lowering, x)

    def _sequence(self, x: Float[Tensor, "#cell sample *inputs"]) -> Float[Tensor, "#cell sample position _"]:
        """Read samples as sequences."""
        if x.dim() == 4:
            return x
        if x.dim() == 3:
            return x.unsqueeze(3)
        side = self.patch_size
        # [cell, sample, channel, row, y, column, x] to patches of (channel, y, x)
        rows, columns = x.shape[3] // side, x.shape[4] // side
        tiles = x.reshape(*x.shape[:3], rows, side, columns, side)
        return tiles.permute(0, 1, 3, 5, 2, 4, 6).flatten(4).flatten(2, 3)


class Block(nn.Module):
    """Attention and a two-layer network, each after a norm and beside a skip connection."""

    def __init__(
        self, width: int, heads: int, causal: bool, hidden_ratio: int, activation: str, keys: dict[str, Any]
    ) -> None:
        super().__init__()
        bias = bool(keys["bias"])
        self.attention_norm = LayerNorm(width, bias=bias)
        self.attention = Attention(width, heads, causal=causal, **keys)
        self.norm = LayerNorm(width, bias=bias)
        self.up = Linear(width, hidden_ratio * width, "hidden", **keys)
        self.activation = Activation(activation)
        self.down = Linear(hidden_ratio * width, width, "hidden", **keys)
        self.activation.feeds(self.down)
        self.attend = Branch(self.attention_norm, self.attention)
        self.mix = Branch(self.norm, self.up, self.activation, self.down)

    def forward(
        self, x: Float[Tensor, "cell sample position width"]
    ) -> Float[Tensor, "cell sample position width"]:
        """Apply the block."""
        return hidden(self.mix(hidden(self.attend(x))))


def _sequence_shape(inputs: tuple[int, ...], side: int) -> tuple[int, int]:
    """Positions and features of a sample as a sequence."""
    if len(inputs) == 1:
        return inputs[0], 1
    if len(inputs) == 2:
        return inputs[0], inputs[1]
    if len(inputs) != 3:
        raise UserError(
            f"data must hold vectors, sequences or images for model=transformer, got samples "
            f"of shape {inputs}; use other data or another model"
        )
    channels, height, width = inputs
    if side < 1 or height % side or width % side:
        raise UserError(
            f"model.patch_size must divide the image, got {side} for {height} x {width} pixels; "
            "choose a common divisor"
        )
    return height // side * (width // side), channels * side**2


def _heads(width: int, heads: int | None, head_size: int | None) -> int:
    if head_size is None:
        if heads is None:
            raise UserError("model.heads must be given if model.head_size is not; e.g. model.heads=4")
        return heads
    if width % head_size:
        raise UserError(
            f"width must be divisible by model.head_size, got width {width} and {head_size}; "
            "change one of them"
        )
    return width // head_size
