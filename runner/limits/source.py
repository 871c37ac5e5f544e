"""Where solved limits come from: a store that keeps them, or, without one, this process."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict

from runner.limits.problem import Problem
from runner.limits.solver import Limit, Sampling, solve

Source = Callable[[Problem, Sampling], Limit]
_REMEMBERED = 64
"""Limits that a process keeps in memory."""
_SOURCE: ContextVar[Source] = ContextVar("limits", default=solve)
_SOLVED: OrderedDict[str, Limit] = OrderedDict()


@contextmanager
def limits_from(source: Source) -> Iterator[None]:
    """Take limits from a source in this block."""
    token = _SOURCE.set(source)
    try:
        yield
    finally:
        _SOURCE.reset(token)


def limit_of(problem: Problem, sampling: Sampling) -> Limit:
    """Return a solved limit, of this process's memory if it was asked for before."""
    key = problem.key(asdict(sampling))
    if key not in _SOLVED:
        _SOLVED[key] = _SOURCE.get()(problem, sampling)
        if len(_SOLVED) > _REMEMBERED:
            _SOLVED.popitem(last=False)
    return _SOLVED[key]
