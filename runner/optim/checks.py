"""What the keys of the ``optimizer`` section must be."""

from collections.abc import Callable

from runner.errors import UserError
from runner.grid.rules import number, shown


def below_one(key: str, value: object) -> float:
    """Return the weight of the past in a running mean, in [0, 1)."""
    return _number(key, value, "a number >= 0 and < 1", f"e.g. {key}=0.9", lambda x: 0 <= x < 1)


def two_below_one(key: str, value: object) -> tuple[float, float]:
    """Return the weights of the past in two running means."""
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise UserError(f"{key} must be two numbers, got {shown(value)}; e.g. {key}=[0.9,0.999]")
    return below_one(f"{key}[0]", value[0]), below_one(f"{key}[1]", value[1])


def flag(key: str, value: object) -> bool:
    """Return true or false."""
    if not isinstance(value, bool):
        raise UserError(f"{key} must be true or false, got {shown(value)}; choose one")
    return value


def not_negative(key: str, value: object) -> float:
    """Return a number >= 0."""
    return _number(key, value, "a number >= 0", f"{key}=0 is none", lambda x: x >= 0)


def positive(key: str, value: object, remedy: str) -> float:
    """Return a number > 0."""
    return _number(key, value, "a number > 0", remedy, lambda x: x > 0)


def _number(key: str, value: object, rule: str, remedy: str, holds: Callable[[float], bool]) -> float:
    found = number(key, value, rule, remedy)
    if not holds(found):
        raise UserError(f"{key} must be {rule}, got {shown(value)}; {remedy}")
    return found
