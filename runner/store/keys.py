"""The keys of a cell's groups as columns of ``cells``: ``model.activation``, ``data.dim``, ``optimizer.lr``.

A cell keeps them as JSON, of which its id is made, and each as a column of its own. The type of a column
follows from all that is read; parts from before there were these columns get them from the JSON.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from runner.grid.config import GROUPS, leaves
from runner.grid.rules import LARGEST, SIGMA_RULES
from runner.measures.declaration import ColumnType
from runner.schema import Column

SOURCES = {"settings": "", "exponents": "parameterization.", "sigma": "model.sigma."}
"""Columns that hold keys as JSON, and what goes before their keys; the last came later."""
_UNSAID = {"sigma": dict.fromkeys(SIGMA_RULES, 1.0)}
"""Keys that a cell has where such a column is null, with their values."""
_HEADS = tuple(f"{group}." for group in (*GROUPS, "stop"))


def is_key(column: str) -> bool:
    """Tell whether a column is a key of a group, and no measure."""
    return column.startswith(_HEADS)


def key_columns(tables: Sequence[pa.Table]) -> list[Column]:
    """Return a column for each key that some row has.

    Its type is that of its values: numbers are int64 where all are whole, a list and what has values of
    several types is text, written as JSON.

    Args:
        tables: Rows with the columns of ``SOURCES``.
    """
    found: dict[str, set[type]] = {}
    for name in SOURCES:
        there = (rows for rows in tables if name in rows.column_names)
        texts = (text for rows in there for text in _coded(rows, name).dictionary.to_pylist())
        for text in dict.fromkeys(filter(None, texts)):
            for key, value in _leaves(name, text):
                found.setdefault(key, set()).add(_kind(value))
    return [Column(key, _type_of(found[key]), "", "Key of the cell's config") for key in sorted(found)]


def with_keys(rows: pa.Table, columns: Iterable[str]) -> pa.Table:
    """Return the rows with the columns of keys among these; null where a cell has no such key."""
    there = set(rows.column_names)
    wanted = [name for name in columns if is_key(name) and name not in there]
    for name in SOURCES if wanted else ():
        unsaid = _UNSAID.get(name, {})
        if name not in there:
            if unsaid.keys().isdisjoint(wanted):
                continue
            rows = rows.append_column(name, pa.nulls(len(rows), pa.string()))
        coded = _coded(rows, name)
        flat = [dict(_leaves(name, text)) for text in coded.dictionary.to_pylist()] + [unsaid]
        indices = coded.indices.fill_null(len(flat) - 1)
        known = set().union(*flat).difference(rows.column_names)
        for key in [key for key in wanted if key in known]:
            values = [values.get(key) for values in flat]
            kind = _type_of({_kind(value) for value in values})
            array = pa.array([_read(value, kind) for value in values], pa.type_for_alias(kind))
            rows = rows.append_column(key, array.take(indices))
    return rows


def _type_of(kinds: set[type]) -> ColumnType:
    kinds = kinds - {type(None)}
    if kinds == {bool}:
        return "bool"
    if kinds == {int}:
        return "int64"
    return "float64" if kinds and kinds <= {int, float} else "string"


def _kind(value: Any) -> type:
    """Return the type of a value; a whole number that no column holds is text."""
    return str if isinstance(value, int) and not -LARGEST <= value < LARGEST else type(value)


def _read(value: Any, kind: ColumnType) -> Any:
    """Return a value as a column of this type holds it."""
    if value is None or (kind == "string" and isinstance(value, str)):
        return value
    return json.dumps(value) if kind == "string" else float(value) if kind == "float64" else value


def _coded(rows: pa.Table, name: str) -> pa.DictionaryArray:
    """Return a column of texts as codes and distinct texts."""
    texts = rows[name].unify_dictionaries().combine_chunks()
    return texts if pa.types.is_dictionary(texts.type) else texts.dictionary_encode()


def _leaves(source: str, text: str | None) -> Iterator[tuple[str, Any]]:
    """Yield keys and values of a text of one of the ``SOURCES``.

    Raises:
        ValueError: It is not a mapping as JSON.
    """
    # Exponents and factors are real numbers, also where all of one cell are whole.
    whole = int if source == "settings" else float
    tree = json.loads(str(text or "{}"), parse_int=whole)
    if not isinstance(tree, dict):
        raise ValueError(f"{source} must be a mapping as JSON, got {text}")
    for key, value in leaves(tree, SOURCES[source]):
        yield key, json.dumps(value) if isinstance(value, list) else value
