"""The checker of jaxtyping's shapes: beartype, with ints accepted for floats as in typing.

A check looks at types, dtypes and shapes alone, never at numbers. A call whose arguments and result have
those of a call that passed is therefore not checked again: most calls of a training are alike, and checking
each took longer than computing it.
"""

import functools
import threading
import types
from collections.abc import Collection

import numpy as np
import torch
from beartype import BeartypeConf, beartype
from jaxtyping import config

check = beartype(conf=BeartypeConf(is_pep484_tower=True))


def once_for_each_shape(jaxtyped):
    """Return jaxtyping's decorator, its checks made once for each kind of call of a function."""
    checks = {}

    def decorate(*, typechecker):
        checked = jaxtyped(typechecker=typechecker)

        def choose(thing):
            if not isinstance(thing, types.FunctionType) or hasattr(thing, "__no_type_check__"):
                return checked(thing)
            # A function in a function is made anew in each call of that, always with the same checks.
            key = thing.__code__, str(thing.__annotations__)
            found = checks.get(key) or checks.setdefault(key, _Checks(thing, checked))
            return found.around(thing)

        return choose

    return decorate


class _Checks:
    """The checks of a function, and the kinds of calls that passed them."""

    def __init__(self, function, checked):
        self._function, self._checked = function, checked
        self._passed = {}
        self._local = threading.local()

    def around(self, function):
        passed = self._passed

        @functools.wraps(function)
        def call(*arguments, **named):
            __tracebackhide__ = True
            given = kind_of(arguments), kind_of(named)
            if config.jaxtyping_disable or None in given:
                return self._check(function, arguments, named)
            known = passed.get(given)
            if known is None:
                result = self._check(function, arguments, named)
                passed[given] = {kind_of(result)}
                return result
            result = function(*arguments, **named)
            found = kind_of(result)
            if found is None or found not in known:
                self._check(lambda *_, **__: result, arguments, named)
                known.add(found)
            return result

        return call

    def _check(self, function, arguments, named):
        """Call a function with the checks of arguments and result."""
        __tracebackhide__ = True
        stack = self._local.__dict__.setdefault("stack", [])
        depth = len(stack)
        stack.append(function)
        try:
            return self._whole(*arguments, **named)
        finally:
            del stack[depth:]  # still there if the arguments did not pass

    @functools.cached_property
    def _whole(self):
        """The checks around whatever is to be called; made when first needed, as few are in one process."""
        local, function = self._local, self._function

        def stand_in(*arguments, **named):
            return local.stack.pop()(*arguments, **named)

        # With the globals of the function, in which jaxtyping looks up what its annotations name.
        namesake = types.FunctionType(
            stand_in.__code__, function.__globals__, function.__name__, None, stand_in.__closure__
        )
        return self._checked(functools.update_wrapper(namesake, function))


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
