"""A measure of the layers against their depth: the numbers by hand, and its three forms."""

import json
import math

import pandas as pd
import pytest
from sweeping import run_in
from vega import compared_with_schema

import runner
from runner import cli
from runner.errors import UserError
from runner.views.profile import along_depth

SWEEP = [
    "sweep", "width=8,16", "lr=0.1", "seed=0,1", "depth=3", "steps=6", "workers=1",
    "parameterization=ntk,mup", "data=xor", "data.dim=6", "data.train_size=24", "data.test_size=16",
    "data.probe_size=8", "store=out",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("profile")
    assert run_in(path, *SWEEP) == 0
    return path / "out"


def test_the_numbers_by_hand(folder):
    store = runner.load(folder)
    table = store.profile("movement_frobenius").table
    assert list(table.columns[:2]) == ["parameterization", "width"]
    for row in table.to_dict("records"):
        cells = store.cells[
            (store.cells["width"] == row["width"])
            & (store.cells["parameterization"] == row["parameterization"])
        ]
        last = [
            found["movement_frobenius"]
            for found in store.layers.to_dict("records")
            if found["cell_id"] in set(cells["cell_id"])
            if found["step"] == 6 and found["layer"] == row["layer"]
        ]
        assert row["seeds"] == len(last) == 2
        assert row["value"] == pytest.approx(math.sqrt(last[0] * last[1]), rel=1e-12)
        assert (row["low"], row["high"]) == (pytest.approx(min(last)), pytest.approx(max(last)))
    assert len(table) == 2 * 2 * 4  # parameterizations, widths, layers
    assert sorted(table["layer_index"].unique()) == [0, 1, 2, 3]
    assert set(table["role"]) == {"input", "hidden", "output"}


def test_networks_of_several_depths_are_set_beside_each_other_by_place():
    layers = pd.DataFrame(
        [
            {"cell_id": str(depth), "step": 1, "layer_index": place, "layer": f"hidden.{place}"}
            | {"role": "hidden", "update_own": 1.0}
            for depth in (2, 4) for place in range(depth + 1)
        ]
    )  # fmt: skip
    cells = pd.DataFrame({"cell_id": ["2", "4"], "depth": [2, 4], "seed": 0, "status": "ok"})
    table = along_depth(cells, layers, "update_own", "depth", ())
    assert table.loc[table["depth"] == 2, "place"].tolist() == [0, 0.5, 1]
    assert table.loc[table["depth"] == 4, "place"].tolist() == [0, 0.25, 0.5, 0.75, 1]


def test_a_layer_without_a_value_has_no_point(folder):
    """Features follow the hidden layers; the readout has none."""
    table = runner.load(folder).profile().table
    assert sorted(table["layer_index"].unique()) == [0, 1, 2]


def test_cells_that_did_not_train_and_values_of_zero_are_left_out():
    cells = pd.DataFrame(
        {
            "cell_id": ["a", "b", "c"],
            "width": [8, 8, 8],
            "seed": [0, 1, 2],
            "status": ["ok", "diverged", "ok"],
        }
    )
    rows = [("a", 0, 9.0), ("a", 5, 2.0), ("b", 0, 7.0), ("c", 0, 3.0), ("c", 5, 0.0)]
    layers = pd.DataFrame(rows, columns=["cell_id", "step", "moved"])
    layers = layers.assign(layer="hidden.0", layer_index=0, role="input")
    (row,) = along_depth(cells, layers, "moved", "width", ()).to_dict("records")
    # Of c, the last step with a value is the first.
    assert row["seeds"] == 2
    assert row["value"] == pytest.approx(math.sqrt(2.0 * 3.0))
    with pytest.raises(UserError, match="must have positive values"):
        along_depth(cells, layers.assign(moved=0.0), "moved", "width", ())


def test_command_method_and_page_say_the_same(folder, tmp_path, capsys):
    store = runner.load(folder)
    assert cli.main(["profile", str(folder), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["metric"], said["by"], said["facets"]) == ("feature_movement", "width", ["parameterization"])
    assert [row["value"] for row in said["rows"]] == pytest.approx(list(store.profile().table["value"]))
    with compared_with_schema():
        assert cli.main(["profile", str(folder), "--out", str(tmp_path / "profile.svg")]) == 0
    text = capsys.readouterr().out
    assert "hidden.1 (hidden)" in text
    assert "feature movement" in (tmp_path / "profile.svg").read_text("utf-8")
    assert "one line per width" in (tmp_path / "profile.caption.txt").read_text("utf-8")
    page = store.report(tmp_path / "page.html")
    html = page.path.read_text("utf-8")
    assert 'id="profile"' in html
    assert "runner profile " in html


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--metric", "feature_movment"], "did you mean 'feature_movement'"),
        (["--metric", "role"], "--metric must be one of"),
        (["--facet", "none"], "parameterization varies"),
        (["--by", "nothing"], "--by must be a column"),
        (["--metric", "update_size"], "must have positive values"),
    ],
)
def test_what_it_refuses(folder, capsys, words, message):
    assert cli.main(["profile", str(folder), *words]) == 2
    assert message in capsys.readouterr().err
