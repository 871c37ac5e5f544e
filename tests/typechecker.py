"""The checker of jaxtyping's shapes: beartype, with ints accepted for floats as in typing.

A check looks at types, dtypes and shapes alone, never at numbers. A call whose arguments and result have
those of a call that passed is therefore not checked again: most calls of a training are alike, and checking
each took longer than computing it.
"""

import functools
import types
from collections.abc import Collection

import numpy as np
import torch
from beartype import BeartypeConf, beartype
from jaxtyping import config

check = beartype(conf=BeartypeConf(is_pep484_tower=True))


def once_for_each_shape(jaxtyped):
    """Return jaxtyping's decorator, its checks made once for each kind of call of a function."""

    def decorate(*, typechecker):
        checked = jaxtyped(typechecker=typechecker)

        def choose(thing):
            skipped = not isinstance(thing, types.FunctionType) or hasattr(thing, "__no_type_check__")
            return checked(thing) if skipped else _remembering(thing, checked)

        return choose

    return decorate


def _remembering(function, checked):
    results, passed = [], {}

    # Made when they are first called: few functions are, in one process.
    @functools.cache
    def whole():
        return checked(function)

    @functools.cache
    def result_alone():
        def stand_in(*_, **__):
            return results.pop()

        # With the globals of the function, in which jaxtyping looks up what its annotations name.
        namesake = types.FunctionType(
            stand_in.__code__, function.__globals__, function.__name__, None, stand_in.__closure__
        )
        return checked(functools.update_wrapper(namesake, function))

    @functools.wraps(function)
    def call(*arguments, **named):
        __tracebackhide__ = True
        given = kind_of(arguments), kind_of(named)
        if config.jaxtyping_disable or None in given:
            return whole()(*arguments, **named)
        known = passed.get(given)
        if known is None:
            result = whole()(*arguments, **named)
            passed[given] = {kind_of(result)}
            return result
        result = function(*arguments, **named)
        found = kind_of(result)
        if found is None or found not in known:
            results.append(result)
            result_alone()(*arguments, **named)
            known.add(found)
        return result

    return call


def kind_of(value):
    """Return all of a value that a check can depend on, or None for what has to be looked at each time."""
    kind = type(value)
    return (_LOOKS.get(kind) or _look_at(kind))(value)


def _look_at(kind):
    if issubclass(kind, (torch.Tensor, np.ndarray)):
        look = _array
    elif issubclass(kind, (str, bool, type)):  # a Literal, a class
        look = _itself
    elif issubclass(kind, (list, tuple)):
        look = _sequence
    elif kind is dict:
        look = _mapping
    elif issubclass(kind, Collection):
        look = _unknown
    else:
        look = type
    return _LOOKS.setdefault(kind, look)


_LOOKS = {}


def _array(value):
    return type(value), value.dtype, value.shape


def _itself(value):
    return type(value), value


def _sequence(value):
    kinds = tuple(map(kind_of, value))
    return None if None in kinds else (type(value), kinds)


def _mapping(value):
    kinds = _sequence((*value, *value.values()))
    return None if kinds is None else (dict, kinds)


def _unknown(_):
    return None
