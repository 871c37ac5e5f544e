"""How much memory a kernel may take on its way: one setting of the process, since it changes no number."""

from collections.abc import Iterator
from contextlib import contextmanager

_bytes = 256 << 20


def kernel_bytes() -> int:
    """Return what the computation of a kernel may hold at a time beyond its result and the model."""
    return _bytes


@contextmanager
def kernel_memory(megabytes: float | None) -> Iterator[None]:
    """Set the limit for what runs inside; None leaves it as it is.

    Args:
        megabytes: Of 2^20 bytes. What needs more is done block by block, down to single probes.
    """
    global _bytes
    outer = _bytes
    if megabytes is not None:
        _bytes = int(megabytes * 2**20)
    try:
        yield
    finally:
        _bytes = outer
