"""The table of claims: on the terminal and as Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from rich.table import Table
from rich.text import Text

from runner.analysis.columns import plain, records

STYLES = {"holds": "green", "fails": "bold red", "inconclusive": "yellow"}
HEADINGS = ("claim", "prediction", "measured", "95% interval", "cells", "verdict")


def claims_table(table: pd.DataFrame, width: int) -> Table:
    """Return the verdicts as a table: a claim, and below it what decided.

    Args:
        table: The first table of :func:`runner.analysis.claims.judge`.
    """
    view = Table(box=None, pad_edge=False, width=width)
    for heading in ("", "claim, what shows it", "measured, predicted", "cells", "verdict"):
        view.add_column(
            heading,
            justify="right" if heading == "cells" else "left",
            ratio=1 if heading.startswith("claim") else None,
            no_wrap=not heading.startswith("claim"),
            header_style="dim",
        )
    for row in records(table):
        predicted, measured, interval, cells = figures_of(row)
        text = Text(row["text"])
        text.append(f"\n{row['check'] or row['note']}", style="dim")
        figures = Text(f"{measured} {interval}" if measured != "-" else "-")
        figures.append(f"\n{predicted}", style="dim")
        view.add_row(row["claim"], text, figures, cells, Text(row["verdict"], style=STYLES[row["verdict"]]))
    return view


def claims_markdown(
    table: pd.DataFrame, checks: pd.DataFrame, beside: pd.DataFrame | None, command: str
) -> str:
    """Return the verdicts, every check behind them, and the two regimes side by side as Markdown.

    Args:
        table: The first table of :func:`runner.analysis.claims.judge`.
        beside: As returned by :func:`runner.analysis.regime_table.regime_table`; None to leave it out.
    """
    head = ("claim", "statement", "shown by", *HEADINGS[1:], "note")
    lines = ["# Claims", "", f"As measured by `{command}`. A claim holds if all its checks do.", ""]
    lines += markdown_rows(head, claim_rows(table))
    lines += ["", "## Every check", ""]
    head_of_checks = ("claim", "shown by", *HEADINGS[1:], "note")
    lines += markdown_rows(
        head_of_checks,
        [[r["claim"], r["check"], *figures_of(r), r["verdict"], r["note"]] for r in records(checks)],
    )
    if beside is not None and len(beside):
        lines += ["", "## Lazy and rich, side by side", "", "Medians over cells, quartiles in brackets.", ""]
        lines += markdown_rows(
            ("quantity", *beside.columns[1:]), [[str(value) for value in row] for row in beside.to_numpy()]
        )
    return "\n".join(lines) + "\n"


def claim_rows(table: pd.DataFrame) -> list[list[str]]:
    """Return the verdicts as text: claim, statement, what shows it, figures, verdict and note of each."""
    return [
        [row["claim"], row["text"], row["check"], *figures_of(row), row["verdict"], row["note"]]
        for row in records(table)
    ]


def paper_rows(checks: pd.DataFrame) -> list[list[str]]:
    """Return published numbers as text: paper, figure, published and measured, verdict, source of each."""
    return [
        [
            *(row["claim"], row["check"], _number(plain(row["published"]))),
            *(*figures_of(row), row["verdict"], row["source"], row["note"]),
        ]
        for row in records(checks)
    ]


def figures_of(row: Mapping[str, Any]) -> list[str]:
    """Return prediction, measured value, interval and cells as text."""
    low, high = plain(row["low"]), plain(row["high"])
    interval = "-" if low is None or high is None else f"[{_number(low)}, {_number(high)}]"
    return [row["predicted"] or "-", _number(plain(row["measured"])), interval, str(row["cells"])]


def markdown_rows(head: Sequence[str], rows: list[list[str]]) -> list[str]:
    """Return a table as lines of Markdown."""
    lines = [" | ".join(head), " | ".join("---" for _ in head)]
    lines += [" | ".join(value.replace("|", "\\|") for value in row) for row in rows]
    return [f"| {line} |" for line in lines]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
