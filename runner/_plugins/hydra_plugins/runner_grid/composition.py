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
from runner.grid.rules import UNNAMED_KEYS, shown, unknown_key

ONE_CHOICE = frozenset({"experiment", "regime", "refine"})
"""Groups that say how a sweep is run or read: they have one choice for all cells."""


def cells_of(
    loader: ConfigLoader,
    master: DictConfig,
    params: Mapping[str, Any],
    grids: Sequence[Mapping[str, Any]],
    arguments: Sequence[str],
    tied: Any = None,
) -> Cells:
    """Return every cell that is asked for, each once.

    Args:
        master: The config as composed from the command line, without its axes.
        params: Axes and values shared by all grids.
        grids: Axes and values of each grid, which replace those of ``params``.
        arguments: Overrides from the command line, which replace the same keys in every grid.
        tied: Groups of keys whose axes run together, in every grid that has no ``zip`` of its own.

    Raises:
        UserError: If an axis is empty, not discrete, unknown, tied to one of another length, or holds a wrong
            value.
    """
    if not isinstance(params, dict):
        raise UserError(f"hydra.sweeper.params must be a map, got {shown(params)}; e.g. {{lr: '1,2'}}")
    if not isinstance(grids, list) or not all(isinstance(grid, dict) for grid in grids):
        raise UserError(f"hydra.sweeper.grids must be a list of maps, got {shown(grids)}; see params")
    parsed = _once(_parse(loader, arguments))
    typed = _by_key(parsed)
    # What the master is composed of, unless a default is missing, which the composition of a cell refuses.
    whole = not OmegaConf.missing_keys(master.hydra.runtime.choices)
    at_hand = [one.input_line or "" for one in parsed if not one.is_sweep_override()] if whole else None
    products: list[Cells] = []
    places = _Places()
    _require_one_store(master, typed.values())
    for grid in grids:
        given = {**params, **grid}
        tied_here = ties(given.pop("zip", tied))
        overrides = _by_key(_parse(loader, _lines(given))) | typed
        products += _products(loader, master, list(overrides.values()), tied_here, places, at_hand)
    places.check()
    return Cells.join(products)


def _require_one_store(master: DictConfig, overrides: Iterable[Override]) -> None:
    """Refuse a name or a place of the store that refers to a key with several values."""
    axes = {o.key_or_group for o in overrides if o.is_discrete_sweep() and len(_values(o)) > 1}
    raw = OmegaConf.to_container(OmegaConf.masked_copy(master, ["name", "store"]), resolve=False)
    for key, text in (raw if isinstance(raw, dict) else {}).items():
        for reference in _INTERPOLATION.findall(str(text)):
            if reference in axes:
                raise UserError(
                    f"{key!s} must be one for all cells, got {text}, and {reference} has several values; "
                    "all cells of a sweep are in one store"
                )


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
        known = axis.adds or axis.key in UNNAMED_KEYS or not parents
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
                unnamed = {name.rpartition(".")[2] for name in UNNAMED_KEYS if _parent(name) == _parent(key)}
                raise unknown_key(key, value, (siblings or unnamed) - {"name", "_target_"})


def _parent(key: str) -> str:
    return key.rpartition(".")[0]


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
        prefix = "++" if key in UNNAMED_KEYS else ""
        lines.append(f"{prefix}{key}={expand_logspace(str(key), text)}")
    return lines


def _parse(loader: ConfigLoader, lines: Sequence[str]) -> list[Override]:
    return OverridesParser.create(config_loader=loader).parse_overrides(list(lines))


def _by_key(overrides: Iterable[Override]) -> dict[str, Override]:
    return {override.get_key_element().lstrip("+~"): override for override in overrides}


def _once(overrides: Sequence[Override]) -> Sequence[Override]:
    """Refuse two axes of maps under one key: the second would replace the first, not join it."""
    maps = [o for o in overrides if o.is_discrete_sweep() and any(isinstance(v, dict) for v in _values(o))]
    for place, one in enumerate(maps):
        if any(other.key_or_group == one.key_or_group for other in maps[:place]):
            raise UserError(
                f"{one.key_or_group} must be one axis, got two of maps; name the keys that vary: "
                f"{one.key_or_group}.KEY=a,b for each"
            )
    return overrides


def ties(tied: Any) -> list[list[str]]:
    """Return the groups of tied keys; a flat list is one group. UserError for anything else."""
    groups = tied or []
    if isinstance(groups, list) and all(isinstance(key, str) for key in groups):
        groups = [groups] if groups else []
    if not isinstance(groups, list) or not all(
        isinstance(group, list) and all(isinstance(key, str) for key in group) for group in groups
    ):
        raise UserError(f"zip must be a list of keys, got {shown(tied)}; e.g. zip=width,lr")
    return groups


def _together(axes: Sequence[Override], ties: Sequence[Sequence[str]]) -> list[tuple[Override, ...]]:
    """Return the axes, those that are tied as one."""
    values = {axis.key_or_group: _values(axis) for axis in axes}
    by_key = {axis.key_or_group: axis for axis in axes if len(values[axis.key_or_group]) > 1}
    seen: set[str] = set()
    for group in ties:
        for key in group:
            if key not in by_key or key in seen:
                known = f"axes ({', '.join(by_key)}), each once" if by_key else "axes"
                raise UserError(f"zip must tie {known}, got {key}; give {key} several values")
            seen.add(key)
        lengths = {key: len(values[key]) for key in group}
        if len(set(lengths.values())) > 1:
            words = ", ".join(f"{key} with {length}" for key, length in lengths.items())
            raise UserError(f"zip must tie axes of one length, got {words}; give each a value for every cell")
    alone = [(axis,) for axis in axes if axis.key_or_group not in seen]
    return [*(tuple(by_key[key] for key in group) for group in ties), *alone]


def _products(
    loader: ConfigLoader,
    master: DictConfig,
    overrides: Sequence[Override],
    ties: Sequence[Sequence[str]],
    places: _Places,
    at_hand: Sequence[str] | None,
) -> Iterator[Cells]:
    fixed = [override.input_line or "" for override in overrides if not override.is_sweep_override()]
    axes = [override for override in overrides if override.is_sweep_override()]
    needing = {one.key_or_group for one in axes if _needs_composition(loader, one)}
    swept = _together(axes, ties)
    composed = [group for group in swept if any(one.key_or_group in needing for one in group)]
    plain_swept = [group for group in swept if group not in composed]
    for choice in _product(composed):
        lines = [*fixed, *choice]
        config = master if lines == at_hand else loader.load_sweep_config(master, lines)
        referred = _refers_to(config)
        bound = [axes for axes in plain_swept if any(referred(one.key_or_group) for one in axes)]
        free = [tuple(map(_axis, axes)) for axes in plain_swept if axes not in bound]
        for more in _product(bound):
            if more:
                config = loader.load_sweep_config(master, [*fixed, *choice, *more])
            found = plain(config)
            yield expand(found, [tuple(axis for axis in axes if places.has(found, axis)) for axes in free])


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


def _product(swept: Sequence[Sequence[Override]]) -> Iterator[list[str]]:
    """Yield every choice of values, as overrides without a sweep."""
    columns = [
        dict.fromkeys(
            zip(
                *(
                    [f"{one.get_key_element()}={value}" for value in one.sweep_string_iterator()]
                    for one in axes
                ),
                strict=True,
            )
        )
        for axes in swept
    ]
    return (list(itertools.chain(*choice)) for choice in itertools.product(*columns))


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
