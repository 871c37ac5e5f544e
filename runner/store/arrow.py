"""Declared columns to Arrow and Parquet: types, units and meanings; nulls and NaN kept apart.

Null means "not measured" or "does not apply", NaN "measured, and not a number".
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from runner.schema import SCHEMA_VERSION, Column
from runner.store.keys import with_keys

WRITE_OPTIONS: dict[str, Any] = {"compression": "zstd", "write_page_checksum": True}
_PANDAS_NULLABLE = {"int64": "Int64", "bool": "boolean"}


def arrow_schema(
    declared: Sequence[Column], extras: Sequence[Column] = (), metadata: Mapping[str, Any] | None = None
) -> pa.Schema:
    """Return the Arrow schema of declared columns, followed by extra float columns of users' measures.

    Every field carries ``unit``, ``meaning`` and ``nullable``, the schema ``schema_version``. The ``pandas``
    entry makes plain ``pandas.read_parquet`` give nullable integers and booleans as ``Int64`` and
    ``boolean`` instead of floats and objects.

    Args:
        declared: Columns as in ``runner.schema``.
        extras: Columns of users' measures, as they declare them.
        metadata: Further entries of the schema's metadata, stored as JSON.
    """
    columns = [*declared, *extras]
    notes = [
        {"unit": column.unit, "meaning": column.meaning, "nullable": str(column.nullable).lower()}
        for column in columns
    ]
    fields = [
        pa.field(column.name, pa.type_for_alias(column.type), metadata=note)
        for column, note in zip(columns, notes, strict=True)
    ]
    entries = {"schema_version": SCHEMA_VERSION, "pandas": _pandas_entry(columns), **(metadata or {})}
    return pa.schema(fields, metadata={key: json.dumps(value) for key, value in entries.items()})


def undeclared(name: str) -> Column:
    """Return what is known of a column whose measure declares nothing."""
    return Column(name, "float64", "", "From a user's measure")


def column_of(field: pa.Field) -> Column:
    """Return a column of a user's measure as :func:`arrow_schema` wrote it down."""
    entries = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
    known = {key: entries[key] for key in ("unit", "meaning") if key in entries}
    return replace(undeclared(field.name), **known)


def _pandas_entry(columns: Sequence[Column]) -> dict[str, Any]:
    """Return pandas' own metadata, for the columns that it would otherwise read with a loss."""
    entries = [
        {
            "name": column.name,
            "field_name": column.name,
            "pandas_type": column.type,
            "numpy_type": _PANDAS_NULLABLE[column.type],
            "metadata": None,
        }
        for column in columns
        if column.nullable and column.type in _PANDAS_NULLABLE
    ]
    return {"index_columns": [], "column_indexes": [], "columns": entries, "pandas_version": "2.2.0"}


def to_arrow(
    columns: Mapping[str, Sequence[Any] | pa.Array],
    declared: Sequence[Column],
    metadata: Mapping[str, Any] | None = None,
    extras: Sequence[Column] = (),
) -> pa.Table:
    """Build a table with exactly the declared types; None is null and nan stays NaN.

    Args:
        columns: Values by column name, all of one length. A declared column that is missing is all null;
            one that is not declared is kept as float64.
        declared: Columns as in ``runner.schema``.
        metadata: Further entries of the schema's metadata, stored as JSON.
        extras: What users' measures declare of columns that ``declared`` lacks.

    Raises:
        ValueError: Lengths differ, a value has the wrong type, or one that must be there is null.
    """
    names = {column.name for column in declared}
    known = {column.name: column for column in extras}
    more = [known.get(name) or undeclared(name) for name in sorted(set(columns) - names)]
    schema = arrow_schema(declared, more, metadata)
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"columns must have one length, got {lengths}")
    length = next(iter(lengths.values()), 0)
    arrays = [
        _array(field, columns[field.name]) if field.name in columns else pa.nulls(length, field.type)
        for field in schema
    ]
    for field, array in zip(schema, arrays, strict=True):
        if array.null_count and field.metadata[b"nullable"] == b"false":
            raise ValueError(f"column {field.name} must not be null, got {array.null_count} nulls")
    return pa.table(arrays, schema=schema)


def _array(field: pa.Field, values: Sequence[Any] | pa.Array) -> pa.Array:
    """Return one column; raises ValueError where the values are not of its type."""
    try:
        if isinstance(values, pa.DictionaryArray):
            return values.dictionary.cast(field.type).take(values.indices)
        if isinstance(values, pa.Array):
            return values.cast(field.type)
        if pa.types.is_int64(field.type):
            # Inferred first, then cast: asked for int64 at once, Arrow cuts 1.5 to 1 in silence.
            return pa.array(values, from_pandas=False).cast(field.type)
        return pa.array(values, field.type, from_pandas=False)
    except UnicodeEncodeError:
        # Error texts may quote file names that are not UTF-8.
        clean = [value and value.encode("utf-8", "backslashreplace").decode() for value in values]
        return pa.array(clean, field.type)
    except (pa.ArrowException, TypeError) as error:
        raise ValueError(f"column {field.name} must hold {field.type}; {error}") from error


# Buffers are handed over by hand: given a NumPy array, Arrow imports pandas, too slow for `runner status`.


def from_numpy(values: np.ndarray, valid: np.ndarray) -> pa.Array:
    """Return whole numbers as Arrow's, null where they are not valid."""
    return pa.Array.from_buffers(pa.int64(), len(values), [_bits(valid), pa.py_buffer(values)])


def arrow_mask(values: np.ndarray) -> pa.Array:
    """Return booleans as Arrow's."""
    return pa.Array.from_buffers(pa.bool_(), len(values), [None, _bits(values)])


def _bits(values: np.ndarray) -> pa.Buffer:
    return pa.py_buffer(np.packbits(values, bitorder="little"))


def to_numpy(values: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Return numbers or booleans without nulls as NumPy's."""
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if pa.types.is_boolean(values.type):
        return np.from_dlpack(values.cast(pa.int8())).astype(bool)
    return np.from_dlpack(values)


def is_in(
    values: pa.Array | pa.ChunkedArray, some: Collection[str] | pa.Array | pa.ChunkedArray
) -> np.ndarray:
    """Tell for each text whether it is among some."""
    if not isinstance(some, pa.Array | pa.ChunkedArray):
        some = pa.array(list(some), pa.string())
    return to_numpy(pc.is_in(values, value_set=some))


def conform(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return the rows under a schema: in its order, keys from their JSON, nulls where a column is missing."""
    rows = with_keys(rows, schema.names)
    present = set(rows.column_names)
    arrays = []
    for field in schema:
        if field.name in present:
            # A whole number beyond 2^53 in a column that others made one of floats is rounded, not refused.
            safe = not pa.types.is_floating(field.type)
            arrays.append(rows[field.name].cast(field.type, safe=safe))
        else:
            arrays.append(pa.nulls(rows.num_rows, field.type))
    return pa.table(arrays, schema=schema)
