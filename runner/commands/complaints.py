"""Hydra's and OmegaConf's errors, said in one line that names the key and the remedy."""

import re
from collections.abc import Iterable, Iterator

from runner.errors import UserError, unknown
from runner.grid.config import GROUPS, TOP_KEYS
from runner.grid.rules import unknown_key

_GRAMMAR = "quote text that holds any of , ( ) [ ] { } = or spaces: key='\"a, b\"'"


def rewrite(error: BaseException) -> str:
    """Return one line for an error of Hydra or OmegaConf.

    Known kinds become ``<key> must ..., got ...; <remedy>``; others keep their text, on one line.

    Args:
        error: As Hydra raised it; its causes count too.
    """
    from hydra.errors import MissingConfigException, OverrideParseException, SearchPathException
    from omegaconf.errors import InterpolationResolutionError, MissingMandatoryValue

    chain = list(_chain(error))
    for one in chain:
        if isinstance(one, UserError):
            return str(one)
        if isinstance(one, MissingConfigException):
            return _missing_config(one)
        if isinstance(one, OverrideParseException):
            return _unreadable(one)
        if isinstance(one, SearchPathException):
            return f"--config-dir must be a folder, got {_quoted(str(one))}; check the path"
        if isinstance(one, InterpolationResolutionError):
            return f"{one.full_key} must refer to a key that exists, got {_first_line(one)}; correct the name"
        if isinstance(one, MissingMandatoryValue):
            return f"{one.full_key} must be set, got nothing; add {one.full_key}=..."
    return _composition(chain)


def from_hydra(error: BaseException) -> bool:
    """Whether Hydra or OmegaConf raised an error of Python's own kinds, as they do for some bad input."""
    step = error.__traceback__
    while step is not None and step.tb_next is not None:
        step = step.tb_next
    module = step.tb_frame.f_globals.get("__name__", "") if step is not None else ""
    return isinstance(error, (ValueError, TypeError)) and module.split(".")[0] in {"hydra", "omegaconf"}


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _missing_config(error: Exception) -> str:
    name = str(getattr(error, "missing_cfg_file", None) or "")
    group, _, choice = name.rpartition("/")
    options = getattr(error, "options", None)
    if group and options:
        remedy = "; pip install the launcher's plugin" if group == "hydra/launcher" else ""
        return f"{unknown(group, choice, options)}{remedy}"
    return f"{group or 'config'} must name a file of the config folders, got {choice or name}; check the name"


def _unreadable(error: Exception) -> str:
    override = str(getattr(error, "override", ""))
    key, equals, value = override.partition("=")
    if not equals:
        return f"{key} must be given as {key}=VALUE, got {override}; see runner sweep --help"
    text = str(error)
    if "empty choice" in text:
        return f"{key} must have at least one value, got {value}, which is empty; list its values"
    if found := re.search(r"Unknown function '(\w+)'\s+Available: (\S+)", text):
        known = [*found.group(2).split(","), "logspace"]
        return str(unknown(f"{key}: the function of an axis", found.group(1), known))
    if any(letter in value for letter in "'\""):
        return f"{key} must be a value or an axis in Hydra's syntax, got {value}; {_GRAMMAR}"
    return f"{key} must be a value or an axis in Hydra's syntax, got {value}; as text: '{key}=\"{value}\"'"


def _composition(chain: list[BaseException]) -> str:
    text = str(chain[0])
    if found := re.search(r"Could not override '([^']+)'.*To append to your config use \+(\S+)", text, re.S):
        key, written = found.groups()
        siblings = _siblings(chain) if "." in key else TOP_KEYS
        return str(unknown_key(key, written.partition("=")[2], siblings))
    if found := re.search(r"Could not override '([^']+)'", text):
        key = found.group(1)
        return f"{key} must be a group that the config has, got {key}; choose from {_names(GROUPS)}"
    if found := re.search(r"An item is already at '([^']+)'", text):
        key = found.group(1)
        return f"{key} must be new to be added with +, got a key that exists; write {key}=..."
    if found := re.search(r"Could not delete.*?'([^']+)'", text):
        return f"{found.group(1)} must exist to be deleted, got ~{found.group(1)}; check the name"
    if found := re.search(r"Sweeping over Hydra's configuration is not supported : '([^=]+)=(.*)'", text):
        return f"{found.group(1)} must be one value, got {found.group(2)}; only keys of a cell can be an axis"
    if found := re.search(r"Error merging override (\S+)", text):
        reason = _first_line(chain[1]) if len(chain) > 1 else ""
        key, _, value = found.group(1).partition("=")
        return f"{key} must fit the config, got {value}; {reason}"
    if "is not iterable" in text:
        return "a group must be given names, got a list with something else; e.g. measure=[basic,cka]"
    if "Config group override must be a string" in text:
        kind = text.split()[-1]
        return f"a group ({_names(GROUPS)}) must be given a name, got an {kind}; e.g. {GROUPS[0]}=mlp"
    return " ".join(" ".join(str(one) for one in chain if str(one)).split())


def _siblings(chain: list[BaseException]) -> list[str]:
    """Return the keys beside the one that was not found."""
    for one in chain:
        parent = getattr(one, "parent_node", None)
        if parent is not None and hasattr(parent, "keys"):
            return [str(name) for name in parent]
    return []


def _names(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def _quoted(text: str) -> str:
    found = re.search(r"'([^']*)'", text)
    return found.group(1) if found else text


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
