"""What the repository may hold, and what every file in it has to keep to."""

import ast
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from runner import __version__

ROOT = Path(__file__).resolve().parents[1]
TOP = {
    "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "README.md", "pyproject.toml",
    "conf", "docs", "outputs", "runner", "scripts", "tests",
}  # fmt: skip
MOST_BYTES = 2**20
MOST_LINES = 350
MACHINE_PATH = re.compile(r"(?<![\w.~/$}-])/(?:work|root|home|Users)\b")
MODULES = sorted((ROOT / "runner").rglob("*.py"))


def shown(path):
    return str(path.relative_to(ROOT))


@pytest.fixture(scope="module")
def tracked():
    """The files that git tracks and that exist."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True)
    return [ROOT / name for name in listing.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_the_top_level_is_closed(tracked):
    names = {path.relative_to(ROOT).parts[0] for path in tracked}
    extra = sorted(name for name in names - TOP if not name.startswith("."))
    assert not extra, f"find a folder for them, or add them to TOP with the reason: {extra}"


def test_outputs_are_not_tracked(tracked):
    assert [shown(path) for path in tracked if (ROOT / "outputs") in path.parents] == ["outputs/.gitignore"]


def test_nothing_tracked_is_large(tracked):
    large = {shown(path): path.stat().st_size for path in tracked if path.stat().st_size > MOST_BYTES}
    assert not large, f"at most {MOST_BYTES} bytes a file: {large}"


def test_no_path_of_one_machine(tracked):
    found = []
    for path in tracked:
        content = path.read_bytes()
        if b"\0" in content:
            continue
        lines = content.decode("utf-8").splitlines()
        found += [
            f"{shown(path)}:{at}: {line}" for at, line in enumerate(lines, 1) if MACHINE_PATH.search(line)
        ]
    assert not found, "write paths that exist on every machine:\n" + "\n".join(found)


def test_the_changelog_knows_the_version():
    headings = re.findall(r"^## \[([^]]+)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert __version__ in headings


@pytest.mark.parametrize("path", MODULES, ids=shown)
def test_every_module_is_short_and_says_what_it_is(path):
    text = path.read_text("utf-8")
    assert ast.get_docstring(ast.parse(text)), "a module starts with a docstring that says what it holds"
    lines = len(text.splitlines())
    assert lines <= MOST_LINES, f"{lines} lines: a second name is waiting to be found in it"
    assert path.name != "utils.py", "name a module after what it holds"
    assert "hydra._internal" not in text, "Hydra's public API only"


def test_shapes_are_strings():
    """Without its quotes a shape such as ``Float[Tensor, "cell"]`` is a name, and nothing is checked."""
    bare = re.compile(r"(?:Float|Float64|Int|Bool)\[Tensor, [^\"]")
    found = [path for path in (ROOT / "runner").rglob("*.py") if bare.search(path.read_text("utf-8"))]
    assert not found


# -- what tests may touch ----------------------------------------------------------------------------

PRIVATE = re.compile(r"_[A-Za-z]\w*")
TESTS = sorted((ROOT / "tests").glob("*.py"))


def is_private(name):
    """Whether a name is private; ``__version__`` and namedtuples' ``_replace`` are not."""
    return bool(PRIVATE.fullmatch(name)) and name not in {"_asdict", "_fields", "_make", "_replace"}


def private_names(tree):
    """Private names of the package that a test imports, reads, or replaces: line and name."""
    modules, found = set(), []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {name.asname or "runner" for name in node.names if name.name.split(".")[0] == "runner"}
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "runner":
            modules |= {name.asname or name.name for name in node.names}
            private = [name for name in node.module.split(".") if name != "_plugins" and is_private(name)]
            found += [(node.lineno, name) for name in private]
            found += [(node.lineno, name.name) for name in node.names if is_private(name.name)]

    def is_ours(node):
        while isinstance(node, ast.Attribute):
            node = node.value
        return isinstance(node, ast.Name) and node.id in modules

    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr) and is_ours(node.value):
            found.append((node.lineno, node.attr))
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            words = node.value.split(".")
            if words[0] == "runner" and any(map(is_private, words)):
                found.append((node.lineno, node.value))
        if isinstance(node, ast.Call) and len(node.args) > 1 and is_ours(node.args[0]):
            name = node.args[1]
            if isinstance(name, ast.Constant) and isinstance(name.value, str) and is_private(name.value):
                found.append((node.lineno, name.value))
    return found


@pytest.mark.parametrize("path", TESTS, ids=shown)
def test_tests_use_public_names_only(path):
    """What a test has to change is a constant or a parameter that says what it is."""
    found = private_names(ast.parse(path.read_text("utf-8")))
    assert not found, "give it a public name and a docstring, or test it through what uses it: " + ", ".join(
        f"{shown(path)}:{line} {name}" for line, name in found
    )


@pytest.mark.parametrize(
    "text",
    [
        "from runner.grid.cell import _hidden",
        "from runner._hidden import name",
        "from runner.grid import cell\ncell._hidden",
        "import runner\nrunner.grid.cell._hidden",
        "from runner.grid import cell\nmonkeypatch.setattr(cell, '_hidden', 1)",
        "monkeypatch.setattr('runner.grid.cell._hidden', 1)",
    ],
)
def test_private_names_are_found(text):
    assert private_names(ast.parse(text))


def test_pre_commit_runs_the_pinned_tools():
    """No version is written in its file, so that none can differ from the pin in pyproject.toml."""
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))
    pinned = set(re.findall(r'"([\w-]+)==[\d.]+"', (ROOT / "pyproject.toml").read_text("utf-8")))
    tools = set()
    for repository in config["repos"]:
        assert repository["repo"] == "local"
        for hook in repository["hooks"]:
            assert hook["language"] == "system"
            tools.add(hook["entry"].split()[0])
    assert tools == {"ruff", "mypy"} <= pinned


def test_workflows_call_parts_that_there_are():
    """What runs for a pull request is what anyone can run."""
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    parts = set(re.findall(r"^run_(\w+)\(\)", script, re.MULTILINE))
    called, used = set(), []
    for path in sorted((ROOT / ".github" / "workflows").glob("*.yml")):
        for job in yaml.safe_load(path.read_text("utf-8"))["jobs"].values():
            for step in job.get("steps", []):
                used += [step["uses"]] if "uses" in step else []
                called |= set(step.get("run", "").removeprefix(".ci/run ").split()) & parts
    assert called == parts
    assert all(re.search(r"@v\d+\.\d+\.\d+$", action) for action in used), used
