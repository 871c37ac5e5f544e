"""The parts of the page that are text and tables."""

import html
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from runner.analysis.estimate import Tables
from runner.analysis.phase import Axes
from runner.analysis.regime import (
    COLORS,
    LETTERS,
    MARKS,
    REGIMES,
    TEXT_COLORS,
    flag_texts,
    regime_texts,
    rich_words,
    thresholds_of,
)
from runner.analysis.regime_table import regime_table
from runner.measures.catalog import MEASURES
from runner.schema import CELLS, Column
from runner.store import Store
from runner.store.arrow import column_of
from runner.store.keys import is_key
from runner.store.launches import read_launch
from runner.views.captions import INTERVAL, count_line, critical_words, same_words
from runner.views.claims import HEADINGS, claim_rows, paper_rows
from runner.views.page.answers import place_of
from runner.views.picture import Part, Section

_MOST_OPEN = 16
"""Rows of a table up to which it is shown without being asked for."""
PAPERS = {column.name: measure.paper for measure in MEASURES for column in (*measure.trace, *measure.init)}
"""Column to the paper that its measure is of."""


def sections(
    store: Store, cells: pd.DataFrame, axes: Axes, where: Sequence[str], left_out: Sequence[str]
) -> dict[str, str]:
    """Return the HTML of each part by its name in the template; every name in it is escaped."""
    record = _record(store)
    seeds = cells["seed"].nunique()
    scope = f"; only {' and '.join(where)}" if where else ""
    return {
        "counts": _text(f"{count_line(cells)}; {seeds} seed{'s' if seeds > 1 else ''}{scope}"),
        "left_out": "".join(f"<p class=note>Not on this page: {_text(line)}</p>" for line in left_out),
        "axes": _text(f"{axes.y} over {axes.x}" + (f", by {', '.join(axes.facets)}" if axes.facets else "")),
        "interval": _text(INTERVAL),
        "critical": f"<p class=note>Dashed, {_text(one)}</p>" if (one := critical_words(cells)) else "",
        "rich": _text(rich_words(thresholds_of(store.config))),
        "same": f"<p class=note>{_text(same)}</p>" if (same := same_words(cells)) else "",
        "chips": " ".join(f"<span class=named>{_chip(name)} {name}</span>" for name in REGIMES),
        "regimes": _regimes(thresholds_of(store.config)),
        "measures": _measures(cells, store),
        "beside": _beside(cells, store),
        "claims": _claims(store.path) + _papers(store.path),
        "provenance": _provenance(store, record),
        "command": _text(str(record.get("command", f"runner sweep name={store.path.name}"))),
        "store": _text(str(store.path)),
    }  # fmt: skip


def html_table(head: Sequence[str], rows: Iterable[Sequence[Any]], first_is_head: bool = True) -> str:
    """Return a table of text, escaped.

    Args:
        first_is_head: Whether the first cell of a row names it.
    """
    lines = ["<div class=scroll><table><thead><tr>"]
    lines += [f"<th scope=col>{_text(name)}</th>" for name in head]
    lines.append("</tr></thead><tbody>")
    for row in rows:
        first, *rest = (_text(str(value)) for value in row)
        opening = f"<th scope=row>{first}</th>" if first_is_head else f"<td>{first}</td>"
        lines.append(f"<tr>{opening}{''.join(f'<td>{value}</td>' for value in rest)}</tr>")
    return "".join([*lines, "</tbody></table></div>"])


def _text(value: str) -> str:
    return html.escape(value, quote=True)


def picture_section(section: Section, part: Part, asked: str = "") -> str:
    """Return the section of a picture: its place, its numbers, or why there is no chart.

    Args:
        asked: What the page was asked for beside the store, for the commands: ``--where lr=0.1``.
    """
    chart = f'<div class=chart id="{section.name}"></div>' if part.chart is not None else ""
    note = f"<p class=note>{_text(part.note)}</p>" if part.note else ""
    lines = "\n".join(f"{line} {asked}".strip() for line in part.command.splitlines())
    command = f"<p class=note>The same in a terminal:</p><pre>{_text(lines)}</pre>" if lines else ""
    heading = f"<h2>{_text(section.title)}</h2>"
    if part.at:
        heading = f"<h2 class=stays>{_text(section.title)} <small>{_text(part.at)}</small></h2>"
    lead = f"<p class=note>{_text(part.lead)}</p>" if part.lead.strip() else ""
    words = f"{heading}\n<p>{_text(section.text)}</p>\n{lead}"
    table = html_table(part.head, part.rows) if part.rows else ""
    if len(part.rows) > _MOST_OPEN:
        table = f"<details><summary>Numbers</summary>{table}</details>"
    return f'<section id="{place_of(section.name)}">\n{words}\n{chart}{table}{note}{command}\n</section>'


def _regimes(thresholds: Mapping[str, Any]) -> str:
    """Return what the regimes are, by the thresholds that judged the newest launch."""
    texts = regime_texts(thresholds)
    items = [f"<dt>{_chip(name)} {name}</dt><dd>{_text(texts[name])}</dd>" for name in REGIMES]
    flags = [
        f"<dt><span class=chip>{MARKS[name]}</span> {name.replace('_', ' ')}</dt><dd>{_text(text)}</dd>"
        for name, text in flag_texts(thresholds).items()
    ]
    return f"<dl>{''.join([*items, *flags])}</dl>"


def _chip(regime: str) -> str:
    """Return the letter of a regime on its colour."""
    style = f"background:{COLORS[regime]};color:{TEXT_COLORS[regime]}"
    return f'<span class=chip style="{style}">{LETTERS[regime]}</span>'


def known_columns(store: Store) -> list[Column]:
    """Return the columns of a store's cells: the schema's, and those of users as they declare them."""
    own = sorted(set(store.cells.columns) - {column.name for column in CELLS})
    own = [name for name in own if not is_key(name)]
    return [*CELLS, *(map(column_of, store.table("cells", own).schema) if own else ())]


def _measures(cells: pd.DataFrame, store: Store) -> str:
    """Return the measures that some cell has, each in a sentence."""
    keys = {column.name for column in CELLS if not column.nullable}
    rows = [
        (column.name, column.meaning, column.unit, PAPERS.get(column.name, ""))
        for column in known_columns(store)
        if column.type == "float64" and column.name not in keys
        if column.name in cells and cells[column.name].notna().any()
    ]
    return html_table(("measure", "meaning", "unit", "paper"), rows)


def _beside(cells: pd.DataFrame, store: Store) -> str:
    found = regime_table(Tables(cells, store.trace, store.layers))
    return html_table([str(name) for name in found.columns], found.to_numpy().tolist())


def _claims(store: Path) -> str:
    """Return the table of claims that lies in, above or beside the store, if there is one."""
    head = ("claim", "statement", "shown by", *HEADINGS[1:])
    return _verdicts(store, "claims", "claims.parquet", "Claims of the theory", head, claim_rows)


def _papers(store: Path) -> str:
    """Return the published numbers beside the measured ones that lie in, above or beside the store."""
    head = ("paper", "figure", "published", *HEADINGS[1:])
    return _verdicts(store, "reproduce", "checks.parquet", "Published figures", head, paper_rows)


def _verdicts(
    store: Path, command: str, file: str, title: str, head: Sequence[str],
    rows_of: Callable[[pd.DataFrame], list[list[str]]],
) -> str:  # fmt: skip
    """Return the table that a command that judges left in, above or beside the store, if there is one."""
    for folder in (store, store.parent, store.parent / command):
        if (folder / f"{command}.parquet").is_file():
            path = folder / file
            table = html_table(head, [row[: len(head)] for row in rows_of(pd.read_parquet(path))])
            return f'<section id="{command}"><h2>{title}</h2><p>From {_text(str(path))}.</p>{table}</section>'
    return ""


def _record(store: Store) -> dict[str, Any]:
    return read_launch(store.path, store.launches[-1]) if store.launches else {}


def _provenance(store: Store, record: Mapping[str, Any]) -> str:
    versions, git = record.get("versions") or {}, record.get("git") or {}
    commit = f"{git.get('commit', '')}{' with changes' if git.get('dirty') else ''}" if git else "not in git"
    rows = [
        ("launches", f"{len(store.launches)}, newest {record.get('id', '-')}"),
        ("started", record.get("started", "-")),
        ("device", record.get("device") or "-"),
        ("folder", record.get("folder", "-")),
        ("git commit", commit),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions.items()) or "-"),
    ]
    config = yaml.safe_dump(store.config, sort_keys=False, allow_unicode=True, width=100)
    return (
        html_table(("", ""), rows) + f"<details><summary>Config</summary><pre>{_text(config)}</pre></details>"
    )
