"""What ``runner.load`` returns: a store whose analyses are methods, and which shows itself in a notebook."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from runner.errors import UserError
from runner.store import Store
from runner.store import load as open_store

if TYPE_CHECKING:
    from runner.views.page import Page
    from runner.views.view import View


class Results(Store):
    """A store with its analyses.

    Each returns a :class:`runner.views.view.View`: ``.table`` is a DataFrame, ``.chart`` an Altair chart,
    ``.save("fig.pdf")`` writes the figure and its caption. ``where`` chooses cells as on the command line,
    ``where="lr=0.1"`` or ``where=["lr=0.1", "width=64,128"]``; ``all`` takes those of all launches.
    """

    def phase(
        self,
        x: str = "width",
        y: str = "lr",
        color: str = "regime",
        facet: Sequence[str] | None = None,
        where: str | Sequence[str] = (),
        all: bool = False,
        regime: str | Path | None = None,
    ) -> View:
        """Return the phase diagram.

        Args:
            x: Numeric key across.
            y: Numeric key upwards.
            color: ``regime``, or a numeric column.
            facet: Keys with one panel per combination of values; the config's by default.
            where: Conditions that choose cells.
            all: Whether to take the cells of all launches.
            regime: Thresholds to judge anew by: a name of ``conf/regime`` or a YAML file.
        """
        from runner.analysis.phase import Axes
        from runner.analysis.selection import default_facets
        from runner.views.views import phase_view

        facets = default_facets(self, (x, y)) if facet is None else _several(facet)
        return phase_view(self, Axes(x, y, facets, color), _several(where), all, regime)

    def fit(
        self,
        metrics: str | Sequence[str] | None = None,
        facet: str | Sequence[str] | None = None,
        where: str | Sequence[str] = (),
        all: bool = False,
    ) -> View:
        """Return exponents against width, with intervals, beside theory; arguments as for :meth:`phase`."""
        from runner.analysis.exponents import DEFAULT_METRICS
        from runner.views.views import fit_view

        chosen = DEFAULT_METRICS if metrics is None else _several(metrics)
        return fit_view(self, chosen, None if facet is None else _several(facet), _several(where), all)

    def curves(
        self,
        metrics: str | Sequence[str] | None = None,
        by: str = "width",
        facet: str | Sequence[str] | None = None,
        where: str | Sequence[str] = (),
        all: bool = False,
    ) -> View:
        """Return measures over training, one curve per value of ``by``; the rest as for :meth:`phase`."""
        from runner.analysis.curves import DEFAULT_METRICS
        from runner.views.views import curves_view

        chosen = DEFAULT_METRICS if metrics is None else _several(metrics)
        return curves_view(self, chosen, by, None if facet is None else _several(facet), _several(where), all)

    def transfer(
        self,
        metric: str = "train_loss",
        facet: str | Sequence[str] | None = None,
        where: str | Sequence[str] = (),
        all: bool = False,
    ) -> View:
        """Return the best learning rate at each width, by ``metric``; the rest as for :meth:`phase`."""
        from runner.views.views import transfer_view

        return transfer_view(self, metric, None if facet is None else _several(facet), _several(where), all)

    def report(
        self, path: str | Path | None = None, where: str | Sequence[str] = (), all: bool = False
    ) -> Page:
        """Write the HTML page, to ``report.html`` in the store by default, and return where it is."""
        from runner.views.page import write_page

        return write_page(self, path or self.path / "report.html", _several(where), all)

    def _repr_html_(self) -> str:
        """Return what a notebook shows: how many cells, the phase diagram, the columns."""
        from runner.views.figures import render
        from runner.views.tables import count_line

        title = html.escape(f"{self.path}: {count_line(self.cells)}; {len(self.launches)} launches")
        try:
            picture = render(self.phase().chart, ".svg").decode()
        except UserError as error:
            picture = f"<p>{html.escape(str(error))}</p>"
        tables = "; ".join(
            f"<code>.{name}</code> {len(getattr(self, name))} rows" for name in ("cells", "trace", "layers")
        )
        return (
            f"<p><b>{title}</b></p>{picture}<p>{tables}; <code>runner schema</code> names their columns</p>"
        )


def load(path: str | Path) -> Results:
    """Open a store.

    Args:
        path: Its folder.

    Returns:
        Its tables, read when first used, and its analyses.

    Raises:
        UserError: There is no store, or it has a corrupt part or a newer schema.
    """
    return Results(open_store(path).path)


def _several(values: str | Sequence[str]) -> tuple[str, ...]:
    """Return one or several words as several."""
    return (values,) if isinstance(values, str) else tuple(values)
