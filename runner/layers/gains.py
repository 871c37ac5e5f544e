"""Gains of activations in the weights that they feed: less to multiply in a step."""

from collections.abc import Iterator
from contextlib import contextmanager

_in_weights = False


@contextmanager
def gains_in_weights() -> Iterator[None]:
    """Have weights multiplied by the gains of activations that feed them, see :meth:`Activation.feeds`.

    For a pass of which nothing but the outputs is asked: features lack their gain.
    """
    global _in_weights
    outer, _in_weights = _in_weights, True
    try:
        yield
    finally:
        _in_weights = outer


def gains_are_in_weights() -> bool:
    """Say whether weights have the gains of activations in the present forward pass."""
    return _in_weights
