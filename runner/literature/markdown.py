"""Verdicts on papers as Markdown: a table of them, then each with its numbers, sources and figure."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from runner.analysis.columns import records
from runner.literature.paper import Paper
from runner.views.claims import markdown_rows, paper_rows

_HEAD = ("paper", "finding", "agree", "verdict")
_OF_NUMBERS = (
    "figure",
    "published",
    "agrees",
    "measured",
    "95% interval",
    "cells",
    "verdict",
    "source",
    "note",
)


def literature_markdown(
    papers: Sequence[Paper],
    table: pd.DataFrame,
    checks: pd.DataFrame,
    drawn: Mapping[str, Path | str],
    command: str,
) -> str:
    """Return the verdicts as Markdown.

    Args:
        table: The first table of :func:`runner.analysis.claims.judge`.
        checks: The second, with ``published`` and ``source``.
        drawn: The figure of each paper, or why there is none, by its name.
        command: The command line that measured.
    """
    lines = ["# Papers", "", f"As measured by `{command}`. A paper holds if all its numbers do.", ""]
    held = (checks["verdict"] == "holds").groupby(checks["claim"]).agg(["sum", "count"])
    lines += markdown_rows(_HEAD, [
        [row["claim"], row["text"], "{} of {}".format(*held.loc[row["claim"]]), row["verdict"]]
        for row in records(table)
    ])  # fmt: skip
    for paper in papers:
        lines += ["", f"## {paper.name}", "", f"{paper.cite}.", ""]
        own = checks[checks["claim"] == paper.name]
        lines += markdown_rows(_OF_NUMBERS, [row[1:] for row in paper_rows(own)])
        figure = drawn[paper.name]
        words = f"![{paper.finding}]({figure.name})" if isinstance(figure, Path) else f"No figure: {figure}."
        lines += ["", words]
    return "\n".join(lines) + "\n"
