"""From overrides to cells: Hydra composes once per choice of groups, never once per cell.

An axis over a group (``model=mlp,cnn``) changes what is composed; so does one over a key that the
configs refer to (``${width}``), and one whose values are maps or refer to others. These are composed.
All other axes are numbers and names laid over the composed config, see ``runner.grid.axes``.
"""

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString
from omegaconf import DictConfig, OmegaConf

from runner.errors import UserError
from runner.grid.axes import Axis, expand, expand_logspace
from runner.grid.cells import Cells
from runner.grid.config import EXECUTION_KEYS
from runner.grid.rules import MEASURING_RULES, shown, unknown_key

ONE_CHOICE = frozenset({"experiment", "regime"})
"""Groups that say how a sweep is run or read: they have one choice for all cells."""


def cells_of(
    loader: ConfigLoader,
    master: DictConfig,
    params: Mapping[str, Any],
    grids: Sequence[Mapping[str, Any]],
    arguments: Sequence[str],
) -> Cells:
    """Return every cell that is asked for, each once.

    Args:
        master: The config as composed from the command line, without its axes.
        params: Axes and values shared by all grids.
        grids: Axes and values of each grid, which replace those of ``params``.
        arguments: Overrides from the command line, which replace the same keys in every grid.

    Raises:
        UserError: If an axis is empty, not discrete, unknown, or holds a wrong value.
    """
    if not isinstance(params, dict):
        raise UserError(f"hydra.sweeper.params must be a map, got {shown(params)}; e.g. {{lr: '1,2'}}")
    if not isinstance(grids, list) or not all(isinstance(grid, dict) for grid in grids):
        raise UserError(f"hydra.sweeper.grids must be a list of maps, got {shown(grids)}; see params")
    typed = _by_key(_parse(loader, arguments))
    products: list[Cells] = []
    places = _Places()
    for grid in grids:
        overrides = _by_key(_parse(loader, _lines({**params, **grid}))) | typed
        products += _products(loader, master, list(overrides.values()), places)
    places.check()
    return Cells.join(products)


class _Places:
    """Where keys of groups were found: ``data=digits,xor data.dim=10`` is for those that have the key."""

    def __init__(self) -> None:
        self._found: set[str] = set()
        self._missed: dict[str, tuple[Any, set[str]]] = {}

    def has(self, config: Mapping[str, Any], axis: Axis) -> bool:
        """Return whether a config has the axis, or is to get it."""
        *parents, last = axis.key.split(".")
        place: Any = config
        for part in parents:
            place = place.get(part, {}) if isinstance(place, Mapping) else {}
        known = axis.adds or axis.key in MEASURING_RULES or not parents
        if known or (isinstance(place, Mapping) and last in place):
            self._found.add(axis.key)
            return True
        siblings = self._missed.setdefault(axis.key, (axis.values[0], set()))[1]
        siblings |= {str(key) for key in place} if isinstance(place, Mapping) else set()
        return False

    def check(self) -> None:
        """Raise UserError for a key that no choice has."""
        for key, (value, siblings) in self._missed.items():
            if key not in self._found:
                raise unknown_key(key, value, siblings - {"name", "_target_"})


def plain(config: DictConfig) -> dict[str, Any]:
    """Return a composed config as resolved plain values, without Hydra's own node."""
    return {str(key): container(config[key]) for key in config if key != "hydra"}


def container(value: Any) -> Any:
    """Return plain dicts and lists for OmegaConf's, other values as they are."""
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _lines(grid: Mapping[str, Any]) -> list[str]:
    """Write a grid of the YAML as overrides; a YAML list is the list of an axis's values."""
    lines = []
    for key, value in grid.items():
        head = re.split(r"[./]", key.lstrip("+~"))[0]
        if head in {*EXECUTION_KEYS, *ONE_CHOICE, "hydra"}:
            raise UserError(
                f"hydra.sweeper.params.{key} must be a key of a cell, got {key}={shown(value)}; "
                f"write {key} in the body of the experiment"
            )
        if value == []:
            raise UserError(f"{key} must have at least one value, got an empty axis; list its values")
        text = ",".join(map(shown, value)) if isinstance(value, list) else shown(value) if value != "" else ""
        lines.append(f"{key}={expand_logspace(str(key), text)}")
    return lines


def _parse(loader: ConfigLoader, lines: Sequence[str]) -> list[Override]:
    return OverridesParser.create(config_loader=loader).parse_overrides(list(lines))


def _by_key(overrides: Iterable[Override]) -> dict[str, Override]:
    return {override.get_key_element().lstrip("+~"): override for override in overrides}


def _products(
    loader: ConfigLoader, master: DictConfig, overrides: Sequence[Override], places: _Places
) -> Iterator[Cells]:
    fixed = [override.input_line or "" for override in overrides if not override.is_sweep_override()]
    swept = [override for override in overrides if override.is_sweep_override()]
    composed = [override for override in swept if _needs_composition(loader, override)]
    plain_swept = [override for override in swept if override not in composed]
    for choice in _product(composed):
        config = loader.load_sweep_config(master, [*fixed, *choice])
        referred = _refers_to(config)
        bound = [override for override in plain_swept if referred(override.key_or_group)]
        free = [_axis(override) for override in plain_swept if not referred(override.key_or_group)]
        for more in _product(bound):
            if more:
                config = loader.load_sweep_config(master, [*fixed, *choice, *more])
            found = plain(config)
            yield expand(found, [axis for axis in free if places.has(found, axis)])


def _needs_composition(loader: ConfigLoader, override: Override) -> bool:
    """Tell whether the axis changes what Hydra composes; raises UserError if it cannot be an axis at all."""
    key, written = override.key_or_group, override.get_value_string()
    if not override.is_discrete_sweep():
        raise UserError(
            f"{key} must be a list of values, got {written}; "
            f"write {key}=a,b or {key}=range(...) or {key}=logspace(...)"
        )
    if key in ONE_CHOICE:
        raise UserError(f"{key} must be one name, got {written}; run one sweep for each")
    choices = loader.get_group_options(key)
    values = _values(override)
    if not values:
        known = f"known: {', '.join(choices)}" if choices else "list its values"
        raise UserError(f"{key} must have at least one value, got {written}, which is empty; {known}")
    special = any(isinstance(value, (dict, list)) or "${" in str(value) for value in values)
    return bool(choices) or special or override.package is not None


def _values(override: Override) -> list[Any]:
    try:
        values = list(override.sweep_iterator())
    except ArithmeticError as error:  # range(0,1,0)
        raise UserError(
            f"{override.key_or_group} must be a list of values, got {override.get_value_string()} ({error})"
        ) from None
    return [value.text if isinstance(value, QuotedString) else value for value in values]


def _axis(override: Override) -> Axis:
    adds = override.is_add() or override.is_force_add()
    return Axis(override.key_or_group, tuple(_values(override)), adds, override.is_force_add())


def _product(overrides: Sequence[Override]) -> Iterator[list[str]]:
    """Yield every choice of values, as overrides without a sweep."""
    columns = [
        [f"{override.get_key_element()}={value}" for value in dict.fromkeys(override.sweep_string_iterator())]
        for override in overrides
    ]
    return map(list, itertools.product(*columns))


_INTERPOLATION = re.compile(r"\$\{([^${}]*)\}")
_WORD = re.compile(r"[\w-]+")


def _refers_to(config: DictConfig) -> Callable[[str], bool]:
    """Return a function that tells whether an interpolation in a cell's keys may refer to a given key.

    It may if any part of the key is a word in an interpolation, and always where one interpolation holds
    another. A key that is composed in vain costs time; a key that is not composed would get a wrong value.
    """
    keys = [str(key) for key in config if key != "hydra" and key not in EXECUTION_KEYS]
    text = OmegaConf.to_yaml(OmegaConf.masked_copy(config, keys), resolve=False)
    found = _INTERPOLATION.findall(text)
    if text.count("${") > len(found):
        return lambda key: True
    words = {word for reference in found for word in _WORD.findall(reference)}
    return lambda key: not words.isdisjoint(key.split("."))
