"""What people type, and what they mean by it."""

import json
import shlex
from pathlib import Path

import pytest
from sweeping import TINY, Engine, cells_of

from runner.commands import sweep
from runner.errors import UserError
from runner.launching import launch
from runner.measures.schedule import measuring_steps


def told(capsys, *arguments):
    """What a command line that is refused says."""
    assert sweep.main(list(arguments)) == 2
    out, err = capsys.readouterr()
    assert not out
    return err


def data_of(cells):
    return {(cell.data, json.loads(cell.settings)["data"].get("dim")) for cell in cells}


def test_a_key_that_some_of_the_swept_choices_have_is_for_those(monkeypatch):
    cells = cells_of(monkeypatch, "data=digits,xor", "data.dim=10", "width=8")
    assert data_of(cells) == {("digits", None), ("xor", 10)}
    cells = cells_of(monkeypatch, "data=digits,xor,parity", "data.dim=10,12", "width=8")
    assert data_of(cells) == {("digits", None), ("xor", 10), ("xor", 12), ("parity", 10), ("parity", 12)}


def test_a_key_that_no_choice_has_is_refused(capsys):
    err = told(capsys, "data=digits,xor", "data.dmi=10", "width=8")
    assert "data.dmi must be a known config key" in err
    assert "did you mean data.dim?" in err
    assert "data.train_size" in told(capsys, "data.dmi=10", "width=8")


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        (["model=mlp,resmlp", "steps=1"], 2),
        (["gamma=0.1,1"], 2),
        (["data=single_index,staircase"], 2),
        (["model.activation=relu,tanh"], 2),
        (["model.activation=tanh"], 360),
    ],
)
def test_any_axis_is_an_axis(monkeypatch, capsys, arguments, count):
    assert len(cells_of(monkeypatch, *arguments)) == count
    assert "no axis given" not in capsys.readouterr().out  # said when the launch is planned, not before


@pytest.mark.parametrize(("arguments", "said"), [([], True), (["gamma=0.1,1"], False), (["width=8"], False)])
def test_the_default_grid_is_named_when_it_is_planned(monkeypatch, tmp_path, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    Engine(monkeypatch)
    monkeypatch.setattr(launch, "run_shard", lambda *_: None)  # planned and recorded, but not trained
    assert sweep.main(["store=out", "workers=1", *arguments]) == 1
    assert ("no axis given: the default grid, +experiment=default (" in capsys.readouterr().out) == said
    (record,) = Path("out").glob("launches/*/launch.json")
    command = json.loads(record.read_text())["command"]
    assert "store=out" in command
    assert "note" not in command


def test_the_command_is_recorded_as_typed(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Engine(monkeypatch)
    assert sweep.main([*TINY, "width=8", "store=out"]) == 0
    (record,) = Path("out").glob("launches/*/launch.json")
    assert json.loads(record.read_text())["command"] == shlex.join(
        ["runner", "sweep", *TINY, "width=8", "store=out"]
    )


def test_no_note_on_the_grid_before_an_error(capsys):
    assert "steps must be a whole number" in told(capsys, "steps=0")


def test_text_that_is_a_number_is_a_number(monkeypatch):
    monkeypatch.setenv("LR", "0.25")
    monkeypatch.setenv("WIDTH", "16")
    cells = cells_of(monkeypatch, "lr=${oc.env:LR}", "width=${oc.env:WIDTH}", "depth=1")
    assert [(cell.lr, cell.width) for cell in cells] == [(0.25, 16)]
    assert cells == cells_of(monkeypatch, "lr=0.25", "width=16", "depth=1")


@pytest.mark.parametrize("name", ["../x", "a/b", ".."])
def test_a_name_is_a_name(capsys, name):
    assert f"name must be a name, got {name}; store=FOLDER" in told(capsys, f"name={name}", "width=8")


def test_what_to_quote_is_shown_quoted(capsys):
    assert """as text: 'name="ünï"'""" in told(capsys, "name=ünï", "width=8")


@pytest.mark.parametrize(
    ("arguments", "settings"),
    [
        (["measure=[basic,cka]", "measure.points=40"], {"points": 40}),
        (["measure=[cka]", "measure.points=40"], {"points": 40}),
        (["measure.every=5"], {"points": 12, "every": 5}),
        (["measure.spacing=linear"], {"points": 12, "spacing": "linear"}),
        (["measure.steps=[1,5]"], {"points": 12, "steps": [1, 5]}),
        (["measure=[cka]"], {}),  # as before, and so are their ids
    ],
)
def test_measured_steps_are_ordinary_keys(monkeypatch, arguments, settings):
    (cell,) = cells_of(monkeypatch, "width=8", *arguments)
    found = json.loads(cell.settings)["measure"]
    assert {key: value for key, value in found.items() if key != "functions"} == settings


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({}, [0, 1, 2, 3, 4, 6, 8, 11, 15, 20]),
        ({"every": 6}, [0, 6, 12, 18, 20]),
        ({"every": 1}, list(range(21))),
        ({"steps": [3, 7, 90]}, [0, 3, 7, 20]),
        ({"steps": []}, [0, 20]),
        ({"spacing": "linear", "points": 5}, [0, 5, 10, 15, 20]),
        ({"spacing": "linear", "points": 2}, [0, 20]),
    ],
)
def test_measured_steps(settings, steps):
    assert measuring_steps(20, settings) == steps


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"points": 1}, "measure.points must be a whole number >= 2, got 1"),
        ({"every": 0}, "measure.every must be a whole number >= 1, or null, got 0"),
        ({"steps": 5}, "measure.steps must be a list of whole numbers >= 0, or null, got 5"),
        ({"steps": [1], "every": 2}, "measure.steps must be alone"),
        ({"spacing": "log10"}, "measure.spacing must be one of linear, log"),
    ],
)
def test_measured_steps_refused(settings, message):
    with pytest.raises(UserError) as error:
        measuring_steps(20, settings)
    assert str(error.value).startswith(message)
