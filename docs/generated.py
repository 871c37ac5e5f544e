"""The generated parts of the docs: commands, config keys, experiments and columns, as Markdown.

A page asks for a part with a line ``<!-- generated: NAME -->``. Each part is read from what the program
itself reads, the parsers, ``conf/`` and ``runner.schema``, so that it cannot fall behind.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import notebook
import yaml

from runner import cli
from runner.grid.config import conf_dir
from runner.grid.rules import EXECUTION_RULES, RULES
from runner.schema import DERIVED, TABLES

MARKER = re.compile(r"^<!-- generated: (\w+) -->$", re.MULTILINE)
GROUPS = ("parameterization", "model", "data", "optimizer", "measure", "regime", "hydra/launcher")
_PROGRAM_KEYS = {"name", "_target_", "defaults", "functions"}
"""Keys of a group's file that are no settings."""


class Key(NamedTuple):
    """A line of a config file: dotted name, default as written, comment."""

    name: str
    default: str
    meaning: str


def expand(text: str) -> str:
    """Return a page with its generated parts filled in."""
    return MARKER.sub(lambda found: PARTS[found[1]](), text)


def command_names() -> list[str]:
    """Return the commands, in the order of ``runner --help``."""
    return re.findall(r"^  (\w+) ", _printed("--help"), re.MULTILINE)


def parser_of(command: str) -> argparse.ArgumentParser:
    """Return the parser of a command: the one that would print its help."""
    caught: list[argparse.ArgumentParser] = []

    def catch(parser: argparse.ArgumentParser, file: object = None) -> None:
        caught.append(parser)

    with mock.patch.object(argparse.ArgumentParser, "print_help", catch):
        _printed(command, "--help")
    return caught[0]


def commands() -> str:
    """Return a section per command: what it does, its arguments and options, examples."""
    overview = dict(re.findall(r"^  (\w+) .*?\s{2,}(\S.*)$", _printed("--help"), re.MULTILINE))
    sections = [_sweep(overview["sweep"])]
    for name in command_names():
        if name == "sweep":
            continue
        parser = parser_of(name)
        shown = [action for action in parser._actions if "--help" not in action.option_strings]
        rows = [(_invocation(action), action.help or "") for action in shown]
        sections += [
            f"## `runner {name}` {{ #{name} }}",
            f"{parser.description or overview[name]}",
            _table(("argument or option", "meaning"), rows),
        ]
        examples = re.sub(r"^examples:\n", "", parser.epilog or "")
        if examples:
            sections.append(_fence("sh", textwrap.dedent(examples)))
    return "\n\n".join(sections)


def _sweep(help_line: str) -> str:
    """Return the section on ``runner sweep``, whose help is a template of Hydra's."""
    template = yaml.safe_load((conf_dir() / "config.yaml").read_text("utf-8"))["hydra"]["help"]["template"]
    paragraphs = [part for part in template.replace("$$", "$").split("\n\n") if "$APP_CONFIG" not in part]
    pieces = ["## `runner sweep` { #sweep }", help_line.partition(":")[0].capitalize() + "."]
    for paragraph in paragraphs:
        if paragraph.startswith("Examples:"):
            calls = re.findall(r"^ +(runner .*?)(?: {3,}(.*))?$", paragraph, re.MULTILINE)
            lines = [f"{call}  # {why}" if why else call for call, why in calls]
            pieces.append(_fence("sh", "\n".join(lines)))
        elif re.search("^ |^usage:", paragraph, re.MULTILINE):
            pieces.append(_fence("text", paragraph))
        else:
            pieces.append(_prose(paragraph))
    for groups in template.split("\n\n"):
        if "$APP_CONFIG" in groups and "Flags:" in groups:
            pieces.append(_fence("text", groups[groups.index("Flags:") :].replace("$$", "$")))
    return "\n\n".join(pieces)


def keys() -> str:
    """Return the keys of ``conf/config.yaml`` with default, meaning and rule: of a cell, and of a run."""
    text = (conf_dir() / "config.yaml").read_text("utf-8")
    found = [key for key in keys_of(text) if key.name.partition(".")[0] not in {"defaults", "hydra"}]
    rules = {**RULES, **EXECUTION_RULES}
    rows = {
        in_cell: [
            (
                f"`{key.name}`",
                f"`{key.default}`",
                key.meaning,
                rules[key.name].text if key.name in rules else "",
            )
            for key in found
            if (key.name in RULES) == in_cell
        ]
        for in_cell in (True, False)
    }
    head = ("key", "default", "meaning", "must be")
    return (
        f"## Keys of a cell {{ #cell }}\n\nEach can be an axis.\n\n{_table(head, rows[True])}\n\n"
        "## Keys of a run { #run }\n\nThey say how and where to run. They are never part of a cell "
        f"and never an axis.\n\n{_table(head, rows[False])}"
    )


def groups() -> str:
    """Return every file of every group: what it is, its keys with default and meaning."""
    sections = []
    for group in GROUPS:
        sections.append(f"## {group} {{ #{group.replace('/', '-')} }}")
        for path in sorted((conf_dir() / group).glob("*.yaml")):
            sections += _group_file(group, path)
    return "\n\n".join(sections)


def _group_file(group: str, path: Path) -> Iterator[str]:
    """Yield the parts of the section on one file of a group."""
    text = path.read_text("utf-8")
    yield f"### `{group}={path.stem}`"
    if header := _header(text):
        yield header
    if group == "parameterization":
        body = [line for line in text.splitlines() if not line.startswith(("#", "name:"))]
        yield _fence("yaml", "\n".join(body))
        return
    prefix = group.replace("hydra/launcher", "hydra.launcher")
    rows = [
        (f"`{prefix}.{key.name}`", f"`{key.default}`", key.meaning)
        for key in keys_of(text)
        if key.name.partition(".")[0] not in _PROGRAM_KEYS
    ]
    if rows:
        yield _table(("key", "default", "meaning"), rows)
    if group == "measure":
        content = yaml.safe_load(text)
        taken = [
            f"`{name}`: {keys.get('_target_', 'as in its own file')}, taken at `{keys.get('at', 'every')}`"
            for name, keys in content.get("functions", {}).items()
        ]
        named = [f"`{name}`" for name in content.get("defaults", []) if name != "_self_"]
        yield "\n".join(f"- {line}" for line in [*([f"holds {', '.join(named)}"] if named else []), *taken])


def experiments() -> str:
    """Return a section per experiment: what it shows, and its file."""
    sections = []
    for path in sorted((conf_dir() / "experiment").glob("*.yaml")):
        text = path.read_text("utf-8")
        body = "\n".join(line for line in text.splitlines() if not line.startswith("#")).strip()
        block = textwrap.indent(_fence("yaml", body), "    ")
        sections += [f"## `+experiment={path.stem}` {{ #{path.stem} }}", _header(text)]
        sections.append(f'??? note "conf/experiment/{path.name}"\n\n{block}')
    return "\n\n".join(sections)


def columns() -> str:
    """Return a section per table: every column with type, unit and meaning."""
    sections = []
    for table, found in {**TABLES, "derived": DERIVED}.items():
        rows = [
            (f"`{c.name}`", c.type, c.unit, c.meaning + ("" if c.nullable else " (never null)"))
            for c in found
        ]
        sections += [
            f"## {table} {{ #{table} }}",
            _table(("column", "type", "unit", "meaning"), rows),
        ]
    return "\n\n".join(sections)


def citation() -> str:
    """Return how to cite, as the README says it."""
    readme = Path(__file__).resolve().parents[1] / "README.md"
    found = re.search(r"^```bibtex\n.*?^```$", readme.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert found, "README.md says how to cite in a fence of BibTeX"
    return found[0]


PARTS: dict[str, Callable[[], str]] = {
    "commands": commands,
    "keys": keys,
    "groups": groups,
    "experiments": experiments,
    "columns": columns,
    "citation": citation,
    "notebook": notebook.markdown,
}


def keys_of(text: str) -> list[Key]:
    """Return the keys of a config file, each with its default and its comment.

    A comment on the lines below, further to the right than any key, goes on.
    """
    found: list[Key] = []
    parents: list[tuple[int, str]] = []
    for line in text.splitlines():
        if found and (more := re.match(r"\s{12,}# ?(.*)", line)):
            last = found.pop()
            found.append(last._replace(meaning=f"{last.meaning} {more[1]}"))
            continue
        if not (parts := re.match(r"(\s*)(\w+):\s*(.*?)\s*(?:#\s*(.*))?$", line)):
            continue
        indent, name, default, comment = len(parts[1]), parts[2], parts[3], parts[4] or ""
        parents = [parent for parent in parents if parent[0] < indent]
        dotted = ".".join([*(parent for _, parent in parents), name])
        parents.append((indent, name))
        if default:
            found.append(Key(dotted, default, comment))
    return found


def _header(text: str) -> str:
    """Return the comment at the top of a config file."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @package"):
            lines.append(line.removeprefix("#").strip())
    return _prose(" ".join(lines))


def _prose(text: str) -> str:
    """Return plain text such that Markdown shows it as it is."""
    return re.sub(r"(?<!`)<(?=[\w(])", "&lt;", text).replace(" * ", r" \* ")


def _invocation(action: argparse.Action) -> str:
    """Return an argument or option as it is typed."""
    value = action.metavar or ""
    if action.option_strings:
        names = ", ".join(f"`{option}`" for option in action.option_strings)
        return f"{names} `{value}`" if value else names
    return f"`{value or action.dest}`"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a Markdown table."""
    lines = [head, tuple("---" for _ in head), *rows]
    cells = [[_cell(value) for value in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def _cell(value: str) -> str:
    """Return a value as a table shows it: in code a bar is a bar, elsewhere it would end the cell."""
    value = re.sub(
        r"`[^`]*`|\|", lambda found: r"\|" if found[0] == "|" else found[0], " ".join(value.split())
    )
    return value if value.startswith("`") else _prose(value)


def _fence(language: str, text: str) -> str:
    return f"```{language}\n{text.strip(chr(10))}\n```"


def _printed(*words: str) -> str:
    """Return what a command prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        cli.main(list(words))
    return out.getvalue()
