"""What a store, a checkpoint or a config may say, and what that must never do."""

import ast
import json
import os
import stat
import struct
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from cells import make_cell
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stores import plan, rows

import runner
from runner import cli, store
from runner.data import files as data_files
from runner.errors import UserError
from runner.grid.config import cell_from_config, conf_dir, load_thresholds
from runner.launching.rerun import rerun
from runner.store import launches, status
from runner.store.leases import Leases
from runner.store.verify import repair, verify

SOURCES = sorted(Path(runner.__file__).parent.rglob("*.py"))


def assert_one_line(error):
    assert "\n" not in str(error)


FUZZ = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
HOSTILE = "[red]x[/red]\x1b[2J\u202e<script>alert(1)</script>"

DATA_FILES = {
    "train-images-idx3-ubyte": struct.pack(">HBBIII", 0, 8, 3, 2, 3, 3) + bytes(18),
    "data_batch_1.bin": (bytes([1]) + bytes(3072)) * 2,
    "digits.npz": None,
    "digits.parquet": None,
}
"""Data files that are what they should be, or None for any bytes at all."""


# -- code in data ------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_nothing_unpickles(path):
    """Between processes of one launch multiprocessing does; from a file nothing may."""
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"} & set(names), node.lineno
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in {"torch.load", "np.load", "numpy.load", "pd.read_pickle", "eval", "exec"}, (
                called
            )
            assert called not in {"yaml.load", "yaml.unsafe_load", "yaml.full_load"}, called


def test_yaml_of_a_store_makes_no_objects(tmp_path):
    name = launches.new_launch(tmp_path, {"name": "x"}, plan(["a"], [0], [0]))
    trap = tmp_path / "trap"
    text = f"!!python/object/apply:os.mkdir ['{trap}']"
    (tmp_path / "launches" / name / "config.yaml").write_text(text)
    with pytest.raises(UserError, match="must hold readable launches"):
        launches.read_config(tmp_path, name)
    assert not trap.exists()


def test_code_that_a_store_names_is_not_called(tmp_path, capsys):
    cell = make_cell(model={"_target_": "os.mkdir", "path": str(tmp_path / "trap")})
    columns = rows("cells", [cell.cell_id]) | {name: [value] for name, value in cell.row().items()}
    columns |= {name: [None] for name in ("trace_rows", "layer_rows", "output_rows")}
    asked = {name: columns[name] for name in ("cell_id", *cell.row())} | {"pack": [0], "shard": [0]}
    name = launches.new_launch(tmp_path, {"name": "x", "device": "cpu"}, asked)
    store.write_part(tmp_path, "cells", columns | {"launch": [name]}, "1")
    for words in (["status"], ["phase"], ["verify"], ["verify", "--repair"]):
        assert cli.main([*words[:1], str(tmp_path), *words[1:]]) == 0, capsys.readouterr()
    with pytest.raises(UserError, match=r"must only call code of runner, got 'os\.mkdir'.*--trust"):
        rerun(tmp_path, 1)
    assert not (tmp_path / "trap").exists()


# -- names -------------------------------------------------------------------------------------------


def test_names_from_configs_do_not_steer_the_terminal(tmp_path, capsys):
    ids = [f"c{i}" for i in range(8)]
    columns = rows("cells", ids, width=[8, 8, 16, 16, 32, 32, 64, 64], lr=[0.1, 1.0] * 4, lr_unit="absolute")
    columns |= {
        "regime": ["lazy"] * 8,
        "parameterization": [HOSTILE] * 4 + ["ntk"] * 4,
        "data": [HOSTILE] * 8,
    }
    columns |= {"settings": ["{}"] * 8, "exponents": ["{}"] * 8}
    columns |= {"status": ["ok"] * 7 + ["failed"], "error": [None] * 7 + [f"ValueError: {HOSTILE}"]}
    store.write_part(tmp_path, "cells", columns, "1")
    store.write_part(tmp_path, "trace", rows("trace", ids), "1")
    store.write_part(tmp_path, "layers", rows("layers", ids), "1")
    for words in (
        ["status", "--failures"],
        ["phase"],
        ["fit", "--metric", "ntk_change"],
        ["phase", "--where", f"data={HOSTILE}"],
    ):
        cli.main([words[0], str(tmp_path), *words[1:]])
        shown = "".join(capsys.readouterr())
        assert "\x1b" not in shown
        assert "\u202e" not in shown
    cli.main(["phase", str(tmp_path)])
    assert "[red]x[/red]" in capsys.readouterr().out


# -- files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_permissions_follow_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        folder = tmp_path / "out"
        name = launches.new_launch(folder, {"name": "x"}, plan(["a"], [0], [0]))
        store.write_part(folder, "cells", rows("cells", ["a"]), "1")
        launches.record_failure(folder, name, "a", "text")
        with Leases(folder, name, 0).take(["a"]):
            modes = {path: stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*")}
    finally:
        os.umask(before)
    assert len(modes) > 8
    for path, mode in modes.items():
        assert mode == (0o777 if path.is_dir() else 0o666) & ~umask, path


# -- fuzz --------------------------------------------------------------------------------------------

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def config():
    """A whole config, of plain values."""
    content = yaml.safe_load((conf_dir() / "config.yaml").read_text("utf-8"))
    cell = make_cell()
    sections = json.loads(cell.settings)
    config = {key: value for key, value in content.items() if key not in {"defaults", "hydra"}}
    config |= {key: {**sections[key], "name": "x"} for key in ("model", "data", "optimizer", "measure")}
    return config | {"parameterization": {**json.loads(cell.exponents), "name": "ntk"}, "regime": {}}


@FUZZ
@given(data=st.data())
def test_any_config_is_a_cell_or_a_users_mistake(config, data):
    key = data.draw(st.sampled_from([*config, "new"]) | st.text(max_size=5))
    changed = {**config, key: data.draw(plain)}
    try:
        assert cell_from_config(changed).cell_id.startswith("c")
    except UserError as error:
        assert_one_line(error)


@FUZZ
@given(
    content=st.binary(max_size=200)
    | st.text(max_size=60).map(str.encode)
    | plain.map(lambda v: yaml.safe_dump(v).encode())
)
def test_any_file_of_thresholds_is_read_or_refused(tmp_path, content):
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    try:
        assert isinstance(load_thresholds(path), dict)
    except UserError as error:
        assert_one_line(error)


@pytest.fixture
def sound(tmp_path):
    """A small store, and the bytes of its files."""
    name = launches.new_launch(tmp_path, {"name": "x"}, plan(["a", "b"], [0, 0], [0, 0]))
    for table in ("cells", "trace", "layers"):
        store.write_part(tmp_path, table, rows(table, ["a"]), "1")
    (tmp_path / "launches" / name / "shard-0.json").write_text("{}")
    (tmp_path / "launches" / name / "jobs.json").write_text('{"jobs": {"0": "1_0"}}')
    files = sorted(path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock")
    return tmp_path, {path: path.read_bytes() for path in files}


def mutated(draw, whole):
    """Other bytes: noise, a cut, or a few bytes changed."""
    kind = draw(st.sampled_from(["noise", "cut", "change"]))
    if kind == "noise" or not whole:
        return draw(st.binary(max_size=200) | plain.map(lambda value: json.dumps(value).encode()))
    if kind == "cut":
        return whole[: draw(st.integers(0, len(whole)))]
    changed = bytearray(whole)
    for _ in range(draw(st.integers(1, 8))):
        changed[draw(st.integers(0, len(whole) - 1))] = draw(st.integers(0, 255))
    return bytes(changed)


@settings(FUZZ, max_examples=30)  # each goes through five readers of whole stores
@given(data=st.data())
def test_any_bytes_in_a_store_are_read_or_refused_in_a_line(sound, data):
    folder, files = sound
    path = data.draw(st.sampled_from(sorted(files)))
    path.write_bytes(mutated(data.draw, files[path]))
    try:
        for use in (status.status, store.finished, verify, lambda at: store.load(at).cells, repair):
            try:
                use(folder)
            except UserError as error:
                assert_one_line(error)
    finally:
        for place in folder.rglob("*"):
            if place.is_file() and place not in files:
                place.unlink()
        for place, whole in files.items():
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(whole)


def retyped(path, column, values):
    """Write a part again with other values in a column, and with the checksums of those."""
    with pq.ParquetFile(path) as file:
        rows = file.read()
    rows = rows.set_column(rows.column_names.index(column), pa.field(column, values.type), values)
    pq.write_table(rows, path, write_page_checksum=True)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("lr", pa.array(["x"])),
        ("cell_id", pa.array([[1]])),
        ("status", pa.array([[1]])),
        ("settings", pa.array([1])),
        ("settings", pa.array(["{"])),
        ("settings", pa.array(["[]"])),
        ("width", pa.array([0.5])),
    ],
    ids=lambda given: given if isinstance(given, str) else str(given.to_pylist()),
)
def test_a_column_of_another_type_is_refused_in_a_line(sound, column, values):
    """A byte of a footer is enough for it, and no checksum covers those."""
    folder, _ = sound
    part = next((folder / "cells").glob("*.parquet"))
    retyped(part, column, values)
    for table in ("cells", "trace", "layers"):
        whole = {"output_rows": [0]} if table == "cells" else {}
        store.write_part(folder, table, rows(table, ["b"], **whole), "2")
    for use in (lambda at: store.load(at).cells, store.compact):
        with pytest.raises(UserError, match=r"parts, got .*part-1\.parquet"):
            use(folder)
    assert "set aside cells/part-1.parquet" in "".join(repair(folder))
    assert list(store.load(folder).cells["cell_id"]) == ["b"]


def test_ids_that_another_program_wrote_as_large_text_are_read(sound):
    folder, files = sound
    for path in files:
        if path.suffix == ".parquet" and path.parent.name in {"cells", "trace"}:
            retyped(path, "cell_id", pa.array(["a"], pa.large_string()))
    store.write_part(folder, "cells", rows("cells", ["b"]), "2")
    loaded = store.load(folder)
    assert sorted(loaded.cells["cell_id"]) == ["a", "b"]
    assert list(loaded.trace["cell_id"]) == ["a"]


@pytest.mark.parametrize("name", DATA_FILES)
@FUZZ
@given(data=st.data())
def test_any_data_file_is_read_or_refused_in_a_line(tmp_path, name, data):
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(struct.pack(">HBBI", 0, 8, 1, 2) + bytes(2))
    path = tmp_path / name
    path.write_bytes(mutated(data.draw, DATA_FILES[name] or b""))
    try:
        train, _ = data_files.read(path)
        assert len(train.inputs) == len(train.labels)
    except UserError as error:
        assert_one_line(error)
