"""Grids: from a command line and experiments to cells, through Hydra."""

import pytest
from sweeping import cells_of

from runner import cli
from runner.commands import sweep
from runner.grid.cell import canonical_json
from runner.grid.config import conf_dir


@pytest.fixture
def grid(monkeypatch):
    """The cells of a command line, as (values of the given fields) in order."""

    def of(fields, *arguments):
        cells = cells_of(monkeypatch, *arguments)
        assert len(cells) == len(set(cells))
        return [tuple(getattr(cell, name) for name in fields.split()) for cell in cells]

    return of


@pytest.fixture
def own(tmp_path):
    """A folder of the user's own configs."""

    def write(name, text):
        path = tmp_path / "own" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return f"--config-dir={tmp_path / 'own'}"

    return write


@pytest.fixture
def compositions(monkeypatch):
    """Counts what Hydra composes for cells."""
    from hydra_plugins.runner_grid import composition

    calls = []
    plain = composition.plain
    monkeypatch.setattr(composition, "plain", lambda config: calls.append(1) or plain(config))
    return calls


@pytest.mark.parametrize(
    ("arguments", "widths"),
    [
        (["width=8,16"], [8, 16]),
        (["-m", "width=choice(8,16)"], [8, 16]),
        (["--multirun", "width=range(8,33,8)"], [8, 16, 24, 32]),
        (["width=logspace(1,3,3)"], [10, 100, 1000]),
        (["width=sort(16,8)"], [8, 16]),
        (["+width=8,16"], None),
        (["++width=8,16"], [8, 16]),
        (["width=8"], [8]),
        (["+hydra.sweeper.params={width:'8,16'}"], [8, 16]),
        (["+hydra.sweeper.params={width:'8,16'}", "width=4"], [4]),
        (["+hydra.sweeper.params={width:[8,16]}"], [8, 16]),
        (["+hydra.sweeper.params={width:8}"], [8]),
    ],
)
def test_axes_in_every_form(grid, capsys, arguments, widths):
    if widths is None:
        assert sweep.main(arguments) == 2
        assert "width must be new to be added with +" in capsys.readouterr().err
    else:
        assert grid("width", *arguments) == [(width,) for width in widths]


def test_any_key_of_a_cell_can_be_an_axis(grid):
    line = [
        "model.activation=relu,tanh",
        "data=xor",
        "data.seed=0,1",
        "batch_size=null,8",
        "center_output=true,false",
    ]
    cells = grid(
        "settings batch_size center_output", *line, "lr_unit=sharpness", "measure.points=3,4", "width=8"
    )
    assert len(cells) == 32
    assert sum('"activation":"tanh"' in settings and '"seed":1' in settings for settings, *_ in cells) == 8


def test_groups_are_axes_and_compose_once_each(grid, compositions):
    cells = grid(
        "parameterization data width",
        "parameterization=ntk,mup",
        "data=xor,parity",
        "width=range(1,51)",
        "seed=0,1",
    )
    assert len(cells) == 400
    assert {cell[:2] for cell in cells} == {(p, d) for p in ("ntk", "mup") for d in ("xor", "parity")}
    assert len(compositions) == 1 + 4  # the master, then one for each choice of groups


def test_a_group_and_its_own_keys(grid):
    cells = grid("data settings", "data=xor,parity", "data.dim=4,5", "width=8")
    assert [(data, '"dim":5' in settings) for data, settings in cells] == [
        ("xor", False), ("xor", True), ("parity", False), ("parity", True),
    ]  # fmt: skip


def test_appended_keys_are_axes(grid):
    cells = grid("settings", "+model.new=1,2", "++model.bias=true,false", "++data.noise=0.1,0.2", "width=8")
    assert len(cells) == 8
    assert sum('"new":2' in settings and '"bias":true' in settings for (settings,) in cells) == 2


def test_maps_and_lists_are_values(grid):
    cells = grid(
        "settings exponents",
        "++model.sizes=[1,2],[3]",
        "parameterization.a={input:0,hidden:0,output:0},{input:1}",
        "width=8",
    )
    first = [exponents.split('"b"')[0] for _, exponents in cells]
    assert [('"sizes":[3]' in cell[0], '"input":1' in a) for cell, a in zip(cells, first, strict=True)] == [
        (False, False), (False, True), (True, False), (True, True),
    ]  # fmt: skip


def test_what_the_config_refers_to_is_recomposed(grid, own, compositions):
    flag = own("model/echo", "name: echo\n_target_: x.Y\nsize: ${width}\nhalf: ${..seed}\n")
    cells = grid("width seed lr settings", flag, "model=echo,mlp", "width=8,16", "seed=0,1", "lr=0.1,1")
    assert len(cells) == 16
    for width, seed, _, settings in cells:
        assert "echo" not in settings or (f'"size":{width}' in settings and f'"half":{seed}' in settings)
    assert sum("x.Y" in settings for *_, settings in cells) == 8
    assert len(compositions) == 1 + 4 + 1


def test_grids_are_laid_over_params(grid, own):
    flag = own(
        "experiment/union",
        """# @package _global_
hydra:
  sweeper:
    params: {width: "8,16", seed: 0}
    grids:
      - {parameterization: "ntk,mup"}
      - {parameterization: sp, lr: "0.1,0.01"}
      - {parameterization: ntk, width: 16}
lr: 0.5
""",
    )
    cells = grid("parameterization width lr", flag, "+experiment=union")
    assert cells == [
        ("ntk", 8, 0.5), ("ntk", 16, 0.5), ("mup", 8, 0.5), ("mup", 16, 0.5),
        ("sp", 8, 0.1), ("sp", 8, 0.01), ("sp", 16, 0.1), ("sp", 16, 0.01),
    ]  # fmt: skip
    assert len(grid("width lr", flag, "experiment=union", "width=4", "lr=1,2")) == 6


def test_the_default_grid(monkeypatch):
    cells = cells_of(monkeypatch)
    assert {cell.data for cell in cells} == {"digits"}
    for name, count in {"parameterization": 4, "width": 5, "lr": 8, "seed": 2}.items():
        assert len({getattr(cell, name) for cell in cells}) >= count
    assert len(cells) >= 320


@pytest.mark.parametrize(
    ("arguments", "is_default"),
    [
        (["steps=50"], True),
        (["data=xor", "lr_unit=sharpness"], True),
        (["name=elsewhere", "--multirun"], True),
        (["width=16", "lr=0.1"], False),
        (["seed=1"], False),
        (["++lr=1"], False),
        (["parameterization.a.input=0"], False),
        (["+experiment=default"], True),
        (["experiment=default"], True),
    ],
)
def test_when_the_default_grid_is_meant(monkeypatch, arguments, is_default):
    assert (len(cells_of(monkeypatch, *arguments)) > 1) == is_default


def test_overrides_of_the_default_grid(grid):
    cells = grid("width steps", "experiment=default", "width=16", "steps=7")
    assert set(cells) == {(16, 7)}
    assert len(cells) > 1


def test_a_config_dir_of_ones_own(grid, own):
    flag = own("data/mine", "name: mine\n_target_: my.data\nseed: 0\n")
    assert grid("data width", *flag.split("="), "data=mine,xor", "width=8") == [("mine", 8), ("xor", 8)]


def test_many_cells_need_few_compositions(grid, compositions):
    cells = grid("lr", "lr=logspace(-4,1,1000)", "seed=range(0,20)", "width=8")
    assert len(cells) == 20_000
    assert len(compositions) == 2


def test_showing_the_config(capsys):
    assert sweep.main(["--cfg", "job", "width=16", "lr=0.1,1", "data=xor"]) == 0
    out, err = capsys.readouterr()
    assert "width: 16" in out
    assert "name: xor" in out
    assert err == "without the axes lr=0.1,1:\n"


@pytest.mark.parametrize(
    "line",
    [
        ["width=8", "--cfg", "job", "lr=3"],
        ["--cfg=job", "width=8", "lr=3"],
        ["width=8", "--config-dir", ".", "lr=3", "-c", "job"],
        ["width=8", "--debug", "lr=3", "--multirun", "-c", "job"],
    ],
)
def test_flags_may_stand_between_overrides(capsys, line):
    """Hydra's parser takes overrides only as one run (hydra #3053)."""
    assert sweep.main(line) == 0
    out = capsys.readouterr().out
    assert "width: 8\n" in out
    assert "lr: 3\n" in out


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["width=8", "--bogus", "lr=1"], "flag must be one of --cfg"),
        (["width=8", "--config-dir"], "--config-dir must be followed by its value, got nothing"),
        (["--confg-dir", "x"], "did you mean '--config-dir'?"),
    ],
)
def test_wrong_flags_are_one_line(capsys, line, message):
    assert sweep.main(line) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert (out, err.count("\n")) == ("", 1)


def test_help_names_every_group(capsys):
    assert sweep.main(["--help"]) == 0
    out = capsys.readouterr().out
    for path in conf_dir().iterdir():
        if path.is_dir() and path.name != "hydra":
            assert f"\n{path.name}: " in out
    assert "logspace(" in out
    assert "$" not in out.replace('"$(runner', "").replace("${name}", "")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("runner sweep wid", "width="),
        ("runner sweep parameterization=m", "parameterization=mean_field parameterization=mup"),
        ("runner sweep width=8 +experiment=def", "+experiment=default"),
        ("runner sweep --config-dir conf data=mi", "data=mine"),
        ("runner sweep data=mine --config-dir=conf wid", "width="),
        ("runner swe", "sweep"),
        ("runner sta", "status"),
    ],
)
def test_tab_completion(monkeypatch, capsys, tmp_path, line, expected):
    (tmp_path / "conf" / "data").mkdir(parents=True)
    (tmp_path / "conf" / "data" / "mine.yaml").write_text("name: mine\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COMP_LINE", line)
    assert cli.main(["-sc", "query=bash"]) == 0
    assert capsys.readouterr().out.strip() == expected


def test_tab_completion_installs(monkeypatch, capsys):
    monkeypatch.delenv("COMP_LINE", raising=False)
    assert cli.main(["-sc", "install=bash"]) == 0
    assert "complete -o nospace -o default -F hydra_bash_completion runner" in capsys.readouterr().out


def test_the_engine_of_ids_is_json(monkeypatch):
    (cell,) = cells_of(monkeypatch, "width=8")
    assert canonical_json(cell.row()).startswith('{"base_depth":null,"base_width":1,')
