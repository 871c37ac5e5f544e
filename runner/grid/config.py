"""From a composed config to a cell, without Hydra: every value checked.

A config is a plain nested dict, as YAML would give it. Everything a user can get wrong about one
number is reported here, before anything is planned, trained or written.
"""

import functools
import inspect
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from runner.errors import UserError, unknown
from runner.grid.cell import CHANGED, OPTIONAL, Cell, canonical_json, table_name
from runner.grid.rules import (
    EXECUTION_RULES,
    REFINE_RULES,
    RULES,
    SIGMA_RULES,
    STOP_RULES,
    check_value,
    number,
    shown,
    unknown_key,
)
from runner.grid.tables import read_exponents

GROUPS = ("model", "data", "optimizer", "measure", "parameterization")
"""Groups that are part of a cell."""
EXECUTION_KEYS = frozenset(EXECUTION_RULES) | {
    "name", "store", "facet", "regime", "refine", "launch", "quick", "paper",
}  # fmt: skip
"""Keys that say how and where to run: never part of a cell, never an axis."""
TOP_KEYS = (*RULES, *GROUPS, "stop", *sorted(EXECUTION_KEYS))


def conf_dir() -> Path:
    """Return the folder of the YAML files: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    packaged = package / "conf"
    return packaged if packaged.is_dir() else package.parent / "conf"


def load_thresholds(name_or_path: str | Path) -> dict[str, Any]:
    """Return the thresholds of ``conf/regime/NAME.yaml``, or of a YAML file of one's own.

    Raises:
        UserError: If there is no such name or file, or a threshold is not a number.
    """
    return {
        str(key): value if key == "name" else number(f"regime.{key}", value, "a number", "see conf/regime")
        for key, value in _load("regime", name_or_path).items()
    }


def load_exponents(name_or_path: str | Path) -> str:
    """Return the JSON of a table, of ``conf/parameterization/NAME.yaml`` or of a YAML file of one's own.

    Raises:
        UserError: If there is no such name or file, or an exponent is missing or not a number.
    """
    return canonical_json(read_exponents(_load("parameterization", name_or_path)))


def parameterizations() -> list[str]:
    """Return the names of the tables that there are."""
    return sorted(file.stem for file in (conf_dir() / "parameterization").glob("*.yaml"))


def load_experiment(name: str, folder: Path | None = None) -> Mapping[str, Any]:
    """Return ``experiment/NAME.yaml`` as it is written, of a config folder of one's own or of ``conf``.

    Raises:
        UserError: If there is none of this name, or it is no YAML.
    """
    own = folder / "experiment" / f"{name}.yaml" if folder else None
    return _load("experiment", own if own and own.is_file() else name)


def quick_words(experiment: Mapping[str, Any]) -> list[str]:
    """Return the overrides that make an experiment smaller.

    Raises:
        UserError: If they are no list of ``key=value``.
    """
    words = experiment.get("quick") or []
    if not isinstance(words, list) or not all(isinstance(word, str) and "=" in word for word in words):
        raise UserError(f"quick must be a list of key=value, got {shown(words)}; e.g. quick: [seed=range(2)]")
    return words


def _load(group: str, name_or_path: str | Path) -> Mapping[str, Any]:
    """Read a file of a group by its name, or one of one's own."""
    import yaml

    folder = conf_dir() / group
    path = Path(name_or_path)
    if path.suffix not in {".yaml", ".yml"}:
        path = folder / f"{name_or_path}.yaml"
    if not path.is_file():
        known = [file.stem for file in folder.glob("*.yaml")]
        raise unknown(group, name_or_path, [*known, "a path ending in .yaml"])
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{group} must be a YAML file, got {path}: {_one_line(error)}") from error
    if not isinstance(content, Mapping):
        raise UserError(f"{group} must be a file of `key: value` lines, got {path}")
    return content


def check_execution(config: Mapping[str, Any]) -> None:
    """Raise UserError if a key that says how and where to run has a wrong value."""
    for key in EXECUTION_RULES:
        check_value(key, _required(config, key))
    if config.get("launch") is not None:
        raise UserError(
            f"launch must not be given, got {shown(config['launch'])}; the sweep sets it for its jobs"
        )
    if config["shard"] is not None and not (config["shards"] and config["shard"] < config["shards"]):
        raise UserError(
            f"shard must be less than shards = {shown(config['shards'])}, got {shown(config['shard'])}; "
            "count from 0, e.g. shards=8 shard=$SLURM_ARRAY_TASK_ID"
        )
    for key in ("name", "store"):
        if not isinstance(config.get(key), str) or not config[key]:
            raise UserError(f"{key} must be text, got {shown(config.get(key))}; e.g. {key}=first_try")
    check_refinement(config.get("refine") or {})
    if "/" in config["name"] or config["name"] in (".", ".."):
        raise UserError(f"name must be a name, got {config['name']}; store=FOLDER chooses another place")


def check_refinement(section: Any) -> dict[str, Any]:
    """Return the checked keys of ``refine``; UserError if one is unknown or has a wrong value."""
    if not isinstance(section, Mapping):
        raise UserError(f"refine must be a group, got {shown(section)}; e.g. refine=edge")
    for key in section:
        if key != "name" and f"refine.{key}" not in REFINE_RULES:
            names = [name.partition(".")[2] for name in REFINE_RULES]
            raise unknown_key(f"refine.{key}", section[key], names)
    return {
        name.partition(".")[2]: check_value(name, section.get(name.partition(".")[2]))
        for name in REFINE_RULES
        if section
    }


_LR_FACTORS = {"lr_input": 1.0, "lr_hidden": 1.0, "lr_output": 1.0}
_DECOUPLED = {**_LR_FACTORS, "independent_decay": False}
LATER: dict[str, dict[str, Any]] = {
    "runner.models.TorchModule": {"init": "role", "roles": {}, "features": [], "branches": []},
    "runner.models.ResidualMLP": {"block_layers": 1},
    "runner.models.ResNet": {"block_layers": 2},
    **{f"runner.optim.{name}": _LR_FACTORS for name in ("SGD", "Adam")},
    **{f"runner.optim.{name}": _DECOUPLED for name in ("AdamW", "SignSGD", "Lion", "AdamAtan2", "Muon")},
}
"""Keys of a target that came later, and what they are where they are not given: then no id has them."""


def cell_from_config(config: Mapping[str, Any]) -> Cell:
    """Return the cell that a composed and resolved config describes.

    Args:
        config: Plain nested dict with the keys of ``conf/config.yaml``.

    Raises:
        UserError: If a key is unknown or missing, or a value breaks its rule.
    """
    for key in config:
        if key not in TOP_KEYS:
            raise unknown_key(str(key), config[key], TOP_KEYS)
    given = OPTIONAL | dict(config)  # a config of an older version lacks what came later
    values = {key: check_value(key, _required(given, key)) for key in RULES}
    groups = {key: _group(config, key) for key in GROUPS}
    for key in ("model", "data", "optimizer", "parameterization"):
        values[key] = _name(key, groups[key])
    settings = {key: _section(groups[key]) for key in ("model", "data", "optimizer", "measure")}
    values["sigma"] = _sigma(settings["model"])
    # Left out where it is not asked for, so that it changes no id of a cell without it.
    if not check_value("data.online", settings["data"].get("online", False)):
        settings["data"].pop("online", None)
    if stop := _stop(config.get("stop") or {}):
        settings["stop"] = stop
    table = read_exponents(groups["parameterization"])
    if "depth" not in table:
        values["base_depth"] = None  # nothing depends on it, so that it makes no other cell
    values["parameterization"] += _changes(values["parameterization"], table)
    return Cell(
        **values,
        exponents=canonical_json(table),
        settings=_settings_json(settings),
    )


def _section(group: Mapping[str, Any]) -> dict[str, Any]:
    """What a cell keeps of a group: all but its name, and later keys that have the value of before."""
    later = LATER.get(str(group.get("_target_")), {})
    return {
        key: item
        for key, item in group.items()
        if key != "name" and not (key in later and (item is None or _same(item, later[key])))
    }


_ALIKE = canonical_json({key.rpartition(".")[2]: 1 for key in SIGMA_RULES})
"""Factors that change nothing, and are left out of ids."""


def _sigma(model: dict[str, Any]) -> str | None:
    """Take the factors on the init out of the model's keys; a target that takes a ``sigma`` keeps it."""
    if "sigma" not in model or _takes_sigma(model):
        return None
    given = model.pop("sigma")
    names = [key.rpartition(".")[2] for key in SIGMA_RULES]
    if not isinstance(given, Mapping):
        raise UserError(
            f"model.sigma must be factors of {', '.join(names)}, got {shown(given)}; e.g. model.sigma.input=2"
        )
    for role, value in given.items():
        if role not in names:
            raise unknown_key(f"model.sigma.{role}", value, names)
    factors = {role: check_value(f"model.sigma.{role}", given.get(role, 1.0)) for role in names}
    text = canonical_json(factors)
    return None if text == _ALIKE else text


def _takes_sigma(model: Mapping[str, Any]) -> bool:
    """Whether a target of one's own has an argument of this name, or takes any."""
    if _ours(model):
        return False
    from runner.grid.instantiate import resolve

    parameters = inspect.signature(resolve("model", model)).parameters
    return "sigma" in parameters or any(one.kind is one.VAR_KEYWORD for one in parameters.values())


def _ours(model: Mapping[str, Any]) -> bool:
    """Whether the target is of this package."""
    return str(model.get("_target_")).startswith("runner.")


def _same(value: object, default: object) -> bool:
    """Whether a value is the default; true is not the number 1."""
    return value == default and isinstance(value, bool) == isinstance(default, bool)


def config_of_cell(cell: Cell) -> dict[str, Any]:
    """Return a config that :func:`cell_from_config` makes this cell of."""
    sections = json.loads(cell.settings)
    for group in ("model", "data", "optimizer"):
        sections[group] = {"name": getattr(cell, group), **sections[group]}
    if cell.sigma or _ours(sections["model"]):  # also where all are 1, of which a refinement may begin
        sections["model"]["sigma"] = json.loads(cell.sigma or _ALIKE)
    table = {"name": table_name(cell.parameterization), **json.loads(cell.exponents)}
    return {**{key: getattr(cell, key) for key in RULES}, **sections, "parameterization": table}


def _required(config: Mapping[str, Any], key: str) -> Any:
    if key not in config:
        raise UserError(f"{key} must be set, got nothing; restore it, see conf/config.yaml")
    return config[key]


def _group(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    group = _required(config, key)
    if not isinstance(group, Mapping):
        raise UserError(f"{key} must be a group of settings, got {shown(group)}; see conf/{key}")
    return group


def _name(key: str, group: Mapping[str, Any]) -> str:
    name = group.get("name")
    if not isinstance(name, str) or not name:
        raise UserError(f"{key}.name must be a name, got {shown(name)}; add `name: ...` to its YAML file")
    return name


def _stop(section: Any) -> dict[str, Any]:
    """Read the levels at which a cell ends; without one there is nothing to keep."""
    if not isinstance(section, Mapping):
        raise UserError(f"stop must be a group of levels, got {shown(section)}; e.g. stop.train_loss=0.01")
    for key in section:
        if f"stop.{key}" not in STOP_RULES:
            raise unknown_key(f"stop.{key}", section[key], [name.partition(".")[2] for name in STOP_RULES])
    read = {key: check_value(f"stop.{key}", value) for key, value in section.items()}
    read = {key: value for key, value in read.items() if value is not None}
    return read if read.keys() - {"every"} else {}


def _settings_json(settings: Mapping[str, Any]) -> str:
    try:
        return canonical_json(settings)
    except (ValueError, TypeError) as error:
        raise UserError(
            f"model, data, optimizer and measure must hold finite numbers, text, lists and maps, "
            f"got {_one_line(error)}; correct the value"
        ) from None


def _changes(name: str, table: Mapping[str, Any]) -> str:
    """Return what to add to the name of a table that differs from the file of this name, if there is one."""
    known = _shipped(name)
    if known is None:
        return ""
    now = dict(leaves(table))
    words = [
        f"{key}={now[key]:g}" if key in now else f"{key}=null"
        for key in {**known, **now}
        if known.get(key) != now.get(key)
    ]
    return f"{CHANGED}{' '.join(words)}" if words else ""


@functools.cache
def _shipped(name: str) -> dict[str, float] | None:
    import yaml

    path = conf_dir() / "parameterization" / f"{name}.yaml"
    if not path.is_file():
        return None
    return dict(leaves(read_exponents(yaml.safe_load(path.read_text("utf-8")))))


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested mappings under dotted keys."""
    for key, item in tree.items():
        if isinstance(item, Mapping):
            yield from leaves(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", item


def _one_line(error: object) -> str:
    return " ".join(str(error).split())
