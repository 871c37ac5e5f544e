"""What the README says exists, and what exists is said: commands, options, configs, columns."""

import dataclasses
import itertools
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from stores import write_cells
from sweeping import cells_of
from synthetic import LRS, WIDTHS, grid

from runner import cli
from runner.commands import sweep
from runner.grid.config import conf_dir
from runner.schema import TABLES

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8")
FENCE = re.compile(r"^[ \t]*```(\w*)[^\n]*\n(.*?)^[ \t]*```[ \t]*$", re.MULTILINE | re.DOTALL)
BLOCKS = FENCE.findall(README + "\n" + (ROOT / "CONTRIBUTING.md").read_text("utf-8"))
SHELL_BLOCKS = [text for language, text in BLOCKS if language == "sh"]

GROUPS = sorted(path.name for path in conf_dir().iterdir() if path.is_dir() and path.name != "hydra")
EXPERIMENTS = sorted(path.stem for path in (conf_dir() / "experiment").glob("*.yaml"))
PRESETS = {path.stem for path in (conf_dir() / "hydra" / "launcher").glob("*.yaml")}
LAUNCHERS = {"basic", "joblib", "ray", "ray_aws", "submitit_local", "submitit_slurm", *PRESETS}
WITHOUT_KEYS = {"experiment", "launcher", "parameterization"}  # grids, Hydra's own, a table of exponents
SAID_ONCE = {"name", "_target_", "defaults", "hydra", "functions"}
SHOWING = {"--help", "-h", "--hydra-help", "--cfg", "-c", "--info", "-i", "--version", "-sc"}


def runner_commands(script):
    """Yield the words after ``runner`` of every call of it in a shell script."""
    for line in script.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        for operator, words in itertools.groupby(lexer, key=lambda word: set(word) <= set("();<>|&")):
            call = itertools.dropwhile(re.compile(r"\w+=").match, () if operator else words)
            program, *arguments = [*call] or [""]
            if Path(program).name == "runner":
                yield tuple(arguments)


CALLS = list(dict.fromkeys(call for script in SHELL_BLOCKS for call in runner_commands(script)))
SWEEPS = [call[1:] for call in CALLS if call[:1] == ("sweep",)]
OTHERS = [call for call in CALLS if call[:1] != ("sweep",)]


@pytest.fixture
def reader(tmp_path, monkeypatch):
    """The reader's folder, with the files that the README tells to write: ``# name`` is their first line."""
    for _, text in BLOCKS:
        if named := re.match(r"# ([\w./-]+\.(?:yaml|py))\s*\n", text):
            path = tmp_path / named[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])  # a sweep adds its folder


def test_commands_stand_where_they_are_tested():
    hidden = [
        line
        for language, text in BLOCKS
        if language != "sh"
        for line in text.splitlines()
        if re.match(r"\s*(\$ )?(\S*/)?runner [a-z]", line)
    ]
    assert not hidden, f"commands belong in ```sh blocks, without a prompt: {hidden}"


def test_every_command_is_in_the_readme(capsys):
    assert cli.main(["--help"]) == 0
    commands = re.findall(r"^  (\w+) ", capsys.readouterr().out, re.MULTILINE)
    assert set(cli.COMMANDS) == set(commands)
    missing = [name for name in commands if not re.search(rf"\brunner {name}\b", README)]
    assert not missing, f"README.md must show `runner NAME` for {missing}"


@pytest.mark.parametrize("group", GROUPS)
def test_every_group_is_in_the_readme(group):
    assert re.search(rf"`{group}[`=/]|\b{group}=|\bconf/{group}\b", README), f"say what `{group}` chooses"


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_is_in_the_readme(name):
    assert re.search(rf"\bexperiment[=/]{name}\b|`{name}`", README), f"say what +experiment={name} is for"


def test_every_launcher_preset_is_in_the_readme():
    missing = sorted(name for name in PRESETS if f"hydra/launcher={name}" not in README)
    assert not missing, f"say what hydra/launcher=NAME is for: {missing}"


@pytest.mark.parametrize("command", [name for name in cli.COMMANDS if name != "sweep"])
def test_every_option_is_documented(command):
    parser = cli.COMMANDS[command].parser()
    for action in parser._actions:
        assert action.help, f"`runner {command}`: say what {action.dest} is for"
        if "--help" not in action.option_strings:
            missing = [option for option in action.option_strings if f"`{option}" not in README]
            assert not missing, f"`runner {command}`: README.md must say what {missing} does"


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(conf_dir().rglob("*.yaml")) if path.parent.name not in WITHOUT_KEYS],
    ids=lambda path: f"{path.parent.name}/{path.stem}",
)
def test_every_config_key_is_documented(path):
    """By a comment on its line, or in the README as `group.key` or `key`."""
    text, group = path.read_text("utf-8"), path.parent.name
    lines = {line.partition(":")[0]: line for line in text.splitlines()}
    for key in yaml.safe_load(text):
        said = "#" in lines[key] or re.search(rf"`(?:{group}\.)?{key}[`=]", README)
        assert said or key in SAID_ONCE, f"{path.name} must say what {key} is, in a comment or the README"


@pytest.mark.usefixtures("reader")
def test_the_python_of_the_readme_runs(tmp_path):
    """Every block that reads a store, on one of power laws."""
    write_cells(tmp_path / "outputs/default", grid(width=WIDTHS, lr=LRS, parameterization=("ntk", "mup")))
    blocks = [text for language, text in BLOCKS if language == "python" and "runner.load(" in text]
    assert blocks
    for text in blocks:
        exec(compile(text, "README.md", "exec"), {})
    assert (tmp_path / "rich.svg").read_text().startswith("<svg")


def test_the_picture_is_there_and_says_what_it_is():
    picture = re.search(r"!\[[^\]]+\]\(([^)]+)\)", README)[1]
    assert (ROOT / picture).read_text("utf-8").startswith("<svg")
    caption = (ROOT / picture).with_suffix(".caption.txt").read_text("utf-8")
    params = yaml.safe_load((conf_dir() / "experiment/default.yaml").read_text("utf-8"))["hydra"]["sweeper"][
        "params"
    ]
    cells = len(params["parameterization"].split(",")) * len(params["width"].split(",")) * 9 * 2
    assert f"Sweep default: digits, mlp of depth 2, sgd, mse, 100 steps, gamma 1. {cells} cells" in caption


@pytest.mark.parametrize("table", TABLES)
def test_every_column_has_a_meaning(capsys, table):
    assert cli.main(["schema", table]) == 0
    out = capsys.readouterr().out
    shown = " ".join(out.split())
    for column in TABLES[table]:
        assert column.meaning.strip()
        assert re.search(rf"^  {column.name} +{column.type} ", out, re.MULTILINE), column.name
        assert " ".join(column.meaning.split()) in shown, column.name


def test_continuous_integration_finds_its_test_command():
    found = re.findall(r"^.*pytest$", "".join(text for _, text in FENCE.findall(README)), re.MULTILINE)
    assert len(found) == 1, f".ci/run runs the one fenced line of README.md that ends in pytest, got {found}"
    assert "-e '.[test]'" in found[0]


@pytest.mark.parametrize("script", SHELL_BLOCKS, ids=lambda script: script.strip().splitlines()[0])
def test_scripts_can_be_pasted(script):
    done = subprocess.run(["sh", "-n"], input=script, capture_output=True, text=True)
    assert done.returncode == 0, (
        f"quote what the shell would read otherwise, as in 'lr=range(1,4)': {done.stderr}"
    )


@pytest.mark.parametrize("arguments", SWEEPS, ids=" ".join)
@pytest.mark.usefixtures("reader")
def test_every_sweep_composes(monkeypatch, arguments):
    if SHOWING & {argument.split("=")[0] for argument in arguments}:
        assert sweep.main(["--debug", *arguments]) == 0
        return
    here = [
        argument
        for argument in arguments
        if not argument.startswith(("hydra/launcher", "hydra.launcher", "wait="))
    ]
    launchers = {
        argument.partition("=")[2] for argument in arguments if argument.startswith("hydra/launcher")
    }
    assert launchers <= LAUNCHERS  # most come with plugins that the tests do not need
    assert cells_of(monkeypatch, *here)


@pytest.mark.parametrize("words", OTHERS, ids=" ".join)
def test_every_other_command_parses(monkeypatch, capsys, words):
    for name, command in cli.COMMANDS.items():
        if name != "sweep":
            idle = dataclasses.replace(command, run=lambda options: 0)
            monkeypatch.setitem(cli.COMMANDS, name, idle)
    try:
        code = cli.main(list(words))
    except SystemExit as left:  # --help
        code = left.code
    assert code == 0, capsys.readouterr().err
