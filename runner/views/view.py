"""A result in its three forms: a table, the chart that shows it, and the caption that says what is shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.views.charts.style import Layout
from runner.views.figures import check_figure_path, fitted_layout, write_figure, write_text
from runner.views.sizes import COLUMN

if TYPE_CHECKING:
    import altair as alt
    import pandas as pd


@dataclass(frozen=True, slots=True)
class View:
    """What an analysis gives: shows itself as a chart in a notebook.

    Attributes:
        table: The numbers.
        caption: What is shown: the sweep, its cells and seeds, the statistic.
        make: From a layout to the chart.
        panels: How many panels the chart has.
    """

    table: pd.DataFrame
    caption: str
    make: Callable[[Layout], Any]
    panels: int

    @property
    def chart(self) -> alt.ConcatChart:
        """The Altair chart, at the size of a screen."""
        chart: alt.ConcatChart = self.make(Layout())
        return chart

    def save(self, path: str | Path, inches: float = COLUMN) -> Path:
        """Write the figure for print and, beside it, its caption; the same table gives the same bytes.

        Args:
            path: Ends in .svg, .png or .pdf; the caption goes to the same name with .caption.txt.
            inches: Width of the figure.

        Returns:
            The path of the caption.

        Raises:
            UserError: If the suffix is another one or a file cannot be written.
        """
        path = Path(path)
        check_figure_path(path)
        write_figure(self.make(fitted_layout(self.make, self.panels, inches)), path, inches)
        caption = path.with_suffix(".caption.txt")
        write_text(caption, self.caption + "\n")
        return caption

    def _repr_mimebundle_(self, *args: Any, **keywords: Any) -> Any:
        """Return what a notebook shows: the chart."""
        return self.chart._repr_mimebundle_(*args, **keywords)
