"""Parts, compaction and loading: nothing lost, nothing doubled, every reader sees the declared types."""

import errno
import json
import math
import multiprocessing
import os
import threading
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from compacting import write_and_compact
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stores import rows

import runner
from runner import store
from runner.errors import UserError
from runner.schema import CELLS, KEYS, SCHEMA_VERSION, TABLES
from runner.store import arrow, files, status, tables
from runner.store import parts as parts_module
from runner.store.keys import SOURCES

ARROW = {"string": pa.string(), "int64": pa.int64(), "float64": pa.float64(), "bool": pa.bool_()}


def write(folder, ids, name, **columns):
    """The parts of a pack, as the sweep writes them."""
    for table in ("trace", "layers", "outputs"):
        store.write_part(folder, table, rows(table, ids), name)
    store.write_part(folder, "cells", rows("cells", ids, **columns), name)


def parts(folder, table="cells"):
    return sorted(path.name for path in (folder / table).glob("part-*.parquet"))


def loaded_ids(folder, table="cells"):
    return sorted(store.read_table(folder, table, ["cell_id"])["cell_id"].to_pylist())


def hidden(folder):
    return [path for path in folder.rglob(".*") if path.name != ".lock"]


# -- writing -----------------------------------------------------------------------------------------

VALUES = {
    "string": st.none() | st.text(st.characters(codec="utf-8")),
    "int64": st.none() | st.integers(-(2**63), 2**63 - 1),
    "float64": st.none() | st.floats(),
    "bool": st.none() | st.booleans(),
}


@st.composite
def any_cells(draw):
    count = draw(st.integers(0, 4))
    columns = {
        column.name: draw(
            st.lists(
                VALUES[column.type]
                if column.nullable
                else VALUES[column.type].filter(lambda v: v is not None),
                min_size=count,
                max_size=count,
            )
        )
        for column in CELLS
    }
    columns["cell_id"] = [f"c1-{i}" for i in range(count)]
    return columns


def same(left, right):
    if isinstance(left, float) and isinstance(right, float):
        return left == right or (math.isnan(left) and math.isnan(right))
    return left == right and type(left) is type(right)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(any_cells())
def test_every_value_comes_back_as_it_was(tmp_path_factory, columns):
    folder = tmp_path_factory.mktemp("store")
    store.write_part(folder, "cells", columns, "a")
    back = store.read_table(folder, "cells").to_pydict()
    assert list(back) == [column.name for column in CELLS]
    for name, values in columns.items():
        assert all(map(same, back[name], values)), name


def test_null_and_nan_stay_apart(tmp_path):
    columns = rows("cells", ["a", "b", "c"], train_loss=[None, math.nan, math.inf])
    store.write_part(tmp_path, "cells", columns, "a")
    store.write_part(tmp_path, "cells", rows("cells", ["d"], train_loss=[None]), "b")
    store.compact(tmp_path)
    loss = runner.load(tmp_path).table("cells", ["train_loss"])["train_loss"]
    assert loss.null_count == 2
    assert math.isnan(loss[1].as_py())
    assert loss[2].as_py() == math.inf


def test_an_all_null_and_a_missing_column_keep_their_types(tmp_path):
    columns = rows("cells", ["a"], diverged_step=[None])
    del columns["catapult"], columns["test_loss"]
    path = store.write_part(tmp_path, "cells", columns, "a")
    schema = pq.read_schema(path)
    assert [schema.field(name).type for name in ("diverged_step", "catapult", "test_loss")] == [
        pa.int64(),
        pa.bool_(),
        pa.float64(),
    ]


@pytest.mark.parametrize("table", TABLES)
def test_types_units_and_meanings_are_the_schemas(tmp_path, table):
    nothing = {name: [] for name in SOURCES} if table == "cells" else {}
    schema = pq.read_schema(store.write_part(tmp_path, table, nothing, "empty"))
    assert schema.names == [column.name for column in TABLES[table]]
    assert schema.metadata[b"schema_version"] == str(SCHEMA_VERSION).encode()
    for column in TABLES[table]:
        field = schema.field(column.name)
        assert field.type == ARROW[column.type]
        assert field.metadata[b"unit"].decode() == column.unit
        assert field.metadata[b"meaning"].decode() == column.meaning
        assert json.loads(field.metadata[b"nullable"]) == column.nullable


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": [1.5]}, "column width must hold int64"),
        ({"diverged_step": [math.nan]}, "column diverged_step must hold int64"),
        ({"train_loss": ["low"]}, "column train_loss must hold double"),
        ({"status": [None]}, "column status must not be null"),
        ({"seed": [1, 2]}, "columns must have one length"),
        ({"my_own": ["x"]}, "column my_own must hold double"),
    ],
)
def test_a_value_that_does_not_fit_is_refused(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        store.write_part(tmp_path, "cells", rows("cells", ["a"], **change), "a")
    assert not list(tmp_path.rglob("*.parquet"))


def test_two_rows_of_one_key_are_refused(tmp_path):
    with pytest.raises(ValueError, match="trace must have one row for each cell_id, step"):
        store.write_part(tmp_path, "trace", rows("trace", ["a", "a"]), "a")


def test_text_that_is_not_unicode_is_escaped(tmp_path):
    store.write_part(tmp_path, "cells", rows("cells", ["a", "b"], error=["bad \udc80", None]), "a")
    assert store.read_table(tmp_path, "cells", ["error"])["error"].to_pylist() == ["bad \\udc80", None]


def test_columns_of_users_measures_are_kept(tmp_path):
    store.write_part(tmp_path, "cells", rows("cells", ["a"]), "a")
    store.write_part(tmp_path, "cells", rows("cells", ["b"], my_own=[0.25]), "b")
    for _ in range(2):
        cells = runner.load(tmp_path).cells.set_index("cell_id")
        assert cells.my_own["b"] == 0.25
        assert math.isnan(cells.my_own["a"])
        store.compact(tmp_path)


def fail_with(code):
    def fail(*args, **kwargs):
        raise OSError(code, os.strerror(code))

    return fail


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (errno.ENOSPC, "no space left in .*/cells; free some and run the same command again"),
        (errno.EDQUOT, "no space left"),
        (errno.EROFS, "folder that can be written, got .*/cells .*; choose another with store="),
        (errno.EACCES, "folder that can be written"),
    ],
)
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_error_is_one_line_and_leaves_nothing(tmp_path, monkeypatch, call, code, message):
    monkeypatch.setattr(files.os, call, fail_with(code))
    with pytest.raises(UserError, match=message) as caught:
        store.write_part(tmp_path, "cells", rows("cells", ["a"]), "a")
    assert "\n" not in str(caught.value)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_disk_that_fills_up_while_arrow_writes_is_told_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(pq.ParquetWriter, "write_table", fail_with(errno.ENOSPC))
    with pytest.raises(UserError, match="no space left"):
        store.write_part(tmp_path, "cells", rows("cells", ["a"]), "a")
    assert not hidden(tmp_path)


def test_a_failed_write_keeps_the_part_that_was_there(tmp_path, monkeypatch):
    store.write_part(tmp_path, "cells", rows("cells", ["a"]), "a")
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", fail_with(errno.EIO))
        with pytest.raises(OSError, match="Input/output"):
            store.write_part(tmp_path, "cells", rows("cells", ["b"]), "a")
    assert loaded_ids(tmp_path) == ["a"]
    assert not hidden(tmp_path)


# -- which rows count --------------------------------------------------------------------------------


@pytest.mark.parametrize("compacted", [False, True])
def test_a_retrained_cell_counts_once_and_whole(tmp_path, compacted):
    old = rows("trace", ["a", "a", "a", "b"], step=[0, 1, 2, 0], train_loss=1.0)
    new = rows("trace", ["a", "a"], step=[0, 1], train_loss=2.0)
    write(tmp_path, ["a", "b"], "1", status=["failed", "ok"])
    write(tmp_path, ["a"], "2")
    store.write_part(tmp_path, "trace", old, "1")
    store.write_part(tmp_path, "trace", new, "2")
    if compacted:
        store.compact(tmp_path)
    data = runner.load(tmp_path)
    assert dict(zip(data.cells.cell_id, data.cells.status, strict=True)) == {"a": "ok", "b": "ok"}
    assert sorted(zip(data.trace.cell_id, data.trace.step, data.trace.train_loss, strict=True)) == [
        ("a", 0, 2.0),
        ("a", 1, 2.0),
        ("b", 0, 1.0),
    ]


@pytest.mark.parametrize("compacted", [False, True])
def test_a_failure_never_replaces_a_result(tmp_path, compacted):
    write(tmp_path, ["a"], "1")
    write(tmp_path, ["a"], "2", status="failed")
    if compacted:
        store.compact(tmp_path)
    assert runner.load(tmp_path).cells.status.tolist() == ["ok"]


def test_finished_cells_and_retry(tmp_path):
    assert store.finished(tmp_path / "none") == set()
    write(tmp_path, ["a", "b", "c"], "1", status=["ok", "diverged", "failed"])
    assert store.finished(tmp_path) == {"a", "b", "c"}
    assert store.finished(tmp_path, retry="failed") == {"a", "b"}


# -- compaction --------------------------------------------------------------------------------------


def test_compaction_leaves_one_part_per_table_with_the_same_rows(tmp_path):
    for k in range(5):
        write(tmp_path, [f"{k}a", f"{k}b"], str(k))
    before = {table: store.read_table(tmp_path, table).to_pylist() for table in TABLES}
    store.compact(tmp_path)
    for table in TABLES:
        assert len(parts(tmp_path, table)) == 1
        assert store.read_table(tmp_path, table).to_pylist() == before[table]
    kept = parts(tmp_path)
    store.compact(tmp_path)
    assert parts(tmp_path) == kept, "nothing to do, and yet something was done"


def test_compaction_streams_into_row_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "BATCH_ROWS", 3)
    monkeypatch.setattr(tables, "ROW_GROUP_ROWS", 5)
    ids = [f"{i:02d}" for i in range(20)]
    store.write_part(tmp_path, "cells", rows("cells", ids[:11]), "1")
    store.write_part(tmp_path, "cells", rows("cells", ids[7:]), "2")
    store.compact(tmp_path)
    assert loaded_ids(tmp_path) == ids
    (path,) = (tmp_path / "cells").glob("part-*.parquet")
    assert pq.read_metadata(path).num_row_groups > 1


class Killed(BaseException):
    pass


@pytest.mark.parametrize("step", [*range(9)])
def test_compaction_interrupted_anywhere_loses_nothing_and_is_repaired(tmp_path, monkeypatch, step):
    """Dies before the n-th of: replace the part, remove source 1, 2, 3; table after table."""
    for k in range(3):
        write(tmp_path, [f"{k}a", f"{k}b"], str(k))
    ids = loaded_ids(tmp_path)
    left = iter([None] * step)
    replace, unlink = os.replace, Path.unlink

    def deadly(call):
        def wrapped(*args, **kwargs):
            if str(args[0]).endswith(".parquet") or call is replace:
                try:
                    next(left)
                except StopIteration:
                    raise Killed from None
            return call(*args, **kwargs)

        return wrapped

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", deadly(replace))
        patch.setattr(Path, "unlink", deadly(unlink))
        with pytest.raises(Killed):
            store.compact(tmp_path)
    for table in TABLES:
        assert loaded_ids(tmp_path, table) == ids
    store.write_part(tmp_path, "cells", rows("cells", ["new"]), "new")
    store.compact(tmp_path)
    for table in TABLES:
        assert len(parts(tmp_path, table)) == 1
    assert loaded_ids(tmp_path) == sorted([*ids, "new"])
    assert loaded_ids(tmp_path, "trace") == ids


def test_sources_that_outlived_a_compaction_are_only_removed(tmp_path, monkeypatch):
    for k in range(3):
        write(tmp_path, [f"{k}"], str(k))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", fail_with(errno.EIO))
        with pytest.raises(OSError, match="Input/output"):
            store.compact(tmp_path)
    merged = next((tmp_path / "cells").glob("part-compacted-*.parquet"))
    assert len(parts(tmp_path)) == 4
    before = merged.stat().st_mtime_ns
    store.compact(tmp_path)
    assert parts(tmp_path) == [merged.name]
    assert merged.stat().st_mtime_ns == before


def test_a_compaction_waits_for_another_one(tmp_path):
    for k in range(2):
        write(tmp_path, [f"{k}"], str(k))
    second = threading.Thread(target=store.compact, args=(tmp_path,))
    with files.locked(tmp_path):
        second.start()
        second.join(0.2)
        assert second.is_alive()
        assert len(parts(tmp_path)) == 2
    second.join()
    assert len(parts(tmp_path)) == 1


def test_a_part_of_a_superseded_name_written_later_counts(tmp_path, monkeypatch):
    """A requeued job writes under the names of its first run, which may have been compacted meanwhile."""
    write(tmp_path, ["a"], "1", status="failed")
    write(tmp_path, ["b"], "2")
    write_rows = tables.write_rows

    def write_then_requeue(merged, schema, file):
        write_rows(merged, schema, file)
        if "cells" in str(file.name):
            store.write_part(tmp_path, "cells", rows("cells", ["a"]), "1")

    monkeypatch.setattr(tables, "write_rows", write_then_requeue)
    store.compact(tmp_path)
    assert "part-1.parquet" in parts(tmp_path)
    cells = runner.load(tmp_path).cells.set_index("cell_id")
    assert cells.status.to_dict() == {"a": "ok", "b": "ok"}


def test_without_file_locks_nothing_is_compacted(tmp_path, monkeypatch):
    """Two processes would otherwise compact the same files."""
    write(tmp_path, ["a"], "1")
    write(tmp_path, ["b"], "2")
    monkeypatch.setattr(files, "try_lock", lambda *_, **__: None)
    store.compact(tmp_path)
    assert parts(tmp_path) == ["part-1.parquet", "part-2.parquet"]


def test_a_file_that_is_being_written_is_no_leftover(tmp_path):
    """Even where the clock has jumped by more than a day."""
    with files.atomic(tmp_path / "cells" / "part-1.parquet") as file:
        os.utime(file.name, (1, 1))
        store.compact(tmp_path)
        assert Path(file.name).exists()


def test_leftovers_of_killed_writers_go_after_a_day(tmp_path):
    write(tmp_path, ["a"], "1")
    old, new = (tmp_path / "cells" / f".part-{k}.parquet.1.aa.tmp" for k in "12")
    old.write_bytes(b"")
    new.write_bytes(b"")
    os.utime(old, (time.time() - 2 * 86400,) * 2)
    store.compact(tmp_path)
    assert not old.exists()
    assert new.exists()
    assert loaded_ids(tmp_path) == ["a"]


def test_processes_that_write_and_compact_at_once_lose_nothing(tmp_path):
    for k in range(20):
        store.write_part(tmp_path, "cells", rows("cells", [f"c{k:03d}"]), str(k))
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(3)
    late = [{f"late-{k}": rows("cells", [f"c{k}"]) for k in range(first, first + 4)} for first in (100, 110)]
    jobs = [context.Process(target=write_and_compact, args=(tmp_path, parts, start)) for parts in late]
    for job in jobs:
        job.start()
    start.wait()
    while any(job.is_alive() for job in jobs):
        assert len(store.finished(tmp_path)) >= 20
    for job in jobs:
        job.join()
        assert job.exitcode == 0
    store.compact(tmp_path)
    assert len(parts(tmp_path)) == 1
    assert len(loaded_ids(tmp_path)) == 28


# -- other readers -----------------------------------------------------------------------------------


@pytest.fixture(params=["parts", "compacted", "interrupted write"])
def readable_store(tmp_path, request):
    write(tmp_path, ["a", "b"], "1", diverged_step=[3, None], batch_size=None, catapult=[None, True])
    write(tmp_path, ["c"], "2", diverged_step=None, catapult=None, train_loss=[math.nan])
    if request.param == "compacted":
        store.compact(tmp_path)
    if request.param == "interrupted write":
        for table in TABLES:
            (tmp_path / table / ".part-3.parquet.1.aa.tmp").write_bytes(b"PAR1 half")
    return tmp_path


@pytest.mark.parametrize("table", TABLES)
def test_pandas_reads_the_declared_types(readable_store, table):
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_parquet(readable_store / table)
    assert sorted(frame.cell_id) == ["a", "b", "c"]
    exact = {
        "string": str(pandas.Series(["x"]).dtype),
        "int64": "int64",
        "float64": "float64",
        "bool": "bool",
    }
    nullable = exact | {"int64": "Int64", "bool": "boolean"}
    for column in TABLES[table]:
        kinds = nullable if column.nullable else exact
        # A string column of nulls alone has no text to tell pandas 2 that it is one.
        assert str(frame[column.name].dtype) == kinds[column.type], column.name
    loaded = getattr(runner.load(readable_store), table)
    assert loaded.dtypes.to_dict() == frame.dtypes.to_dict()


@pytest.mark.parametrize("table", TABLES)
def test_polars_reads_the_declared_types(readable_store, table):
    polars = pytest.importorskip("polars")
    frame = polars.read_parquet(readable_store / table / "*.parquet")
    assert sorted(frame["cell_id"]) == ["a", "b", "c"]
    kinds = {
        "string": polars.String,
        "int64": polars.Int64,
        "float64": polars.Float64,
        "bool": polars.Boolean,
    }
    assert dict(frame.schema) == {column.name: kinds[column.type] for column in TABLES[table]}


@pytest.mark.parametrize("table", TABLES)
def test_duckdb_reads_the_declared_types(readable_store, table):
    duckdb = pytest.importorskip("duckdb")
    kinds = {"string": "VARCHAR", "int64": "BIGINT", "float64": "DOUBLE", "bool": "BOOLEAN"}
    with duckdb.connect() as connection:
        query = f"from '{readable_store / table}/*.parquet'"
        found = connection.sql(f"describe {query}").fetchall()
        assert sorted(connection.sql(f"select cell_id {query}").fetchall()) == [("a",), ("b",), ("c",)]
    assert {row[0]: row[1] for row in found} == {column.name: kinds[column.type] for column in TABLES[table]}


# -- loading -----------------------------------------------------------------------------------------


def test_load_gives_empty_typed_tables_before_the_first_pack(tmp_path):
    (tmp_path / "cells").mkdir()
    data = runner.load(tmp_path)
    assert [len(data.cells), len(data.trace), len(data.layers), data.launches] == [0, 0, 0, []]
    assert str(data.cells.diverged_step.dtype) == "Int64"
    assert data.launch_cells() == []
    assert data.config == {}


def test_load_caches_and_says_what_it_is(tmp_path):
    write(tmp_path, ["a", "b"], "1")
    data = runner.load(str(tmp_path))
    assert data.cells is data.cells
    assert repr(data) == f"Store('{tmp_path}': 2 cells, 0 launches)"


def test_a_missing_store_is_named_with_the_ones_there_are(tmp_path):
    with pytest.raises(UserError, match=r"got .*/nope; run `runner sweep` first"):
        runner.load(tmp_path / "nope")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "sweep.yaml").touch()
    with pytest.raises(UserError, match=r"got .*/nope; there are .*/mine"):
        runner.load(tmp_path / "nope")


def test_default_store_is_the_one_launched_last(tmp_path):
    with pytest.raises(UserError, match="run `runner sweep`"):
        store.default_store(tmp_path)
    for age, name in enumerate(["newest", "older"]):
        (tmp_path / name).mkdir()
        (tmp_path / name / "sweep.yaml").touch()
        os.utime(tmp_path / name / "sweep.yaml", (1000 - age, 1000 - age))
    assert store.default_store(tmp_path) == tmp_path / "newest"


@pytest.mark.parametrize("damage", ["empty", "truncated", "flipped", "foreign"])
@pytest.mark.parametrize("use", [store.finished, runner.load, store.compact])
def test_a_corrupt_part_is_named_with_the_remedy(tmp_path, damage, use):
    path = store.write_part(tmp_path, "cells", rows("cells", [f"{i:030d}" for i in range(50)]), "1")
    whole = path.read_bytes()
    if damage == "foreign":
        pq.write_table(pa.table({"x": [1]}), path)
    else:
        flipped = bytearray(whole)
        flipped[40] ^= 0xFF
        path.write_bytes({"empty": b"", "truncated": whole[:-20], "flipped": bytes(flipped)}[damage])
    if use is runner.load and damage == "flipped":
        use = lambda folder: runner.load(folder).cells  # noqa: E731 (only the footer is read at first)
    with pytest.raises(
        UserError, match=r"got .*part-1\.parquet .*; `runner verify STORE --repair` sets it aside"
    ):
        use(tmp_path)


@pytest.mark.parametrize("use", [store.finished, runner.load, store.compact, status.status])
def test_a_newer_schema_is_refused(tmp_path, monkeypatch, use):
    monkeypatch.setattr(arrow, "SCHEMA_VERSION", SCHEMA_VERSION + 1)
    write(tmp_path, ["a"], "1")
    message = (
        rf"version {SCHEMA_VERSION} or older, got {SCHEMA_VERSION + 1} in .*part-1\.parquet; upgrade runner"
    )
    with pytest.raises(UserError, match=message):
        use(tmp_path)


def test_an_older_schema_is_migrated_when_it_is_read(tmp_path, monkeypatch):
    """A renamed column is read under its new name, one that is new is null."""
    path = store.write_part(tmp_path, "cells", rows("cells", ["a"], train_loss=0.25), "old")
    old = pq.read_table(path).rename_columns(
        ["loss_train" if name == "train_loss" else name for name in [column.name for column in CELLS]]
    )
    pq.write_table(old.drop_columns(["cka"]), path)
    for module in (arrow, parts_module):
        monkeypatch.setattr(module, "SCHEMA_VERSION", 2)
    monkeypatch.setattr(parts_module, "RENAMED", {2: {"cells": {"loss_train": "train_loss"}}})
    write(tmp_path, ["b"], "new", train_loss=0.5)
    for _ in range(2):
        (first, second) = store.read_table(tmp_path, "cells").sort_by("cell_id").to_pylist()
        assert (first["train_loss"], first["cka"], second["train_loss"]) == (0.25, None, 0.5)
        assert store.read_table(tmp_path, "cells", ["train_loss"]).num_columns == 1
        store.compact(tmp_path)
    assert len(parts(tmp_path)) == 1


# -- writability -------------------------------------------------------------------------------------


def test_check_writable_leaves_nothing(tmp_path):
    store.check_writable(tmp_path / "deep" / "store")
    assert list(tmp_path.iterdir()) == []
    write(tmp_path, ["a"], "1")
    before = sorted(tmp_path.rglob("*"))
    store.check_writable(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_check_writable_names_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "store"):
        with pytest.raises(UserError, match=r"store must be in a folder that can be written, got .*/file"):
            store.check_writable(folder)


def test_check_writable_tells_a_read_only_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "mkdir", fail_with(errno.EROFS))
    with pytest.raises(UserError, match="read-only file system"):
        store.check_writable(tmp_path / "store")


def test_keys_are_declared_columns_that_are_never_null():
    for table, keys in KEYS.items():
        declared = {column.name: column for column in TABLES[table]}
        assert all(not declared[key].nullable for key in keys)
