"""Altair, loaded when the first chart is drawn: half a second that a table on a terminal does not need.

Channels are written as objects, ``alt.X2("x1")``: for a bare string Altair looks through all its classes,
which takes longer than the rest of a layer.
"""

from functools import cache
from typing import TYPE_CHECKING, Any

from runner.numerics.processor import at_home

if TYPE_CHECKING:
    from altair import *  # noqa: F403
else:

    @cache
    def _altair() -> Any:
        with at_home():  # it asks for a home when it is loaded
            import altair

        return altair

    def __getattr__(name: str) -> Any:
        return getattr(_altair(), name)
