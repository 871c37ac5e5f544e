"""The exponents of a parameterization, read from a config."""

from collections.abc import Mapping
from typing import Any

from runner.errors import UserError
from runner.grid.rules import number, shown, unknown_key

ROLES = ("input", "hidden", "output")
_PARAMETERIZATION_KEYS = ["a", "attention", "b", "c", "depth", "name"]
_DEPTH_KEYS = ("branch", "c", "decay")
_IN_BLOCKS = ("hidden", "vector")


def read_exponents(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return the exponents of a parameterization, as numbers; YAML may write one as ``1/2``.

    Raises:
        UserError: If a key is unknown, or an exponent is missing or not a number.
    """
    for key in table:
        if key not in _PARAMETERIZATION_KEYS:
            raise unknown_key(f"parameterization.{key}", table[key], _PARAMETERIZATION_KEYS)
    families = table.get("c")
    if not isinstance(families, Mapping) or not families:
        raise UserError(
            f"parameterization.c must be a table per optimizer family, got {shown(families)}; "
            "see conf/parameterization/ntk.yaml"
        )
    read: dict[str, Any] = {
        "a": _row("parameterization.a", table.get("a"), ROLES),
        "b": _row("parameterization.b", table.get("b"), ROLES),
        "c": {str(name): _row(f"parameterization.c.{name}", row, ROLES) for name, row in families.items()},
    }
    if table.get("depth") is not None:
        read["depth"] = _in_depth(table["depth"])
    # Left out where it is absent, so that it changes no id of a cell without it.
    if "attention" in table:
        read["attention"] = number(
            "parameterization.attention", table["attention"], "an exponent", "e.g. 1/2 or 0"
        )
    return read


def _in_depth(table: Any) -> dict[str, Any]:
    """Read the exponents of the depth."""
    key, see = "parameterization.depth", "see conf/parameterization/completep.yaml"
    if not isinstance(table, Mapping):
        raise UserError(f"{key} must be a table of exponents, got {shown(table)}; {see}")
    for name in table:
        if name not in _DEPTH_KEYS:
            raise unknown_key(f"{key}.{name}", table[name], list(_DEPTH_KEYS))
    families = table.get("c")
    if not isinstance(families, Mapping) or not families:
        raise UserError(f"{key}.c must be a table per optimizer family, got {shown(families)}; {see}")
    return {
        "branch": number(f"{key}.branch", table.get("branch"), "an exponent", "e.g. 1/2 or 1"),
        "c": {str(name): _row(f"{key}.c.{name}", row, _IN_BLOCKS) for name, row in families.items()},
        "decay": number(f"{key}.decay", table.get("decay", 0), "an exponent", "e.g. 1/2 or 0"),
    }


def _row(key: str, row: Any, roles: tuple[str, ...]) -> dict[str, float]:
    if not isinstance(row, Mapping) or set(row) != set(roles):
        name = "ntk" if roles == ROLES else "completep"
        raise UserError(
            f"{key} must give an exponent for {', '.join(roles)}, got {shown(row)}; "
            f"see conf/parameterization/{name}.yaml"
        )
    return {role: number(f"{key}.{role}", row[role], "an exponent", "e.g. 1/2 or -0.5") for role in roles}
