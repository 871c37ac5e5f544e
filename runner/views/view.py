"""A result in its forms: a table, the chart that shows it, the caption that says what is shown, and text."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from runner.analysis.columns import plain, records
from runner.views import alt
from runner.views.figures import check_figure_path, fitted_layout, write_figure, write_text
from runner.views.sizes import COLUMN
from runner.views.style import Layout


@dataclass(frozen=True, slots=True)
class View:
    """What an analysis gives: shows itself as a chart in a notebook.

    Attributes:
        table: The numbers.
        caption: What is shown: the sweep, its cells and seeds, the statistic.
        make: From a layout to the chart.
        panels: How many panels the chart has.
        print: Prints the table for people to a console.
        asked: What was asked for: the head of the JSON.
        more: Further tables of the JSON.
        across: How many panels belong side by side, where that is not the layout's to choose.
    """

    table: pd.DataFrame
    caption: str
    make: Callable[[Layout], Any]
    panels: int
    print: Callable[[Console], None]
    asked: Mapping[str, Any]
    more: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    across: int = 1

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
        write_figure(self.make(fitted_layout(self.make, self.panels, inches, self.across)), path, inches)
        caption = path.with_suffix(".caption.txt")
        write_text(caption, self.caption + "\n")
        return caption

    def json(self) -> str:
        """Return what was asked for and the tables as lists of rows; NaN is null, for JSON knows no NaN."""
        tables = {
            name: [{key: plain(value) for key, value in row.items()} for row in records(table)]
            for name, table in {"rows": self.table, **self.more}.items()
        }
        return json.dumps({**self.asked, **tables}, indent=1)

    def _repr_mimebundle_(self, *args: Any, **keywords: Any) -> Any:
        """Return what a notebook shows: the chart."""
        from runner.views.notebook import mimebundle

        return mimebundle(self.chart, *args, **keywords)
