"""runner: phase diagrams of lazy and feature-learning training.

``runner.load(path)`` opens a store: ``.cells``, ``.trace`` and ``.layers`` are pandas DataFrames,
``.phase()``, ``.fit()``, ``.curves()`` and ``.transfer()`` give tables and Altair charts, ``.report()``
writes the page. ``runner.coordinate_check`` tells whether a plain torch module is mu-P. The rest is reached
through the ``runner`` command.
"""

from typing import TYPE_CHECKING, Any

from runner.version import __version__

__all__ = ["__version__", "coordinate_check", "load"]

if TYPE_CHECKING:
    from runner.coordinates import coordinate_check
    from runner.views.results import load


def __getattr__(name: str) -> Any:
    # Lazy, so that `runner --help` pays for neither pandas nor torch.
    if name == "load":
        from runner.views.results import load

        return load
    if name == "coordinate_check":
        from runner.coordinates import coordinate_check

        return coordinate_check
    raise AttributeError(f"module 'runner' has no attribute {name!r}")
