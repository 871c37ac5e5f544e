"""What ``runner.load`` returns: a store whose analyses are methods, and which shows itself in a notebook."""

import html
from collections.abc import Sequence
from pathlib import Path

from runner.errors import UserError
from runner.store import Store
from runner.store import load as open_store
from runner.views.boundary import boundary
from runner.views.captions import count_line
from runner.views.check import check
from runner.views.curves import curves
from runner.views.ensemble import ensemble
from runner.views.figures import render
from runner.views.fit import fit
from runner.views.limit import limit
from runner.views.page import Page, write_page
from runner.views.phase import phase
from runner.views.picture import conditions
from runner.views.profile import profile
from runner.views.transfer import transfer


class Results(Store):
    """A store with its analyses.

    Each returns a :class:`runner.views.view.View`: ``.table`` is a DataFrame, ``.chart`` an Altair chart,
    ``.save("fig.pdf")`` writes the figure and its caption. ``where`` chooses cells as on the command line,
    ``where="lr=0.1"`` or ``where=["lr=0.1", "width=64,128"]``; ``all`` takes those of all launches.
    """

    phase = phase
    boundary = boundary
    fit = fit
    curves = curves
    transfer = transfer
    profile = profile
    ensemble = ensemble
    limit = limit
    check = check

    def report(
        self, path: str | Path | None = None, where: str | Sequence[str] = (), all: bool = False
    ) -> Page:
        """Write the HTML page, to ``report.html`` in the store by default, and return where it is."""
        return write_page(self, path or self.path / "report.html", conditions(where), all)

    def _repr_html_(self) -> str:
        """Return what a notebook shows: how many cells, the phase diagram, the columns."""
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
