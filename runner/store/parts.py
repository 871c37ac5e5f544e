"""Parts: the Parquet files that a table is made of; written once, atomically, never changed.

A table is a folder of parts, ``cells/part-<name>.parquet``. Any Parquet reader can open the folder: what
is half-written has a hidden name. The footer of a part holds a unique id and the time of writing. A part made
by compaction also names the ids that it supersedes, so that an interruption between writing it and removing
them hides no row and doubles none.
"""

import json
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from runner.errors import UserError
from runner.grid.cell import OPTIONAL
from runner.schema import KEYS, RENAMED, SCHEMA_VERSION, TABLES, Column
from runner.store.arrow import WRITE_OPTIONS, arrow_mask, arrow_schema, column_of, conform, to_arrow
from runner.store.digest import KEY, ContentDigest
from runner.store.files import atomic
from runner.store.keys import SOURCES, is_key, key_columns, with_keys

COMPACTED = "part-compacted-"
_ATTEMPTS = 12
_BACKOFF_SECONDS = 0.02
_SMALL_ROWS = 10_000


def write_part(
    store: Path,
    table: str,
    columns: Mapping[str, Sequence[Any] | pa.Array],
    name: str,
    extras: Sequence[Column] = (),
) -> Path:
    """Write rows as one new part of a table, whole or not at all; a part of the same name is replaced.

    A part must hold all the rows of its cells: when a cell is in several parts, readers take it from the
    part that was written last.

    Args:
        store: Folder of the store; made if it is missing.
        table: ``cells``, ``trace`` or ``layers``.
        columns: As in :func:`to_arrow`.
        name: Unique to the launch and pack; becomes ``part-<name>.parquet``.
        extras: What users' measures declare of their columns.

    Raises:
        UserError: The disk is full or the folder cannot be written.
        ValueError: The columns do not fit the schema, or two rows have one key.
    """
    identity = {"part": uuid.uuid4().hex, "written": time.time_ns(), "supersedes": []}
    if table == "cells":
        texts = pa.table({name: pa.array(columns[name], pa.string()) for name in SOURCES if name in columns})
        keys = key_columns([texts])
        texts = with_keys(texts, [key.name for key in keys])
        columns = {**columns, **{key.name: texts[key.name].combine_chunks() for key in keys}}
        extras = [*extras, *keys]
    rows = to_arrow(columns, TABLES[table], identity, extras)
    if len(rows.select(KEYS[table]).group_by(list(KEYS[table])).aggregate([])) < rows.num_rows:
        raise ValueError(f"{table} must have one row for each {', '.join(KEYS[table])}, got several")
    path = store / table / f"part-{name}.parquet"
    with atomic(path) as file:
        write_rows([rows], rows.schema, file)
    return path


def write_rows(tables: Iterable[pa.Table], schema: pa.Schema, file: IO[bytes]) -> None:
    """Write tables of one schema as one Parquet file, a row group each, and their digest."""
    digest = ContentDigest()
    with pq.ParquetWriter(file, schema, **WRITE_OPTIONS) as writer:
        for rows in tables:
            writer.write_table(rows)
            digest.update(rows)
        writer.add_key_value_metadata({KEY: digest.hexdigest(schema.metadata)})


def check_digest(path: Path) -> None:
    """Read a part whole and compare it with its digest, if it has one.

    Raises:
        UserError: It is not what was written.
    """
    with readable(path), pq.ParquetFile(path, page_checksum_verification=True) as file:
        metadata = file.metadata.metadata or {}
        digest = ContentDigest()
        digest.update(file.schema_arrow.empty_table())
        for batch in file.iter_batches():
            digest.update(pa.Table.from_batches([batch]))
        if metadata.get(KEY.encode(), b"").decode("ascii", "replace") not in {"", digest.hexdigest(metadata)}:
            raise ValueError("its digest is of other content")


@dataclass(frozen=True, slots=True)
class Part:
    """One part as found on disk.

    Attributes:
        id: Differs if a part is written anew under the same name.
        file: Inode and time of the file, which differ if another file has taken the name.
        written: Unix time in ns; orders the parts.
        supersedes: Ids of the parts that it replaces.
        names: All columns in the file, under the names that they have today.
        extras: Those of them that are of users' measures.
        rows: Only the columns that were asked for.
    """

    path: Path
    id: str
    file: tuple[int, int]
    written: int
    supersedes: frozenset[str]
    names: tuple[str, ...]
    extras: tuple[Column, ...]
    rows: pa.Table


def scan(store: Path, table: str, columns: Sequence[str] | None = None) -> tuple[list[Part], list[Part]]:
    """Read the parts of a table, or these columns of them.

    Returns:
        The parts that count, the one written last at the end, and those that a compaction has superseded
        but not yet removed.

    Raises:
        UserError: A part is corrupt or from a newer schema.
    """
    for _ in attempts():
        paths = sorted((store / table).glob("part-*.parquet"))
        try:
            parts = [read_part(path, table, columns) for path in paths]
        except FileNotFoundError:
            continue  # a compaction removed it meanwhile
        # The listing may lack a compacted part that appeared, as well as the parts that went with it.
        if not set((store / table).glob(f"{COMPACTED}*.parquet")) - set(paths):
            break
    else:
        raise UserError(f"store must hold still while it is read, got one in change: {store}; try again")
    retired = frozenset[str]().union(*(part.supersedes for part in parts))
    parts.sort(key=lambda part: (part.written, bool(part.supersedes), part.path.name))
    return [p for p in parts if p.id not in retired], [p for p in parts if p.id in retired]


def attempts() -> Iterator[int]:
    """Yield attempts at what compactions may disturb, each after a longer wait than the one before."""
    for attempt in range(_ATTEMPTS):
        time.sleep(_BACKOFF_SECONDS * attempt)
        yield attempt


def read_part(path: Path, table: str, columns: Sequence[str] | None = None) -> Part:
    """Read one part, or these columns of it.

    Raises:
        UserError: It is corrupt or from a newer schema.
        FileNotFoundError: It is gone.
    """
    # Before opening: if the file is replaced in between, compaction sees that and keeps the new one.
    identity = file_of(path)
    # What came later is not in every part, and is not asked for by name.
    coded = [name for name in SOURCES if name not in OPTIONAL] if table == "cells" else ()
    options = {"page_checksum_verification": True, "read_dictionary": coded}
    with readable(path), pq.ParquetFile(path, **options) as file:
        schema = file.schema_arrow
        entries = {key.decode(): value for key, value in (schema.metadata or {}).items()}
        version = json.loads(entries.get("schema_version", b"0"))
        check_version(version, path)
        names = names_today(schema.names, table, version)
        declared = {column.name for column in TABLES[table]}
        renamed = set(schema.names) - set(names)
        if missing := set(KEYS[table]) - set(names):
            raise ValueError(f"no column {', '.join(sorted(missing))}")
        return Part(
            path=path,
            file=identity,
            id=json.loads(entries["part"]) if "part" in entries else path.name,
            written=json.loads(entries["written"]) if "written" in entries else identity[1],
            supersedes=frozenset(json.loads(entries.get("supersedes", b"[]"))),
            names=tuple(names),
            extras=tuple(
                column_of(field)
                for field in schema
                if field.name not in declared | renamed and not is_key(field.name)
            ),
            rows=read_columns(file, names, columns),
        )


def read_columns(
    file: pq.ParquetFile, names: Sequence[str], columns: Sequence[str] | None, group: int | None = None
) -> pa.Table:
    """Read columns of a file, under the names that they have today.

    Args:
        names: What its columns are called today, in its order.
        columns: Only these of ``names``; null is all.
        group: Only this row group; null is all.
    """
    wanted = [columns is None or name in columns for name in names]
    # Threads cost more than they save on a part of one pack.
    threads = file.metadata.num_rows > _SMALL_ROWS
    options = {"columns": list(compress(file.schema_arrow.names, wanted)), "use_threads": threads}
    rows = file.read(**options) if group is None else file.read_row_group(group, **options)
    rows = rows.rename_columns(list(compress(names, wanted)))
    return rows if "cell_id" not in rows.column_names else _ids_as_text(rows)


def _ids_as_text(rows: pa.Table) -> pa.Table:
    """Return the rows with ids of Arrow's ``string``, which other programs write as ``large_string``."""
    ids = rows["cell_id"]
    if ids.type == pa.string():
        return rows
    return rows.set_column(rows.column_names.index("cell_id"), "cell_id", ids.cast(pa.string()))


def names_today(names: Sequence[str], table: str, version: int) -> list[str]:
    """Return what columns of an older schema are called now."""
    found = list(names)
    for later in range(version + 1, SCHEMA_VERSION + 1):
        renamed = RENAMED.get(later, {}).get(table, {})
        found = [renamed.get(name, name) for name in found]
    return found


def file_of(path: Path) -> tuple[int, int]:
    """Return inode and time of a file, which change when another takes its name."""
    found = path.stat()
    return found.st_ino, found.st_mtime_ns


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn all errors of a damaged part into one ``UserError``."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"store must hold readable parts, got {path} ({reason}); `runner verify STORE --repair` sets "
            "it aside, the same sweep command then trains its cells again"
        ) from error


def check_version(version: int, path: Path) -> None:
    """Raise UserError if a newer version of runner wrote the file."""
    if version > SCHEMA_VERSION:
        raise UserError(
            f"store must have schema version {SCHEMA_VERSION} or older, got {version} in {path}; "
            "upgrade runner"
        )


def newest_rows(parts: Sequence[Part]) -> list[np.ndarray]:
    """Return for each part a boolean mask of the rows that count.

    A cell is taken whole from one part: the last written of those that hold it, so that a trace never
    mixes two trainings. In ``cells`` (where ``status`` was read) a failed row never replaces a trained one.
    """
    lengths = [part.rows.num_rows for part in parts]
    if len(parts) < 2:
        return [np.ones(length, dtype=bool) for length in lengths]
    ids = pa.chunked_array([chunk for part in parts for chunk in part.rows["cell_id"].chunks], pa.string())
    # One chunk, because unifying the dictionaries of many is quadratic; large, to hold more than 2 GiB.
    encoded = ids.cast(pa.large_string()).combine_chunks().dictionary_encode()
    codes = np.from_dlpack(encoded.indices).astype(np.int64)
    rank = np.repeat(np.arange(len(parts)), lengths)
    if all("status" in part.rows.column_names for part in parts):
        trained = [value != "failed" for part in parts for value in part.rows["status"].to_pylist()]
        rank = rank + len(parts) * np.array(trained, dtype=np.int64)
    best = np.full(codes.max(initial=-1) + 1, -1)
    np.maximum.at(best, codes, rank)
    return np.split(rank == best[codes], np.cumsum(lengths)[:-1])


def read_table(store: Path, table: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a table or these columns of it: every cell once, with the declared types, null and NaN apart.

    Raises:
        UserError: A part is corrupt or from a newer schema.
    """
    needed = ["cell_id", "status"] if table == "cells" else ["cell_id"]
    if columns is None or any(map(is_key, columns)):
        needed += SOURCES if table == "cells" else ()
    parts, _ = scan(store, table, None if columns is None else list(dict.fromkeys([*needed, *columns])))
    schema = merged_schema(table, parts)
    if columns is not None:
        schema = pa.schema([schema.field(name) for name in columns], metadata=schema.metadata)
    masks = newest_rows(parts)
    kept = [
        rows_under(schema, part.path, select(part.rows, mask))
        for part, mask in zip(parts, masks, strict=True)
    ]
    return pa.concat_tables(kept) if kept else schema.empty_table()


def rows_under(schema: pa.Schema, path: Path, rows: pa.Table) -> pa.Table:
    """Return rows of a part under a schema.

    Raises:
        UserError: The part holds a column of another type, whose values cannot be converted.
    """
    with readable(path):
        return conform(rows, schema)


def select(rows: pa.Table, kept: np.ndarray) -> pa.Table:
    """Return the rows where the mask is true."""
    return rows if kept.all() else rows.filter(arrow_mask(kept))


def merged_schema(table: str, parts: Sequence[Part], metadata: Mapping[str, Any] | None = None) -> pa.Schema:
    """Return the schema that holds every column of the parts, those of keys where their JSON was read."""
    extras = {column.name: column for part in parts for column in part.extras}
    read = [part for part in parts if "settings" in part.rows.column_names]
    try:
        keys = key_columns([part.rows for part in read])
    except ValueError:
        # Read together, equal texts are parsed once; whose text it is shows one by one.
        for part in read:
            with readable(part.path):
                key_columns([part.rows])
        raise
    columns = [*(extras[name] for name in sorted(extras)), *keys]
    return arrow_schema(TABLES[table], columns, metadata)
