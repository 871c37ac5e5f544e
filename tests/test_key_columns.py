"""Keys of a cell's groups as columns of ``cells``, and the name of a parameterization that was changed."""

import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from sweeping import cells_of
from test_old_store import OLD

import runner
from runner import cli
from runner.commands import sweep
from runner.store.keys import key_columns, with_keys
from runner.store.verify import verify

TINY = ("data=xor", "data.dim=4", "data.train_size=16", "data.test_size=8", "data.probe_size=8", "width=8",
        "lr=0.1", "steps=2", "workers=1", "store=out")  # fmt: skip


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_every_key_of_a_cell_is_a_typed_column():
    """A swept key had to be parsed out of a JSON string."""
    line = [*TINY, "data=xor,staircase", "model.activation=relu,tanh", "model.bias=true,false"]
    line.remove("data.dim=4")
    assert sweep.main([*line, "data.dim=10,12"]) == 0
    cells = pd.read_parquet("out/cells")
    assert cells["data.dim"].dtype == "Int64"
    assert cells["model.bias"].dtype == "boolean"
    assert cells["parameterization.a.hidden"].dtype == "float64"
    assert set(cells["model.activation"]) == {"relu", "tanh"}
    for text, activation, dim in zip(
        cells["settings"], cells["model.activation"], cells["data.dim"], strict=True
    ):
        settings = json.loads(text)
        assert settings["model"]["activation"] == activation
        assert settings["data"].get("dim") == dim


def test_columns_of_later_parts_join_those_of_earlier_ones():
    assert sweep.main([*TINY, "model.sigma_bias=1"]) == 0
    assert sweep.main([*TINY, "model.sigma_bias=0.5"]) == 0
    assert sweep.main([*TINY, "model=resmlp"]) == 0
    for cells in (runner.load("out").cells, pd.read_parquet("out/cells")):
        by_model = cells.set_index("model")
        assert sorted(by_model.loc["mlp", "model.sigma_bias"]) == [0.5, 1.0]
    assert verify(Path("out")).problems == []


def test_large_whole_numbers_beside_fractions_are_read():
    assert sweep.main([*TINY, "model.sigma_bias=9007199254740993"]) == 0
    assert sweep.main([*TINY, "model.sigma_bias=0.5"]) == 0
    assert sorted(runner.load("out").cells["model.sigma_bias"]) == [0.5, 2.0**53]


def test_types_follow_from_the_values():
    settings = [
        {"model": {"a": 1, "b": True, "c": [1, 2], "d": None, "e": 1, "f": "x"}},
        {"model": {"a": 0.5, "b": None, "e": "one", "f": "y", "g": 2**70}},
    ]
    rows = pa.table({"settings": list(map(json.dumps, settings)), "exponents": ['{"a":{"x":1}}'] * 2})
    columns = key_columns([rows])
    assert {column.name: column.type for column in columns} == {
        "model.a": "float64", "model.b": "bool", "model.c": "string", "model.d": "string",
        "model.e": "string", "model.f": "string", "model.g": "string", "parameterization.a.x": "float64",
    }  # fmt: skip
    found = with_keys(rows, [column.name for column in columns]).to_pydict()
    assert found["model.a"] == [1.0, 0.5]
    assert found["model.b"] == [True, None]
    assert found["model.c"] == ["[1, 2]", None]
    assert found["model.e"] == ["1", "one"]
    assert found["model.g"] == [None, str(2**70)]


def test_stores_without_these_columns_are_migrated_when_they_are_read(tmp_path):
    old = runner.load(OLD).cells
    assert set(old["model.activation"]) == {"relu"}
    assert set(old["data.dim"]) == {4}
    assert "data.dim" not in pd.read_parquet(OLD / "cells")
    assert runner.load(OLD).table("cells", ["data.dim"]).column_names == ["data.dim"]


# -- a changed table ---------------------------------------------------------------------------------


def test_a_changed_table_is_named_as_changed(monkeypatch, capsys):
    """Cells with other exponents were all called ntk."""
    assert sweep.main([*TINY, "width=8,16,32", "parameterization.a.output=1/2,3/4"]) == 0
    assert set(pd.read_parquet("out/cells")["parameterization"]) == {"ntk", "ntk with a.output=0.75"}
    capsys.readouterr()
    assert cli.main(["phase", "out"]) == 0
    assert "a.output=0.75" in capsys.readouterr().out
    assert cli.main(["fit", "out", "--metric", "lambda_max_init", "--json"]) == 0
    theory = {row["parameterization"]: row["theory"] for row in json.loads(capsys.readouterr().out)["rows"]}
    assert theory == {"ntk": 0.0, "ntk with a.output=0.75": -0.5}  # of the exponents, not the name
    assert verify(Path("out")).problems == []


def test_the_name_is_no_part_of_the_id(monkeypatch):
    changed = cells_of(monkeypatch, *TINY, "parameterization.a.output=3/4")[0]
    assert changed.parameterization == "ntk with a.output=0.75"
    before = type(changed)(**changed.row() | {"parameterization": "ntk"})
    assert changed.cell_id == before.cell_id
