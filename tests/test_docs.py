"""What the README and the docs say exists, and what exists is said: commands, options, configs, columns."""

import itertools
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pages import ALL, BLOCKS, DOCS, FENCE, PAGES, README, ROOT, copy_examples, generated
from stores import write_cells, write_outputs
from sweeping import cells_of
from synthetic import LRS, WIDTHS, grid

from runner import cli
from runner.analysis.claims import CLAIMS
from runner.commands import sweep
from runner.errors import UserError
from runner.grid.config import conf_dir
from runner.grid.rules import EXECUTION_RULES, check_value
from runner.schema import DERIVED, TABLES

MOST_LINES = 130
COLUMNS = {**TABLES, "derived": DERIVED}
SHELL_BLOCKS = list(dict.fromkeys(text for language, text in BLOCKS if language == "sh"))
PYTHON_BLOCKS = list(
    dict.fromkeys(text for language, text in BLOCKS if language == "python" and "outputs/" in text)
)
COMMANDS = generated.command_names()

GROUPS = sorted(path.name for path in conf_dir().iterdir() if path.is_dir() and path.name != "hydra")
EXPERIMENTS = sorted(path.stem for path in (conf_dir() / "experiment").glob("*.yaml"))
PRESETS = {path.stem for path in (conf_dir() / "hydra" / "launcher").glob("*.yaml")}
LAUNCHERS = {"basic", "joblib", "ray", "ray_aws", "submitit_local", "submitit_slurm", *PRESETS}
WITHOUT_KEYS = {"experiment", "parameterization"}  # grids, a table of exponents
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
    """The reader's folder, with the files that the docs tell to write."""
    copy_examples(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])  # a sweep adds its folder


def test_the_readme_is_short():
    lines = README.splitlines()
    assert len(lines) <= MOST_LINES, f"{len(lines)} lines: the docs have a page for it"


def test_the_links_of_the_readme_lead_somewhere():
    links = re.findall(r"\]\((?!https?:)([^)#]+)", README)
    assert not [link for link in links if not (ROOT / link).exists()]


def test_commands_stand_where_they_are_tested():
    hidden = [
        line
        for language, text in BLOCKS
        if language != "sh"
        for line in text.splitlines()
        if re.match(r"\s*(\$ )?(\S*/)?runner [a-z]", line)
    ]
    assert not hidden, f"commands belong in ```sh blocks, without a prompt: {hidden}"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_shown(name):
    assert re.search(rf"^runner {name}\b", "\n".join(SHELL_BLOCKS), re.MULTILINE), f"show `runner {name}`"


@pytest.mark.parametrize("group", GROUPS)
def test_every_group_is_documented(group):
    assert re.search(rf"`{group}[`=/]|\b{group}=|\bconf/{group}\b", ALL), f"say what `{group}` chooses"


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_says_what_it_is_for(name):
    section = generated.experiments().partition(f"{{ #{name} }}")[2].partition("\n## ")[0]
    assert len(section.partition("???")[0].split()) > 10, (
        f"conf/experiment/{name}.yaml must say what it is for"
    )


def test_every_launcher_preset_is_shown():
    missing = sorted(name for name in PRESETS if f"hydra/launcher={name}" not in "\n".join(SHELL_BLOCKS))
    assert not missing, f"say what hydra/launcher=NAME is for: {missing}"


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "sweep"])
def test_every_option_is_documented(command):
    section = generated.commands().partition(f"{{ #{command} }}")[2].partition("\n## ")[0]
    for action in generated.parser_of(command)._actions:
        assert action.help, f"`runner {command}`: say what {action.dest} is for"
        if "--help" not in action.option_strings:
            assert action.help[:20] in section
            assert not [option for option in action.option_strings if f"`{option}`" not in section]


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(conf_dir().rglob("*.yaml")) if path.parent.name not in WITHOUT_KEYS],
    ids=lambda path: f"{path.parent.name}/{path.stem}",
)
def test_every_config_key_says_what_it_is(path):
    for key in generated.keys_of(path.read_text("utf-8")):
        names = set(key.name.split("."))
        assert key.meaning or names & SAID_ONCE, f"{path.name}: a comment must say what {key.name} is"


@pytest.mark.parametrize("key", ["batch_size", "gamma", "checkpoint_minutes", "shards"])
def test_keys_are_in_the_reference_with_their_rule(key):
    (row,) = re.findall(rf"^\| `{key}` .*$", PAGES["docs/pages/reference/config.md"], re.MULTILINE)
    assert generated.RULES.get(key, generated.EXECUTION_RULES.get(key)).text in row


@pytest.mark.parametrize("table", COLUMNS)
def test_every_column_is_in_the_reference(table):
    shown = generated.columns().partition(f"{{ #{table} }}")[2].partition("\n## ")[0]
    names = re.findall(r"^\| `(\w+)`", shown, re.MULTILINE)
    assert names == [column.name for column in COLUMNS[table]]


def test_the_verdicts_are_of_the_claims_that_there_are():
    rows = re.findall(
        r"^\| (C\d+) \| ([^|]+) \|", (DOCS / "results/claims.md").read_text("utf-8"), re.MULTILINE
    )
    assert rows == [(claim.id, claim.text) for claim in CLAIMS], "run scripts/docs_tables.py"


@pytest.mark.parametrize("text", PYTHON_BLOCKS, ids=lambda text: text.strip().splitlines()[-1][:40])
@pytest.mark.usefixtures("reader")
def test_the_python_of_the_docs_runs(tmp_path, text):
    """Every block that reads a store, on one of power laws."""
    for store in set(re.findall(r"outputs/\w+", text)):
        axis = {"gamma": (0.1, 1.0, 10.0)} if 'x="gamma"' in text else {"width": WIDTHS}
        ensembles = ".ensemble(" in text
        axis |= {"lr": LRS[:1], "seed": range(3)} if ensembles else {"lr": LRS}
        cells = grid(**{key: tuple(values) for key, values in axis.items()}, parameterization=("sp", "mup"))
        write_cells(tmp_path / store, cells)
        if ensembles:
            spread = lambda one, sample: one.seed / one.width**0.5 + sample  # noqa: E731
            write_outputs(tmp_path / store, cells, spread, (0, 20), "test", target=0.0)
    exec(compile(text, "docs", "exec"), {})
    for figure in re.findall(r'^[^#\n]*save\("([^"]+)"', text, re.MULTILINE):
        assert (tmp_path / figure).stat().st_size > 1000


def test_the_picture_is_there_and_says_what_it_is():
    picture = re.search(r"!\[[^\]]+\]\(([^)]+)\)", README)[1]
    text = (ROOT / picture).read_text("utf-8")
    assert text.startswith("<svg")
    assert len(text) < 60_000, "scripts/docs_pictures.py makes it small enough to be compared"
    caption = (ROOT / picture).with_suffix(".caption.txt").read_text("utf-8")
    params = yaml.safe_load((conf_dir() / "experiment/default.yaml").read_text("utf-8"))["hydra"]["sweeper"][
        "params"
    ]
    cells = len(params["parameterization"].split(",")) * len(params["width"].split(",")) * 9 * 2
    assert f"Sweep default: digits, mlp of depth 2, sgd, mse, 100 steps, gamma 1. {cells} cells" in caption


@pytest.mark.parametrize("table", COLUMNS)
def test_every_column_has_a_meaning(capsys, table):
    assert cli.main(["schema", table]) == 0
    out = capsys.readouterr().out
    shown = " ".join(out.split())
    for column in COLUMNS[table]:
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


def is_of_the_launch(argument):
    """Whether a word says how cells are run, with a value that its key may have, and not which they are."""
    key, _, value = argument.partition("=")
    if key not in EXECUTION_RULES:
        return key.startswith(("hydra/launcher", "hydra.launcher"))
    try:
        check_value(key, yaml.safe_load(value))
    except UserError:
        return False
    return True


@pytest.fixture(scope="module")
def composed():
    """Command lines that have been composed, here or (whole experiments) in tests/test_config.py."""
    return {(f"+experiment={name}",) for name in EXPERIMENTS}


@pytest.mark.parametrize("arguments", SWEEPS, ids=" ".join)
@pytest.mark.usefixtures("reader")
def test_every_sweep_composes(monkeypatch, composed, arguments):
    if SHOWING & {argument.split("=")[0] for argument in arguments}:
        assert sweep.main(["--debug", *arguments]) == 0
        return
    here = tuple(argument for argument in arguments if not is_of_the_launch(argument))
    launchers = {
        argument.partition("=")[2] for argument in arguments if argument.startswith("hydra/launcher")
    }
    assert launchers <= LAUNCHERS  # most come with plugins that the tests do not need
    if here not in composed:
        assert cells_of(monkeypatch, *here)
        composed.add(here)


@pytest.mark.parametrize("words", OTHERS, ids=" ".join)
def test_every_other_command_parses(words):
    command, *rest = words
    assert command in COMMANDS
    if set(rest) & SHOWING:
        assert cli.main(list(words)) == 0
    else:
        generated.parser_of(command).parse_args([word for word in rest if word != "--debug"])
