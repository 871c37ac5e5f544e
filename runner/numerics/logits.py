"""What attention turns into weights, caught wherever torch computes it."""

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_SOFTMAX = (torch.softmax, torch.Tensor.softmax, torch.special.softmax, functional.softmax)
_ATTENTION = inspect.signature(functional.multi_head_attention_forward)


class ListenToLogits(TorchFunctionMode):
    """Hand on the logits of every attention that is computed inside, before softmax and mask.

    A softmax counts as attention's if its input has at least three axes. Fused attention,
    ``scaled_dot_product_attention`` and ``multi_head_attention_forward``, never forms its logits: they are
    computed beside it, without its mask.

    Args:
        listen: Called with the logits ``[..., query, key]``; -inf where an earlier mask is in them.
    """

    def __init__(self, listen: Callable[[Float[Tensor, "... query key"]], None]) -> None:
        super().__init__()
        self._listen = listen

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Listen to the functions that attention is made of, and call them."""
        given: Mapping[str, Any] = kwargs or {}
        if func in _SOFTMAX:
            x = args[0] if args else given["input"]
            if x.dim() >= 3:
                self._listen(x)
        elif func is functional.scaled_dot_product_attention:
            query, key = (*args, *(given[name] for name in ("query", "key")[len(args) :]))[:2]
            scale = given.get("scale")
            if given.get("enable_gqa"):  # several query heads for each head of keys
                key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
            self._listen(query @ key.mT * (1 / math.sqrt(query.shape[-1]) if scale is None else scale))
        elif func is functional.multi_head_attention_forward:
            logits = _of_module(_ATTENTION.bind(*args, **given).arguments)
            if logits is not None:
                self._listen(logits)
        return func(*args, **given)


def _of_module(given: Mapping[str, Any]) -> Tensor | None:
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
    logits: Tensor = heads[0] @ heads[1].mT / math.sqrt(heads[0].shape[-1])
    return logits
