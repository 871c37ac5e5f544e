"""Tied axes: keys that run together instead of spanning a product (hydra #1258)."""

import json

import pandas as pd
import pytest
from sweeping import TINY, cells_of

from runner import cli
from runner.commands import sweep

LINE = (*TINY, "width=8,16,32", "lr=1,0.5,0.25", "seed=0,1")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def points(cells, *keys):
    return [tuple(getattr(cell, key) for key in keys) for cell in cells]


def test_tied_axes_run_together(monkeypatch):
    cells = cells_of(monkeypatch, *LINE, "zip=width,lr")
    assert sorted(points(cells, "width", "lr", "seed")) == [
        (8, 1.0, 0), (8, 1.0, 1), (16, 0.5, 0), (16, 0.5, 1), (32, 0.25, 0), (32, 0.25, 1),
    ]  # fmt: skip
    alone = cells_of(monkeypatch, *TINY, "width=16", "lr=0.5")
    assert alone[0].cell_id in {cell.cell_id for cell in cells}


def test_several_ties_span_a_product(monkeypatch):
    line = ("width=8,16", "lr=1,2", "gamma=0.1,1", "depth=1,2")
    cells = cells_of(monkeypatch, *TINY, *line, "zip=[[width,lr],[gamma,depth]]")
    assert sorted(points(cells, "width", "lr", "gamma", "depth")) == [
        (8, 1.0, 0.1, 1), (8, 1.0, 1.0, 2), (16, 2.0, 0.1, 1), (16, 2.0, 1.0, 2),
    ]  # fmt: skip


def test_groups_and_their_keys_and_what_others_refer_to(monkeypatch):
    cells = cells_of(monkeypatch, *TINY, "model=mlp,resmlp", "lr=1,2", "zip=model,lr")
    assert points(cells, "model", "lr") == [("mlp", 1.0), ("resmlp", 2.0)]
    cells = cells_of(monkeypatch, *TINY, "data.dim=3,5", "width=8,16", "zip=data.dim,width", "steps=${width}")
    assert sorted((cell.width, cell.steps, json.loads(cell.settings)["data"]["dim"]) for cell in cells) == [
        (8, 8, 3), (16, 16, 5),
    ]  # fmt: skip


def test_in_yaml(monkeypatch, tmp_path):
    folder = tmp_path / "conf" / "experiment"
    folder.mkdir(parents=True)
    grids = [{"width": [8, 16], "lr": [1, 2]}, {"width": "8,16", "gamma": "1,2", "zip": ["width", "gamma"]}]
    sweeper = {"params": {"seed": "0,1"}, "zip": ["width", "lr"], "grids": grids}
    text = "# @package _global_\n" + json.dumps({"hydra": {"sweeper": sweeper}})
    (folder / "pairs.yaml").write_text(text)
    cells = cells_of(monkeypatch, *TINY, "--config-dir", str(tmp_path / "conf"), "experiment=pairs")
    assert sorted(points(cells, "width", "lr", "gamma", "seed")) == [
        (8, 0.1, 1.0, 0), (8, 0.1, 1.0, 1), (8, 1.0, 1.0, 0), (8, 1.0, 1.0, 1),
        (16, 0.1, 2.0, 0), (16, 0.1, 2.0, 1), (16, 2.0, 1.0, 0), (16, 2.0, 1.0, 1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("width=8,16", "lr=1,2,3", "zip=width,lr"), "axes of one length, got width with 2, lr with 3"),
        (("width=8,16", "lr=1", "zip=width,lr"), "zip must tie axes (width), each once, got lr"),
        (("width=8,16", "zip=width,width"), "zip must tie axes (width), each once, got width"),
        (("zip=width,lr",), "zip must tie axes, got width"),
        (("width=8,16", "hydra.sweeper.zip=3"), "zip must be a list of keys, got 3"),
        (
            ("+model={activation:relu},{activation:tanh}", "+model={bias:true},{bias:false}"),
            "model must be one axis, got two of maps",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_tied(arguments, message, capsys, tmp_path):
    assert sweep.main([*TINY, *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_it_resumes_and_is_shown(capsys):
    line = [*LINE, "zip=width,lr", "store=out", "workers=1"]
    assert sweep.main(line) == 0
    out = capsys.readouterr().out
    assert "--where lr=" not in out
    assert sweep.main(line) == 0
    assert "all 6 cells are finished already" in capsys.readouterr().err
    assert cli.main(["fit", "out", "--metric", "ntk_change", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert (row["widths"], row["cells"]) == (3, 6)
    assert len(pd.read_parquet("out/cells")) == 6
    assert sweep.main([*LINE, "store=out", "workers=1"]) == 0
    assert cli.main(["fit", "out", "--metric", "ntk_change"]) == 2
    assert "lr varies" in capsys.readouterr().err
