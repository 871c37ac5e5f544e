"""`runner check`: built-in networks pass under maximal update, faults are named, words and exit codes."""

import json

import pytest
import yaml
from sweeping import run_in
from vega import compared_with_schema

import runner
from runner.commands.check import sweep_words
from runner.errors import UserError
from runner.grid.config import conf_dir

FEW = ["data.train_size=32", "data.test_size=8", "data.probe_size=32", "workers=1", "steps=1"]
FAULTS = {
    "no_multiplier": {"a": {"output": 0}},
    "no_attention": {"attention": None},
}


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    """A folder of parameterizations: mup, each with one fault."""
    folder = tmp_path_factory.mktemp("conf")
    (folder / "parameterization").mkdir()
    for name, changes in FAULTS.items():
        table = yaml.safe_load((conf_dir() / "parameterization" / "mup.yaml").read_text("utf-8"))
        for key, change in changes.items():
            table[key] = table[key] | change if change else None
        table = {key: value for key, value in table.items() if value is not None} | {"name": name}
        (folder / "parameterization" / f"{name}.yaml").write_text(yaml.safe_dump(table))
    return folder


def run(folder, *words):
    """Run the command in a folder; return the exit code."""
    return run_in(folder, "check", *words)


@pytest.fixture(scope="module")
def mlps(tmp_path_factory, faulty):
    """A store with checks of an MLP under several tables, what they say, and the exit code."""
    folder = tmp_path_factory.mktemp("mlps")
    code = run(
        folder, f"--config-dir={faulty}", "width=32,64,128,256", *FEW,
        "parameterization=mup,ntk,sp,no_multiplier",
    )  # fmt: skip
    store = folder / "outputs" / "check"
    return store, groups(runner.load(store).check()), code


def groups(view):
    return {group["group"]: group for group in json.loads(view.json())["groups"]}


@pytest.mark.parametrize(
    ("table", "optimizer", "layer", "words"),
    [
        ("mup", "sgd", None, ""),
        ("mup", "adam", None, ""),
        ("ntk", "sgd", "hidden.0", "lazy"),
        ("ntk", "adam", "hidden.0", "lazy"),
        ("sp", "sgd", "hidden.0", "unstable"),
        ("sp", "adam", "hidden.1", "is it treated as an input weight?"),
        ("no_multiplier", "sgd", "output", "a readout without its 1/width multiplier"),
        ("no_multiplier", "adam", "output", "a readout without its 1/width multiplier"),
    ],
)
def test_an_mlp_under_each_table(mlps, table, optimizer, layer, words):
    _, found, code = mlps
    assert code == 1
    found = found[f"{table}, {optimizer}"]
    assert found["verdict"] == ("fail" if layer else "pass")
    assert (found["blame"] or {}).get("layer") == layer
    if layer:
        assert words in found["blame"]["why"]


def test_its_forms(mlps, capsys, tmp_path):
    store, *_ = mlps
    view = runner.load(store).check("parameterization=mup")
    assert view.asked["verdict"] == "pass"
    with compared_with_schema():
        assert view.chart.to_dict()
    assert "sgd: PASS" in view.save(tmp_path / "check.svg").read_text()
    content = json.loads(view.json())
    assert {row["layer"] for row in content["rows"]} == {"hidden.0", "hidden.1", "output"}
    assert {row["part"] for row in content["checks"]} == {"update_own", "update_passed", "update_size"}
    assert all(row["update_own"] is not None for row in content["rows"])


def test_the_same_command_resumes_and_a_part_of_it_passes(mlps, capsys):
    """Nothing is trained again; the cells of the newest launch are judged, not the others of the store."""
    store, *_ = mlps
    before = len(runner.load(store).cells)
    words = ["width=32,64,128,256", *FEW]
    assert run(store.parent.parent, *words, "--out", "figure.png") == 0
    assert len(runner.load(store).cells) == before
    out = capsys.readouterr().out
    assert "PASS. All 3 layers change by the same amount at any width." in out
    assert (store.parent.parent / "figure.png").stat().st_size > 10_000
    assert run(store.parent.parent, *words, "--json", "optimizer=adam") == 2  # options come last
    assert run(store.parent.parent, *words, "optimizer=adam", "--json") == 0
    assert [group["group"] for group in json.loads(capsys.readouterr().out)["groups"]] == ["adam"]


def test_over_depth(tmp_path, capsys):
    """Under completep every block changes by the same amount, under depth_mup by less with depth."""
    words = [
        "depth=2,4,8",
        "width=64",
        "seed=range(6)",
        *FEW,
        "optimizer=adam",
        "store=out",
        "parameterization=completep,depth_mup",
    ]
    assert run(tmp_path, *words) == 1
    view = runner.load(tmp_path / "out").check()
    found = groups(view)
    assert found["completep, adam"]["verdict"] == "pass"
    assert found["depth_mup, adam"]["blame"]["layer"] == "hidden.first"
    assert "lazy in depth" in found["depth_mup, adam"]["blame"]["why"]
    names = [row["layer"] for row in json.loads(view.json())["rows"] if row["group"] == "completep, adam"]
    assert names == ["input", "hidden.first", "hidden.middle", "hidden.last", "output"]
    assert "at any depth" in capsys.readouterr().out
    with compared_with_schema():
        assert view.chart.to_dict()


def test_attention_over_the_root_of_the_head_size_is_named(tmp_path, faulty):
    code = run(
        tmp_path, f"--config-dir={faulty}", "model=transformer", "depth=1", "model.heads=1",
        "width=32,64,128", *FEW, "parameterization=mup,no_attention", "optimizer=adam", "store=out",
    )  # fmt: skip
    assert code == 1
    found = groups(runner.load(tmp_path / "out").check())
    assert found["mup, adam"]["verdict"] == "pass"
    assert found["no_attention, adam"]["blame"]["layer"] == "blocks.0.attention.logits"
    assert "1/sqrt(d_head)" in found["no_attention, adam"]["blame"]["why"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["width=64"], "width must have at least 3 values"),
        (["width=64,128"], "width must have at least 3 values"),
        (["seed=0"], "seed must have at least 2 values"),
        (["measure=basic"], "measure must be left to `runner check`"),
        (["measure.points=3"], "measure.points must be left to `runner check`"),
        (["zip=width,lr"], "zip must be left to `runner check`"),
        (["+experiment=default"], "experiment must be left to `runner check`"),
        (["lr=1,2,3"], "lr must have one value, or one per optimizer"),
        (["optimizer=own"], "lr must be given for optimizer=own"),
        (["depth=2,4,8", "width=32,64"], "width must have a single value where depth is the axis"),
        (["cnn"], "OVERRIDES must be KEY=VALUE, got cnn"),
    ],
)
def test_what_is_refused_before_training(words, message, tmp_path, capsys):
    assert run(tmp_path, *words) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")
    assert not any(tmp_path.iterdir())


def test_what_the_sweep_refuses_is_said_once(tmp_path, capsys):
    assert run(tmp_path, "width=a,b,c") == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert errors == ["error: width must be a whole number >= 1, got a; e.g. width=128"]
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], ["zip=optimizer,lr", "optimizer=sgd,adam", "lr=0.1,0.01"]),
        (["lr=0.2"], ["zip=optimizer,lr", "optimizer=sgd,adam", "lr=0.2,0.2"]),
        (["optimizer=momentum"], ["optimizer=momentum", "lr=0.02"]),
        (["optimizer=adam,sgd", "lr=0.2,0.3"], ["zip=optimizer,lr", "optimizer=adam,sgd", "lr=0.2,0.3"]),
        (["data=xor"], ["zip=optimizer,lr", "optimizer=sgd,adam", "lr=0.1,0.01", "data=xor"]),
    ],
)
def test_optimizers_and_their_rates(words, expected):
    found = [word for word in sweep_words(words)[1:] if not word.startswith("data.")]
    assert found == expected
    assert any(word.startswith("data.train_size") for word in sweep_words(words)) != ("data=xor" in words)


def test_a_dry_run_trains_nothing(tmp_path, capsys):
    assert run(tmp_path, "width=8,16,32", "--dry-run") == 0
    assert "18" in capsys.readouterr().out
    assert not any(tmp_path.iterdir())


def test_a_store_without_the_parts_is_refused(tmp_path):
    words = ["sweep", "width=8", "steps=1", "store=out", "workers=1", *FEW[:3], "measure=basic"]
    assert run_in(tmp_path, *words) == 0
    with pytest.raises(UserError, match="STORE must hold update_own"):
        runner.load(tmp_path / "out").check()
