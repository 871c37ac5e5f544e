"""A module that a user brings: building it, and finding one's way in it."""

import inspect
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from runner.data import Tokens
from runner.errors import UserError, unknown
from runner.grid import instantiate


def build_module(settings: Mapping[str, Any], **given: Any) -> nn.Module:
    """Call the user's class with those of ``given`` that it takes."""
    target = instantiate.resolve("model.module", settings)
    parameters = inspect.signature(target).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        given = {name: value for name, value in given.items() if name in parameters}
    try:
        module = instantiate.call("model.module", settings, **given)
    except UserError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"model.module must be built at width {given.get('width')}, got {type(error).__name__}: "
            f"{reason}; it is built at every width and at twice that, to tell roles"
        ) from error
    if not isinstance(module, nn.Module):
        raise UserError(f"model.module._target_ must return a torch.nn.Module, got {type(module).__name__}")
    return module


def sample_of(inputs: tuple[int, ...]) -> Tensor:
    """A batch of one sample of zeros."""
    if isinstance(inputs, Tokens):
        return torch.zeros(1, inputs[0], dtype=torch.int64)
    return torch.zeros(1, *inputs, dtype=torch.float64)


def submodules_of(module: nn.Module, patterns: Sequence[str], key: str) -> list[str]:
    """Paths of the submodules that some patterns fit."""
    paths = [path for path, _ in module.named_modules() if path]
    for pattern in patterns:
        if not any(fnmatchcase(path, pattern) for path in paths):
            raise unknown(f"a pattern of model.{key}", pattern, paths)
    return [path for path in paths if any(fnmatchcase(path, pattern) for pattern in patterns)]
