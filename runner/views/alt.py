"""Altair, loaded when the first chart is drawn: half a second that a table on a terminal does not need.

Channels are written as objects, ``alt.X2("x1")``: for a bare string Altair looks through all its classes,
which takes longer than the rest of a layer.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from altair import *  # noqa: F403
else:

    def __getattr__(name: str) -> Any:
        import altair

        return getattr(altair, name)
