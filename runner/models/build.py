"""From the ``model`` section of a config to a module without cells."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from runner.grid.instantiate import call
from runner.models.torch_module import TorchModule


def build(
    settings: Mapping[str, Any], *, width: int, depth: int, inputs: tuple[int, ...], outputs: int
) -> nn.Module:
    """Build the model that the ``model`` section describes.

    Returns:
        A module that maps ``[cell or 1, sample, *inputs]`` to ``[cell, sample, outputs]``, without cells.

    Raises:
        UserError: If the target cannot be found or does not take these keys.
    """
    model: nn.Module = call("model", settings, width=width, depth=depth, inputs=inputs, outputs=outputs)
    return model


def is_built_in(model: nn.Module) -> bool:
    """Say whether all that a model computes is this package's own code."""
    return type(model).__module__.startswith("runner.models.") and not isinstance(model, TorchModule)
