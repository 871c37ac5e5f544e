"""From the ``model`` section of a config to a module without cells."""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Shaped
from torch import Tensor, nn

from runner.data import Tokens
from runner.errors import UserError
from runner.grid.instantiate import call
from runner.layers import CannotLower, of_one_sample
from runner.models.torch_module import TorchModule
from runner.models.transformer import Transformer


def build(
    settings: Mapping[str, Any], *, width: int, depth: int, inputs: tuple[int, ...], outputs: int
) -> nn.Module:
    """Build the model that the ``model`` section describes.

    Returns:
        A module that maps ``[cell or 1, sample, *inputs]`` to ``[cell, sample, outputs]``, without cells.

    Raises:
        UserError: If the target cannot be found or does not take these keys, or cannot read symbols.
    """
    model: nn.Module = call("model", settings, width=width, depth=depth, inputs=inputs, outputs=outputs)
    if isinstance(inputs, Tokens):
        if is_built_in(model) and not isinstance(model, Transformer):
            raise UserError(
                f"model must read sequences of symbols, got {type(model).__name__}; use model=transformer "
                "model.causal=true model.readout=every, or model=torch"
            )
        model.register_forward_hook(_side_by_side)
    return model


def _side_by_side(model: nn.Module, given: object, outputs: Tensor) -> Tensor:
    """What a network returns at every position, ``[..., position, symbol]``, as everything else sees it."""
    return outputs.flatten(2) if outputs.dim() == 4 else outputs


def is_built_in(model: nn.Module) -> bool:
    """Say whether all that a model computes is this package's own code."""
    return type(model).__module__.startswith("runner.models.") and not isinstance(model, TorchModule)


def has_compiled_form(model: nn.Module, sample: Shaped[Tensor, "*inputs"]) -> bool:
    """Say whether compiled code takes whole steps of a model, with or without cells.

    A class derived from one of ours may compute something else.

    Args:
        sample: Any that it reads.
    """
    known: Any = model
    if not (is_built_in(model) and hasattr(model, "lower")):
        return False
    like = next(model.parameters())
    given = sample.to(like) if sample.is_floating_point() else sample
    features = known.flat(given[None, None]).shape[2]
    try:
        of_one_sample(known.lower, like, features)
    except CannotLower:
        return False
    return True
