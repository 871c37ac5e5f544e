"""What the keys of the ``optimizer`` section must be."""

from runner.errors import UserError
from runner.grid.rules import number, shown


def below_one(key: str, value: object) -> float:
    """Return the weight of the past in a running mean, in [0, 1)."""
    rule, remedy = "a number >= 0 and < 1", f"e.g. {key}=0.9"
    found = number(key, value, rule, remedy)
    if not 0 <= found < 1:
        raise UserError(f"{key} must be {rule}, got {shown(value)}; {remedy}")
    return found


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
    rule, remedy = "a number >= 0", f"{key}=0 is none"
    found = number(key, value, rule, remedy)
    if found < 0:
        raise UserError(f"{key} must be {rule}, got {shown(value)}; {remedy}")
    return found


def positive(key: str, value: object, remedy: str) -> float:
    """Return a number > 0."""
    found = number(key, value, "a number > 0", remedy)
    if found <= 0:
        raise UserError(f"{key} must be a number > 0, got {shown(value)}; {remedy}")
    return found
