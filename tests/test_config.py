"""Configs: every file composes, every value is checked, every message names the key."""

from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra_plugins.runner_grid.composition import plain
from sweeping import cells_of

from runner.errors import UserError
from runner.grid.axes import Axis, expand, expand_logspace
from runner.grid.cell import canonical_json
from runner.grid.config import (
    GROUPS,
    cell_from_config,
    check_execution,
    conf_dir,
    config_of_cell,
    load_thresholds,
)
from runner.grid.rules import EXECUTION_RULES, RULES

FILES = sorted(str(path.relative_to(conf_dir()).with_suffix("")) for path in conf_dir().rglob("*.yaml"))
CELL_FILES = [name for name in FILES if name.split("/")[0] in GROUPS]
EXPERIMENTS = [name for name in FILES if name.startswith("experiment/")]
OTHERS = [name for name in FILES if name.startswith(("regime/", "refine/"))]


def composed(*overrides):
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return plain(compose("config", list(overrides)))


@pytest.fixture(scope="module")
def config():
    return composed()


def test_every_file_is_of_a_known_kind():
    launchers = [name for name in FILES if name.startswith("hydra/")]
    assert {*CELL_FILES, *EXPERIMENTS, *OTHERS, *launchers, "config"} == set(FILES)


@pytest.mark.parametrize("name", [*CELL_FILES, *OTHERS])
def test_every_file_composes_and_round_trips(name):
    group, _, choice = name.rpartition("/")
    config = composed(f"{group}={choice}")
    cell = cell_from_config(config)
    assert cell_from_config(yaml.safe_load(yaml.safe_dump(config))) == cell
    assert cell_from_config(config_of_cell(cell)) == cell
    if group in {"model", "data", "optimizer", "parameterization"}:
        assert getattr(cell, group) == choice


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_expands(monkeypatch, name):
    assert len(cells_of(monkeypatch, f"+experiment={Path(name).name}")) > 1


def test_every_key_of_the_config_has_a_rule(config):
    scalars = {key for key, value in config.items() if not isinstance(value, dict | list)}
    assert scalars - {"name", "store", "launch"} == {*RULES, *EXECUTION_RULES}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("width", value) for value in (0, -3, 16.5, True, "wide", None, "", [1, 2], float("inf"))),
        *(("lr", value) for value in (0, -0.1, float("inf"), float("nan"), "fast", {"a": 1}, 10**400, False)),
        *(("lr_unit", value) for value in ("relative", None, [])),
        *(("center_output", value) for value in ("yes", 1)),
        *(("symmetric_init", value) for value in ("yes", 1)),
        ("depth", 0), ("gamma", 0), ("base_width", 0), ("seed", -1), ("steps", 0), ("batch_size", 0),
        ("loss", "hinge"), ("dtype", "float16"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named(config, key, value):
    with pytest.raises(UserError, match=rf"^{key} must be .*, got .*; ") as caught:
        cell_from_config({**config, key: value})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("device", "tpu"),
        ("shards", 0),
        ("workers", 0),
        ("retry", "some"),
        ("launch", "x"),
        ("store", ""),
        ("name", 3),
    ],
)
def test_a_wrong_way_to_run_is_named(config, key, value):
    check_execution(config)
    with pytest.raises(UserError, match=rf"^{key} must .*, got .*; "):
        check_execution({**config, key: value})


def test_values_are_normalized(config):
    cell = cell_from_config({**config, "width": 16.0, "lr": 1, "gamma": 2, "batch_size": 8.0})
    assert cell == cell_from_config({**config, "width": 16, "lr": 1.0, "gamma": 2.0, "batch_size": 8})
    assert [type(value) for value in (cell.width, cell.lr, cell.gamma, cell.batch_size)] == [
        int,
        float,
        float,
        int,
    ]


def test_exponents_may_be_fractions(config):
    table = dict(config["parameterization"])
    written = cell_from_config(
        {**config, "parameterization": {**table, "a": {"input": "-1/2", "hidden": 0, "output": "1/4"}}}
    )
    numbers = cell_from_config(
        {**config, "parameterization": {**table, "a": {"input": -0.5, "hidden": 0.0, "output": 0.25}}}
    )
    assert written == numbers
    assert '"a":{"hidden":0,"input":-0.5,"output":0.25}' in written.exponents


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"foo": 1}, r"^foo must be a known config key .*width.*, got foo=1; "),
        ({"widht": 1}, "did you mean width"),
        ({"model": "mlp"}, "^model must be a group"),
        ({"model": {"activation": "relu"}}, r"^model\.name must be a name"),
        ({"data": {"name": "x", "noise": float("nan")}}, "must hold finite numbers"),
    ],
)
def test_wrong_keys_are_named(config, change, message):
    with pytest.raises(UserError, match=message):
        cell_from_config({**config, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a": None}, r"^parameterization\.a must give an exponent for input, hidden, output"),
        (
            {"a": {"input": 0, "hidden": "half", "output": 0}},
            r"^parameterization\.a\.hidden must be an exponent, got half",
        ),
        ({"b": {"input": 0, "hidden": "1/0", "output": 0}}, r"^parameterization\.b\.hidden must be"),
        ({"c": {}}, r"^parameterization\.c must be a table"),
        ({"d": {}}, r"^parameterization\.d must be a known config key"),
    ],
)
def test_wrong_exponents_are_named(config, change, message):
    with pytest.raises(UserError, match=message):
        cell_from_config({**config, "parameterization": {**config["parameterization"], **change}})


def test_a_missing_key_is_named(config):
    with pytest.raises(UserError, match=r"^steps must be set"):
        cell_from_config({key: value for key, value in config.items() if key != "steps"})


def test_how_to_run_is_not_part_of_a_cell(config):
    other = {
        "name": "x",
        "store": "/y",
        "device": "cpu",
        "shards": 3,
        "workers": 1,
        "retry": "failed",
        "facet": [],
        "regime": {},
    }
    assert cell_from_config({**config, **other}) == cell_from_config(config)


def test_thresholds(tmp_path):
    own = tmp_path / "strict.yaml"
    own.write_text("untrained: 0.8\nlazy: 1e-2\nrich: 0.5\ncatapult: 2\n")
    assert load_thresholds("default")["name"] == "default"
    assert load_thresholds(str(own)) == {"untrained": 0.8, "lazy": 0.01, "rich": 0.5, "catapult": 2.0}
    own.write_text("lazy: low\n")
    with pytest.raises(UserError, match=r"^regime\.lazy must be a number, got low"):
        load_thresholds(own)
    own.write_text("- lazy\n")
    with pytest.raises(UserError, match=r"^regime must be a file of"):
        load_thresholds(own)
    own.write_text("lazy: [\n")
    with pytest.raises(UserError, match=r"^regime must be a YAML file"):
        load_thresholds(own)
    with pytest.raises(UserError, match=r"^regime must be one of .*default.*did you mean 'default'"):
        load_thresholds("defualt")


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("logspace(-2,2,5)", "0.01,0.1,1,10,100"),
        ("logspace(-1, 0.5, 4)", "0.1,0.316228,1,3.16228"),
        ("5,logspace(0,1,2)", "5,1,10"),
        ("logspace(0,-6,2)", "1,1e-06"),
        ("logspace(1,2,1)", "10"),
        ("0.1", "0.1"),
    ],
)
def test_logspace(text, expanded):
    assert expand_logspace("lr", text) == expanded


@pytest.mark.parametrize(
    "text", ["logspace(1,2)", "logspace(1,2,0)", "logspace(a,2,3)", "logspace(0,inf,3)", "logspace()"]
)
def test_a_wrong_logspace_is_named(text):
    with pytest.raises(UserError, match=r"^lr must give logspace"):
        expand_logspace("lr", text)


def test_expansion_is_the_product(config):
    axes = [Axis("lr", (0.1, 1)), Axis("model.activation", ("relu", "tanh")), Axis("seed", (0, 1, 1))]
    cells = expand(config, axes)
    expected = [
        cell_from_config(
            {**config, "lr": lr, "seed": seed, "model": {**config["model"], "activation": activation}}
        )
        for activation in ("relu", "tanh")
        for lr in (0.1, 1)
        for seed in (0, 1)
    ]
    assert cells == expected
    assert [cell.cell_id for cell in cells] == [cell.cell_id for cell in expected]
    assert all(
        canonical_json(cell.row()) == canonical_json(other.row())
        for cell, other in zip(cells, expected, strict=True)
    )


def test_expansion_leaves_the_config_alone(config):
    before = canonical_json(config)
    expand(
        config, [Axis("model.activation", ("tanh",)), Axis("model.new", (1,), adds=True), Axis("width", (3,))]
    )
    assert canonical_json(config) == before


def test_a_swept_key_needs_no_legal_default(config):
    assert expand({**config, "width": None}, [Axis("width", (8,))])[0].width == 8
