"""Layers of torch whose tangent kernel has a structure, each with the ensemble layer of the same kind."""

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from runner.layers import Conv2d, Embedding, Layer, LayerNorm, Linear

Map = Callable[[Tensor], Tensor]
Structured = tuple[Layer, Map, Map]
"""The ensemble layer; from what torch's is given to what it remembers; from its weight's shape to torch's."""


def same(value: Tensor) -> Tensor:
    """Return what is given."""
    return value


def structured(part: nn.Module, sigma_weight: float, sigma_bias: float) -> Structured | None:
    """Return the ensemble layer in the place of a layer of torch; None if there is none for it."""
    kind = type(part)
    maker = _MAKERS.get(kind) or _MAKERS_BY_NAME.get(f"{kind.__module__}.{kind.__qualname__}")
    return maker(part, sigma_weight, sigma_bias) if maker else None


def _linear(part: nn.Linear, sigma_weight: float, sigma_bias: float) -> Structured:
    keys = {"sigma_weight": sigma_weight, "sigma_bias": sigma_bias}
    layer = Linear(part.in_features, part.out_features, "hidden", bias=part.bias is not None, **keys)
    return layer, same, lambda value: value.mT


def _conv2d(part: nn.Conv2d, sigma_weight: float, sigma_bias: float) -> Structured | None:
    size, stride, padding = part.kernel_size, part.stride, part.padding
    plain = (
        part.groups == 1 and part.padding_mode == "zeros" and set(part.dilation) == {1}
        and not isinstance(padding, str) and all(len(set(sides)) == 1 for sides in (size, stride, padding))
    )  # fmt: skip
    if not plain:
        return None
    layer = Conv2d(
        part.in_channels, part.out_channels, "hidden", kernel_size=size[0], stride=stride[0],
        padding=int(padding[0]), bias=part.bias is not None, sigma_weight=sigma_weight, sigma_bias=sigma_bias,
    )  # fmt: skip
    return layer, same, same


def _embedding(part: nn.Embedding, sigma_weight: float, sigma_bias: float) -> Structured | None:
    if part.padding_idx is not None:
        return None
    layer = Embedding(part.num_embeddings, part.embedding_dim, sigma_weight=sigma_weight)

    def one_hot(tokens: Tensor) -> Tensor:
        return nn.functional.one_hot(tokens, part.num_embeddings).to(layer.weight.dtype)

    return layer, one_hot, same


def _layer_norm(part: nn.LayerNorm, sigma_weight: float, sigma_bias: float) -> Structured | None:
    shape = part.normalized_shape
    if len(shape) != 1:
        return None
    layer = LayerNorm(shape[0], bias=part.bias is not None, epsilon=part.eps)
    return layer, partial(_standardized, shape=shape, epsilon=part.eps), same


def _standardized(x: Tensor, shape: tuple[int, ...], epsilon: float) -> Tensor:
    return nn.functional.layer_norm(x, shape, eps=epsilon)


def _conv1d(part: nn.Module, sigma_weight: float, sigma_bias: float) -> Structured:
    """What Hugging Face's GPT-2 calls a Conv1D: a linear layer whose weight lies the other way round."""
    weight = part.get_parameter("weight")
    keys = {"sigma_weight": sigma_weight, "sigma_bias": sigma_bias}
    return Linear(weight.shape[0], weight.shape[1], "hidden", bias=True, **keys), same, same


_MAKERS: dict[type[nn.Module], Callable[..., Structured | None]] = {
    nn.Linear: _linear,
    nn.Conv2d: _conv2d,
    nn.Embedding: _embedding,
    nn.LayerNorm: _layer_norm,
}

_MAKERS_BY_NAME: dict[str, Callable[..., Structured | None]] = {"transformers.pytorch_utils.Conv1D": _conv1d}
"""Of libraries that are not imported here."""
