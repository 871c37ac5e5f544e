"""Launches: what each call of ``runner sweep`` asked for, how far its shards are, what went wrong.

::

    launches/<id>/
      config.yaml           resolved config: queued jobs read it, so later edits of a config do not reach them
      plan.parquet          every cell asked for, with its pack and shard (null if finished before)
      launch.json           time, command, versions, git commit, host, device; written last
      shard-<k>.json        heartbeat of the job that runs shard k (runner.store.shards)
      errors/<cell>.txt     traceback of a failed cell

Files only: ``runner status`` needs to reach no process.
"""

import json
import secrets
import shlex
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from runner.errors import UserError, unknown
from runner.grid.cell import FIELDS, OPTIONAL
from runner.schema import CELLS, SCHEMA_VERSION, Column
from runner.store.arrow import WRITE_OPTIONS, arrow_schema, to_arrow
from runner.store.files import atomic, disk_errors, locked
from runner.store.parts import check_version, names_today, read_columns, readable
from runner.store.provenance import git_state, versions

_SHARD = Column("shard", "int64", "", "Shard that trains the cell; null if it was finished before")
_NO_TEXTS = {"cell_id", *OPTIONAL}
PLAN = (
    *(column for column in CELLS if column.name in {"cell_id", *FIELDS}),
    Column("pack", "int64", "", "Pack of the cell"),
    _SHARD,
)
# Not those that came later: a plan that lacks one could not be opened.
_TEXTS = [column.name for column in PLAN if column.type == "string" and column.name not in _NO_TEXTS]
ROW_GROUP_ROWS = 1 << 16
"""Rows of a plan that are written at a time, and skipped at a time by a shard that has none among them."""
_TIME = "%Y%m%dT%H%M%S-%f"
_TIME_LENGTH = len("20261231T235959-999999")
_RECORD_KEYS = ("id", "started", "command", "cells", "to_train", "shards")
_HEADER = """\
# What `runner sweep` ran in this folder: the config of the newest launch, what it ran with, and all launches.
# Rewritten by every launch; a record, never read back as input.
"""


def new_launch(
    store: Path,
    config: Mapping[str, Any],
    rows: Mapping[str, Sequence[Any] | pa.Array],
    provenance: Mapping[str, Any] | None = None,
) -> str:
    """Record a launch before any of its cells is trained.

    Args:
        store: Folder of the store; made if it is missing.
        config: Resolved config, plain values only.
        rows: Columns of the plan: every field of a cell, ``cell_id``, ``pack`` and ``shard``.
        provenance: Further entries of ``launch.json``, such as ``device``; they replace those made here.

    Returns:
        The launch's id. Ids sort by time, and differ even within one microsecond.

    Raises:
        UserError: The store cannot be written or is from a newer schema.
    """
    launch_ids(store)
    shards = to_arrow({"shard": rows["shard"]}, [_SHARD])["shard"]
    owned = shards.filter(pc.greater_equal(shards, 0))
    text = _yaml(dict(config))
    launch, folder = _new_folder(store)
    record = {
        "id": launch,
        "started": now_text(),
        "command": sys.argv,
        "cells": len(shards),
        "to_train": len(owned),
        "shards": pc.count_distinct(owned).as_py(),
        "host": socket.gethostname(),
        "device": None,
        "folder": str(Path.cwd()),
        "schema_version": SCHEMA_VERSION,
        "versions": versions(),
        "git": git_state(),
        **(provenance or {}),
    }
    if not isinstance(record["command"], str):
        program, *words = record["command"]
        record["command"] = shlex.join([Path(program).name, *words])
    with atomic(folder / "config.yaml") as file:
        file.write(text.encode())
    with atomic(folder / "plan.parquet") as file:
        _write_plan(rows, len(shards), file)
    with atomic(folder / "launch.json") as file:  # last: a launch without it does not count
        file.write(json.dumps(record, indent=1).encode())
    refresh_summary(store)
    return launch


def _write_plan(rows: Mapping[str, Sequence[Any] | pa.Array], count: int, file: IO[bytes]) -> None:
    """Write the plan a row group at a time: many cells share a text, but each gets its copy of it here."""
    with pq.ParquetWriter(file, arrow_schema(PLAN), **WRITE_OPTIONS) as writer:
        for start in range(0, count, ROW_GROUP_ROWS):
            some = {name: values[start : start + ROW_GROUP_ROWS] for name, values in rows.items()}
            writer.write_table(to_arrow(some, PLAN))


def _new_folder(store: Path) -> tuple[str, Path]:
    # The newest launch must sort last even if the clock was set back.
    newest = max((path.name[:_TIME_LENGTH] for path in (store / "launches").glob("*T*-*-*")), default="")
    while True:
        now = f"{datetime.now(UTC):{_TIME}}"
        if now <= newest:
            with suppress(ValueError):
                now = f"{datetime.strptime(newest, _TIME) + timedelta(microseconds=1):{_TIME}}"
        launch = f"{now}-{secrets.token_hex(4)}"
        folder = store / "launches" / launch
        with disk_errors(store):
            folder.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):
                folder.mkdir()
                return launch, folder


def refresh_summary(store: Path) -> None:
    """Rewrite sweep.yaml from the launches' own records."""
    with locked(store):
        records = [read_launch(store, launch) for launch in launch_ids(store)]
        newest = records[-1]
        summary = {
            "launch": newest["id"],
            "config": read_config(store, newest["id"]),
            **{key: value for key, value in newest.items() if key not in _RECORD_KEYS},
            "launches": [{key: record[key] for key in _RECORD_KEYS} for record in records],
        }
        with atomic(store / "sweep.yaml") as file:
            file.write((_HEADER + _yaml(summary)).encode())


def summary_is_read(store: Path) -> bool:
    """Return whether sweep.yaml can be read and is of the newest launch."""
    import yaml

    try:
        found = yaml.safe_load((store / "sweep.yaml").read_text("utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return False
    return isinstance(found, Mapping) and found.get("launch") == launch_ids(store)[-1]


def _yaml(value: Mapping[str, Any]) -> str:
    import yaml

    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100))


def now_text() -> str:
    """Return the time, UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def launch_ids(store: Path) -> list[str]:
    """Return the ids of a store's launches, oldest first.

    Raises:
        UserError: The newest launch was made by a newer version of runner.
    """
    found = sorted(path.parent.name for path in (store / "launches").glob("*/launch.json"))
    if found:
        read_launch(store, found[-1])
    return found


def read_launch(store: Path, launch: str) -> dict[str, Any]:
    """Return what ``launch.json`` says.

    Raises:
        UserError: There is no such launch, or a newer version of runner made it.
    """
    path = store / "launches" / launch / "launch.json"
    try:
        record = json.loads(path.read_bytes())
        version = int(record["schema_version"])
    except FileNotFoundError:
        known = [path.parent.name for path in (store / "launches").glob("*/launch.json")]
        if not known:
            raise UserError(
                f"store must stay while it is written, got {store} without its launches; it was removed or "
                "moved: run the same command again"
            ) from None
        raise unknown("launch", launch, known) from None
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise _unreadable(path, error) from error
    check_version(version, path)
    if missing := set(_RECORD_KEYS) - record.keys():
        raise _unreadable(path, f"no {', '.join(sorted(missing))}")
    return dict(record)


def _unreadable(path: Path, reason: object) -> UserError:
    text = " ".join(str(reason).split()) or type(reason).__name__
    return UserError(
        f"store must hold readable launches, got {path} ({text}); `runner verify STORE --repair` sets the "
        "launch aside, its cells stay"
    )


def read_plan(
    store: Path, launch: str, columns: Sequence[str] | None = None, shard: int | None = None
) -> pa.Table:
    """Return the plan of a launch: cells in the grid's order, with the columns of ``PLAN``.

    Args:
        columns: Only these; null is all. Texts that many cells share come dictionary-encoded.
        shard: Only the cells of this shard; null is all.

    Raises:
        UserError: There is no such launch, or its plan is corrupt.
    """
    read_launch(store, launch)
    path = store / "launches" / launch / "plan.parquet"
    options = {"page_checksum_verification": True, "read_dictionary": _TEXTS}
    with readable(path), pq.ParquetFile(path, **options) as file:
        schema = file.schema_arrow
        version = json.loads((schema.metadata or {}).get(b"schema_version", b"0"))
        names = names_today(schema.names, "cells", version)
        if shard is None:
            return read_columns(file, names, columns)
        groups = (read_columns(file, names, columns, group) for group in range(file.num_row_groups))
        return pa.concat_tables(rows.filter(pc.equal(rows["shard"], shard)) for rows in groups)


def read_config(store: Path, launch: str) -> dict[str, Any]:
    """Return the resolved config of a launch.

    Raises:
        UserError: There is no such launch.
    """
    import yaml

    read_launch(store, launch)
    path = store / "launches" / launch / "config.yaml"
    try:
        config = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise _unreadable(path, error) from error
    if not isinstance(config, dict):
        raise _unreadable(path, "no map of keys")
    return config


def record_failure(store: Path, launch: str, cell_id: str, traceback_text: str) -> Path:
    """Keep the traceback of a cell that failed and return its file."""
    path = failure_path(store, launch, cell_id)
    with atomic(path) as file:
        file.write(traceback_text.encode("utf-8", "backslashreplace"))
    return path


def failure_path(store: Path, launch: str, cell_id: str) -> Path:
    """Return where the traceback of a cell is kept."""
    return store / "launches" / launch / "errors" / f"{cell_id}.txt"
