"""What attention turns into weights, caught wherever torch computes it."""

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_SOFTMAX = (torch.softmax, torch.Tensor.softmax, torch.special.softmax, functional.softmax)
_ATTENTION = inspect.signature(functional.multi_head_attention_forward)
_PRODUCTS = (
    torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.bmm, torch.Tensor.bmm, torch.einsum,
)  # fmt: skip
_MASKED = -1e30
"""Below this a logit is one of a mask that was added."""


class Logits(NamedTuple):
    """The logits of an attention.

    Attributes:
        values: Before the softmax; -inf, or a very negative number, where an earlier mask is in them.
        bound: The largest that each can be, factor * norm(query) * norm(key), reached where the two are
            parallel; NaN where it is not known which query and key it is made of.
    """

    values: Float[Tensor, "... query key"]
    bound: Float[Tensor, "... query key"]

    @property
    def seen(self) -> Tensor:
        """Where no mask is, ``[..., query, key]``."""
        return self.values > _MASKED


class ListenToLogits(TorchFunctionMode):
    """Hand on the logits of every attention that is computed inside, before softmax and mask.

    A softmax counts as attention's if its input has at least three axes. Fused attention,
    ``scaled_dot_product_attention`` and ``multi_head_attention_forward``, never forms its logits: they are
    computed beside it, without its mask. The query and key of a softmax are what was multiplied last, if that
    has as many numbers.

    Args:
        listen: Called with the logits.
    """

    def __init__(self, listen: Callable[[Logits], None]) -> None:
        super().__init__()
        self._listen = listen
        self._product: tuple[Any, tuple[Any, ...], Tensor] | None = None

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Listen to the functions that attention is made of, and call them."""
        given: Mapping[str, Any] = kwargs or {}
        if func in _SOFTMAX:
            x = args[0] if args else given["input"]
            if x.dim() >= 3:
                self._listen(Logits(x, self._bound(x)))
        elif func is functional.scaled_dot_product_attention:
            query, key = (*args, *(given[name] for name in ("query", "key")[len(args) :]))[:2]
            scale = given.get("scale")
            if given.get("enable_gqa"):  # several query heads for each head of keys
                key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
            self._listen(_between(query, key, 1 / math.sqrt(query.shape[-1]) if scale is None else scale))
        elif func is functional.multi_head_attention_forward:
            logits = _of_module(_ATTENTION.bind(*args, **given).arguments)
            if logits is not None:
                self._listen(logits)
        result = func(*args, **given)
        if func in _PRODUCTS:
            self._product = func, args, result
        return result

    @torch.no_grad()
    def _bound(self, logits: Tensor) -> Tensor:
        """Return how large logits can be, by the product that was taken last and the factor to it."""
        unknown = torch.full_like(logits, math.nan)
        if self._product is None:
            return unknown
        func, args, product = self._product
        factors = [x for x in args if isinstance(x, Tensor)]
        if len(factors) != 2 or product.numel() != logits.numel():
            return unknown

        def squares(of: int) -> Tensor:
            """The squared norm of one factor for each number of the product."""
            two = iter([x.square() if place == of else torch.ones_like(x) for place, x in enumerate(factors)])
            found: Tensor = func(*(next(two) if isinstance(x, Tensor) else x for x in args))
            return found.reshape(logits.shape)

        product = product.reshape(logits.shape)
        # Of a query's logits the factor is the same; what is added to them, a mask or a bias, is none.
        seen = torch.where(logits > _MASKED, logits, 0.0)
        factor = (seen * product).sum(-1, keepdim=True)
        factor = factor / torch.where(logits > _MASKED, product, 0.0).square().sum(-1, keepdim=True)
        return factor.abs() * (squares(0) * squares(1)).sqrt()


def _between(query: Tensor, key: Tensor, scale: float) -> Logits:
    """Return the logits of queries and keys, ``[..., position, feature of a head]``."""
    with torch.no_grad():
        norms = query.norm(dim=-1)[..., :, None] * key.norm(dim=-1)[..., None, :]
    return Logits(query @ key.mT * scale, norms * abs(scale))


def _of_module(given: Mapping[str, Any]) -> Logits | None:
    """Return the logits of torch's attention module from what it hands on, ``[..., head, query, key]``."""
    query, key = given["query"], given["key"]
    size = query.shape[-1]
    if given.get("use_separate_proj_weight"):
        weights = given["q_proj_weight"], given["k_proj_weight"]
    elif given["in_proj_weight"] is not None:
        weights = given["in_proj_weight"][:size], given["in_proj_weight"][size : 2 * size]
    else:
        return None
    bias = given["in_proj_bias"]
    biases = (None, None) if bias is None else (bias[:size], bias[size : 2 * size])
    # [position, batch, feature] to [batch, head, position, feature of a head]
    heads = [
        functional.linear(x, weight, b).view(*x.shape[:-1], given["num_heads"], -1).movedim(0, -2)
        for x, weight, b in zip((query, key), weights, biases, strict=True)
    ]
    return _between(heads[0], heads[1], 1 / math.sqrt(heads[0].shape[-1]))
