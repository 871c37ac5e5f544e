"""The tensor in what a module returns, whatever it returns."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves

_NAMES = ("logits", "last_hidden_state")
"""What of an object, as transformers return them, is its outputs."""


def tensor_of(returned: Any) -> Tensor | None:
    """Return the tensor that stands for what was returned: its logits, or the first of numbers, or None."""
    if isinstance(returned, Tensor) and returned.is_floating_point():
        return returned
    fields = returned if isinstance(returned, Mapping) else getattr(returned, "__dict__", {})
    named = [fields[name] for name in _NAMES if name in fields]
    leaves = tree_leaves([*named, returned, *fields.values()])
    return next((x for x in leaves if isinstance(x, Tensor) and x.is_floating_point()), None)
