"""Verdicts on papers as Markdown: a table of them, then each with its numbers, sources and figure."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from runner.analysis.columns import plain, records
from runner.literature.paper import Paper
from runner.views.claims import figures_of, markdown_rows

_HEAD = ("paper", "finding", "agree", "verdict")
_OF_NUMBERS = ("figure", "published", "agrees", "measured", "95% interval", "cells", "verdict", "source")


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
    verdicts = {row["claim"]: row for row in records(table)}
    numbers = {paper.name: records(checks[checks["claim"] == paper.name]) for paper in papers}
    lines += markdown_rows(_HEAD, [
        [
            paper.name, paper.finding,
            f"{sum(row['verdict'] == 'holds' for row in numbers[paper.name])} of {len(numbers[paper.name])}",
            verdicts[paper.name]["verdict"],
        ]
        for paper in papers
    ])  # fmt: skip
    for paper in papers:
        lines += ["", f"## {paper.name}", "", f"{paper.cite}.", ""]
        lines += markdown_rows(_OF_NUMBERS, [_numbers(row) for row in numbers[paper.name]])
        figure = drawn[paper.name]
        words = f"![{paper.finding}]({figure.name})" if isinstance(figure, Path) else f"No figure: {figure}."
        lines += ["", words]
    return "\n".join(lines) + "\n"


def _numbers(row: Mapping[str, object]) -> list[str]:
    """Return one published number beside what was measured, as text."""
    predicted, measured, interval, cells = figures_of(row)
    published = plain(row["published"])
    verdict = f"{row['verdict']} ({row['note']})" if row["note"] else str(row["verdict"])
    said = "" if published is None else f"{published:.4g}"
    return [str(row["check"]), said, predicted, measured, interval, cells, verdict, str(row["source"])]
