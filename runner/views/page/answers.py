"""The page in short: what its sections answer of each panel, as one table; and its contents."""

import html
import re
from collections.abc import Sequence
from decimal import Decimal

import pandas as pd

from runner.analysis.columns import column, floats, groups, records, show
from runner.analysis.phase import Axes
from runner.analysis.selection import facet_label
from runner.views.picture import Answer
from runner.views.scales import column_title
from runner.views.terminal import MISSING, short

IN_SHORT, SINGLE_CELLS = "in-short", "single-cells"
_MOVED = "param_movement"
_DECIMAL = re.compile(r"[-+]?\d+\.\d+(?:e[-+]?\d+)?")
_SECTION = re.compile(r'<section[^>]*? id="([\w-]+)"[^>]*>\s*<h2[^>]*>([^<]*)')


def place_of(name: str) -> str:
    """Return the id of a picture's section; its chart has the name itself."""
    return f"about-{name}"


def in_short(
    answers: Sequence[tuple[str, Answer]], panels: Sequence[str], same: Sequence[Sequence[str]]
) -> str:
    """Return the table of answers, a row for each panel, as HTML; empty where no section has one.

    Panels of the same networks share a row, that of the first, where they have the same words and numbers
    but for rounding, by which training that nears divergence may part them.

    Args:
        answers: Id of the section that an answer is of, and the answer.
        panels: Headings of the diagram's panels.
        same: Parts of headings that name the same networks.
    """
    answers = [(place, answer) for place, answer in answers if any(name in answer.words for name in panels)]
    if not answers:
        return ""
    joined = {name: " = ".join(names) for names in same for name in names}
    rows: list[tuple[str, list[str], list[str]]] = []
    for panel in panels:
        alike = ", ".join(joined.get(part, part) for part in panel.split(", "))
        told = [answer.words.get(panel, MISSING) for _, answer in answers]
        for name, words, of in rows:
            if name == alike and all(map(_close, words, told)):
                of.append(panel)
                break
        else:
            rows.append((alike, told, [panel]))
    head = "".join(
        f'<th scope=col><a href="#{place}">{html.escape(answer.heading)}</a></th>'
        for place, answer in answers
    )
    lines = []
    for alike, told, of in rows:
        name = html.escape(alike if len(of) > 1 else of[0]) or "all cells"
        lines.append(f"<tr><th scope=row>{name}</th>{''.join(map(_cell, told))}</tr>")
    rules = " ".join(html.escape(rule) for rule in dict.fromkeys(one.rule for _, one in answers if one.rule))
    return (
        f'<section id="{IN_SHORT}"><h2>In short</h2><div class=scroll><table class=answers>'
        f"<thead><tr><td></td>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
        f"<p class=note>In brackets 95 %, with one seed what was measured around it. {rules}</p></section>"
    )


def _close(words: str, others: str) -> bool:
    """Tell whether words are the same, their decimal numbers to within one of the last digit."""
    if _DECIMAL.sub("", words) != _DECIMAL.sub("", others):
        return False
    found = (map(Decimal, _DECIMAL.findall(text)) for text in (words, others))
    return all(
        abs(one - other) <= max(map(_last_digit, (one, other))) for one, other in zip(*found, strict=True)
    )


def _last_digit(number: Decimal) -> Decimal:
    """Return what one of the last digit of a number is worth."""
    return Decimal((0, (1,), int(number.as_tuple().exponent)))


def moved_answer(cells: pd.DataFrame, axes: Axes) -> Answer | None:
    """Return which cells of each panel moved least and most; None where that was not measured."""
    if _MOVED not in cells:
        return None
    known = cells.assign(moved=floats(cells[_MOVED])).dropna(subset=["moved"])
    words = {}
    for facet, part in groups(known, [column(known, key, "") for key in axes.facets]):
        order = records(part.sort_values("moved", kind="stable"))
        ends = (order[0], order[-1])
        words[facet_label(axes.facets, facet)] = " → ".join(
            f"{short(one['moved'])} ({', '.join(f'{key} {show(one[key])}' for key in (axes.x, axes.y))})"
            for one in ends
        )
    rule = "Movement, least to most: of all cells that did not diverge; Colour names those of any measure."
    return Answer(f"{column_title(_MOVED)}, least → most", words, rule) if words else None


def _cell(words: str) -> str:
    """Return words as a cell: what stands before a colon is the answer, and strong."""
    answer, colon, why = html.escape(words).partition(": ")
    return f"<td><strong>{answer}</strong>{colon}{why}</td>" if colon else f"<td>{answer}</td>"


def contents(page: str) -> str:
    """Return links to the sections of a page, those that have an id and a heading, in their order."""
    links = (f'<a href="#{place}">{title.strip()}</a>' for place, title in _SECTION.findall(page))
    return " ".join(links)
