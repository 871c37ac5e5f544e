"""What each value of a config must be, and the messages for when it is not."""

import difflib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from runner.errors import UserError

LARGEST = 2**63
DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True, slots=True)
class Rule:
    """What the value of a key must be.

    Attributes:
        text: Completes "must be ...".
        remedy: What to do when it is not.
        read: Returns the normalized value, or raises ValueError or TypeError.
    """

    text: str
    remedy: str
    read: Callable[[Any], Any]


def _number(value: Any) -> float:
    if isinstance(value, str):  # as an environment variable is
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError
    return value


def _whole(value: Any, minimum: int) -> int:
    found = _number(value)
    if found != int(found) or found < minimum:
        raise ValueError
    return int(found)


def _above(value: Any, limit: float) -> float:
    if not limit < _number(value) < math.inf:
        raise ValueError
    return float(value)


def _between(value: Any, low: float, high: float) -> float:
    if not low <= _number(value) < high:
        raise ValueError
    return float(value)


def _positive(value: Any) -> float:
    return _above(value, 0)


def _whole_rule(minimum: int, example: str) -> Rule:
    return Rule(f"a whole number >= {minimum}", f"e.g. {example}", lambda value: _whole(value, minimum))


def _positive_rule(example: str) -> Rule:
    return Rule("a finite number > 0", f"e.g. {example}", _positive)


def _or_null(rule: Rule, remedy: str, meaning: str = "") -> Rule:
    return Rule(
        f"{rule.text}, or null{meaning}", remedy, lambda value: None if value is None else rule.read(value)
    )


def _choice_rule(*choices: str) -> Rule:
    def read(value: Any) -> str:
        if value not in choices:
            raise ValueError
        return str(value)

    return Rule(f"one of {', '.join(sorted(choices))}", "choose one of them", read)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError
    return value


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


_COUNT = _whole_rule(1, "1")

RULES: dict[str, Rule] = {
    "width": _whole_rule(1, "width=128"),
    "depth": _whole_rule(1, "depth=2"),
    "lr": _positive_rule("lr=0.1"),
    "lr_unit": _choice_rule("absolute", "sharpness"),
    "gamma": Rule(
        "a finite number > 1e-10",
        "below, even float64 cannot tell f from 0",
        lambda value: _above(value, 1e-10),
    ),
    "center_output": Rule("true or false", "e.g. center_output=true", _boolean),
    "symmetric_init": Rule(
        "true or false", "e.g. symmetric_init=true", lambda value: _boolean(value or False) or None
    ),
    "base_width": _whole_rule(1, "base_width=1"),
    "base_depth": _or_null(_COUNT, "e.g. base_depth=2", ", which is 1"),
    "seed": _whole_rule(0, "seed=0"),
    "steps": _whole_rule(1, "steps=200"),
    "batch_size": _or_null(_COUNT, "e.g. batch_size=64", " for full batch"),
    "loss": _choice_rule("mse", "cross_entropy"),
    "dtype": _choice_rule("float32", "float64", "tf32"),
    "loss_limit": _or_null(
        Rule("a finite number > 1", "", lambda value: _above(value, 1)),
        "null follows from width, gamma, lr and exponents",
    ),
}
"""The scalar keys of a cell."""

EXECUTION_RULES: dict[str, Rule] = {
    "device": _choice_rule(*DEVICES),
    "shards": _or_null(_COUNT, "null lets the planner choose"),
    "workers": _or_null(_COUNT, "null is one per core"),
    "shard": _or_null(_whole_rule(0, "0"), "null runs all of them"),
    "checkpoint_minutes": _or_null(_positive_rule("10"), "null saves a pack only when told to stop"),
    "kernel_memory_mb": _positive_rule("kernel_memory_mb=256"),
    "wait": Rule("true or false", "wait=false returns when the jobs are queued", _boolean),
    "retry": _or_null(
        _choice_rule("failed", "all"), "retry=failed trains failed cells again, retry=all every cell"
    ),
}


MEASURING_RULES: dict[str, Rule] = {
    "measure.points": _whole_rule(2, "measure.points=12"),
    "measure.spacing": _choice_rule("linear", "log"),
    "measure.every": _or_null(_whole_rule(1, "1"), "e.g. measure.every=10"),
    "measure.steps": _or_null(
        Rule("a list of whole numbers >= 0", "", lambda value: [_whole(step, 0) for step in _list(value)]),
        "e.g. measure.steps=[0,10,100]",
    ),
}
"""Which steps are measured. No file need name these keys: a list of measures has none of them."""

DATA_RULES: dict[str, Rule] = {
    "data.online": Rule("true or false", "true draws fresh samples at every step", _boolean),
}
"""How a data set is trained on, whatever it is. No file need name these keys, either."""

SIGMA_RULES: dict[str, Rule] = {
    f"model.sigma.{role}": _positive_rule(f"model.sigma.{role}=2") for role in ("input", "hidden", "output")
}
"""Factors on the init standard deviation of the weights of a role, whatever the model; likewise."""

UNNAMED_KEYS = frozenset({*MEASURING_RULES, *DATA_RULES, *SIGMA_RULES})
"""Keys of groups that exist though a file does not name them."""


STOP_RULES: dict[str, Rule] = {
    "stop.train_loss": _or_null(_positive_rule(""), "e.g. stop.train_loss=0.01"),
    "stop.train_error": _or_null(
        Rule("a number >= 0 and < 1", "", lambda value: _between(value, 0, 1)), "e.g. stop.train_error=0"
    ),
    "stop.margin": _or_null(
        Rule("a finite number", "", lambda value: _above(value, -math.inf)), "e.g. stop.margin=1"
    ),
    "stop.every": _or_null(_COUNT, "e.g. stop.every=10"),
}
"""When a cell ends before its last step; part of a cell only where it is set."""

REFINE_RULES: dict[str, Rule] = {
    "refine.along": _or_null(Rule("a key", "", _text), "e.g. refine.along=lr"),
    "refine.of": _or_null(Rule("a property or a column", "", _text), "e.g. refine.of=diverged"),
    "refine.level": _or_null(
        Rule("a finite number", "", lambda value: _above(value, -math.inf)), "e.g. refine.level=0.3"
    ),
    "refine.tolerance": Rule(
        "a finite number > 1e-5",
        "decades between two cells, e.g. refine.tolerance=0.02",
        lambda value: _above(value, 1e-5),
    ),
    "refine.most": _or_null(_COUNT, "cells beyond those of the grid, e.g. refine.most=1000"),
}
"""How a grid is refined; never part of a cell."""

_ALL = RULES | EXECUTION_RULES | MEASURING_RULES | DATA_RULES | SIGMA_RULES | STOP_RULES | REFINE_RULES


def check_value(key: str, value: Any) -> Any:
    """Return the value of a scalar key, normalized (``16.0`` is the width 16, ``1`` the lr 1.0).

    Raises:
        UserError: If the value breaks the rule of its key.
    """
    rule = _ALL[key]
    if isinstance(value, int) and value >= LARGEST:
        raise UserError(f"{key} must be less than 2^63, got {value}; tables hold no larger numbers")
    try:
        return rule.read(value)
    except (ValueError, TypeError, OverflowError):
        raise UserError(f"{key} must be {rule.text}, got {shown(value)}; {rule.remedy}") from None


def shown(value: Any) -> str:
    """Return a value as a user would write it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if value == "":
        return "nothing"
    return str(value)


def number(key: str, value: Any, rule: str, remedy: str) -> float:
    """Return a finite float from a number or from text such as ``-1/2``; UserError otherwise."""
    try:
        if isinstance(value, bool):
            raise ValueError
        number = float(Fraction(value.replace(" ", ""))) if isinstance(value, str) else float(value)
        if not math.isfinite(number):
            raise ValueError
    except (ValueError, TypeError, ZeroDivisionError, OverflowError):
        raise UserError(f"{key} must be {rule}, got {shown(value)}; {remedy}") from None
    return number


def unknown_key(key: str, value: Any, siblings: Iterable[str]) -> UserError:
    """Return the error for a config key that does not exist, with the nearest one suggested.

    Args:
        key: Dotted key, as written.
        value: What it was to be.
        siblings: Last parts of the keys that exist beside it.
    """
    parent, _, last = key.rpartition(".")
    prefix = f"{parent}." if parent else ""
    names = sorted(siblings)
    near = difflib.get_close_matches(last, names, n=1)
    known = f" ({', '.join(prefix + name for name in names)})" if names else ""
    if near:
        remedy = f"did you mean {prefix}{near[0]}?"
    elif parent:
        remedy = f"to add a new one, write +{key}={shown(value)}"
    else:
        remedy = "choose one of them"
    return UserError(f"{key} must be a known config key{known}, got {key}={shown(value)}; {remedy}")
