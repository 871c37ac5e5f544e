"""The checker of jaxtyping's shapes: beartype, with ints accepted for floats as in typing.

A check looks at types, dtypes and shapes alone, never at numbers. A call whose arguments and result have
those of a call that passed is therefore not checked again: most calls of a training are alike, and checking
each took longer than computing it.
"""

import dataclasses
import functools
import operator
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
            if hasattr(thing, "__no_type_check__"):
                return checked(thing)
            if dataclasses.is_dataclass(thing) and isinstance(thing.__init__, types.FunctionType):
                if not hasattr(thing.__init__, "__wrapped__"):  # as of one that inherits it
                    thing.__init__ = choose(thing.__init__)
                return thing
            if not isinstance(thing, types.FunctionType):
                return checked(thing)
            # A function in a function is made anew in each call of that, always with the same checks.
            key = thing.__module__, thing.__qualname__, thing.__code__, str(thing.__annotations__)
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
        passed, looks = self._passed, _LOOKS

        @functools.wraps(function)
        def call(*arguments, **named):
            __tracebackhide__ = True
            given = tuple([looks[type(value)](value) for value in arguments])  # quicker than of a generator
            if named:
                given = *given, _NAMED, *named, *[looks[type(value)](value) for value in named.values()]
            if config.jaxtyping_disable or None in given:
                return self._check(function, arguments, named)
            known = passed.get(given)
            if known is None:
                result = self._check(function, arguments, named)
                passed[given] = {looks[type(result)](result)}
                return result
            result = function(*arguments, **named)
            found = looks[type(result)](result)
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


class _Looks(dict):
    """From a type to a function that returns all of a value that a check can depend on: its kind.

    None is the kind of what has to be looked at each time. A class is that of its instances, a text and a
    truth value are their own.
    """

    def __missing__(self, kind):
        if issubclass(kind, (torch.Tensor, np.ndarray)):
            look = operator.attrgetter("__class__", "dtype", "shape")
        elif kind in (str, bool):  # a Literal
            look = kind
        elif issubclass(kind, (str, type)):
            look = _itself
        elif issubclass(kind, (list, tuple)):
            look = _sequence
        elif kind is dict:
            look = _mapping
        elif issubclass(kind, Collection):
            look = _unknown
        else:
            look = type
        return self.setdefault(kind, look)


_LOOKS = _Looks()
_NAMED = object()
"""Between what was given by place and what was given by name."""


def _itself(value):
    return type(value), value


def _sequence(value):
    kinds = tuple([_LOOKS[type(one)](one) for one in value])
    return None if None in kinds else (type(value), kinds)


def _mapping(value):
    kinds = _sequence((*value, *value.values()))
    return None if kinds is None else (dict, kinds)


def _unknown(_):
    return None
