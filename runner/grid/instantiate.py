"""Calling what a config names with ``_target_``, with errors a user can act on."""

import difflib
import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hydra.utils import get_object

from runner.errors import UserError


def see_working_directory() -> None:
    """Let ``_target_: mymodels.Net`` find the user's own modules where the command is called."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)


def resolve(section: str, settings: Mapping[str, Any]) -> Callable[..., Any]:
    """Return the callable that ``<section>._target_`` names.

    Raises:
        UserError: If there is no target, or it cannot be imported.
    """
    target = settings.get("_target_")
    if not isinstance(target, str):
        raise UserError(
            f"{section}._target_ must name a Python callable, got {target!r}; write package.module.name"
        )
    try:
        found = get_object(target)
    except Exception as error:
        reason = str(error).strip().splitlines()[-1]
        raise UserError(
            f"{section}._target_ must be importable, got {target!r}: {reason}; check the name and PYTHONPATH"
        ) from error
    if not callable(found):
        raise UserError(f"{section}._target_ must be callable, got {target!r}; name a class or a function")
    function: Callable[..., Any] = found
    return function


def call(section: str, settings: Mapping[str, Any], **given: Any) -> Any:
    """Call the target of a config section with its other keys and what the caller gives.

    Args:
        settings: The section: ``_target_`` and keyword arguments.
        **given: Further keyword arguments, which the section may not repeat.

    Returns:
        What the target returns.

    Raises:
        UserError: If a key is unknown to the target or missing.
    """
    target = resolve(section, settings)
    keys = {key: value for key, value in settings.items() if key not in ("_target_", "name")}
    check_keys(section, target, keys, given)
    return target(**keys, **given)


def check_keys(
    section: str, target: Callable[..., Any], keys: Mapping[str, Any], given: Mapping[str, Any]
) -> None:
    """Raise UserError for a key of the section that the target does not take, or one that it lacks."""
    parameters = inspect.signature(target).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    known = [name for name in parameters if name not in given]
    for key in keys:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UserError(f"{section}.{key} must be one of {', '.join(sorted(known))}{hint}")
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in keys and name not in given:
            raise UserError(f"{section}.{name} must be given; add +{section}.{name}=...")


def partial(section: str, settings: Mapping[str, Any], **given: Any) -> functools.partial[Any]:
    """Return the target of a config section with its other keys bound.

    Args:
        **given: Names of the arguments that the caller will pass; values are not used.

    Raises:
        UserError: If a key is unknown to the target or missing.
    """
    target = resolve(section, settings)
    keys = {key: value for key, value in settings.items() if key not in ("_target_", "name")}
    check_keys(section, target, keys, given)
    return functools.partial(target, **keys)
