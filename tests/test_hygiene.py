"""What the repository may hold, and what every file in it has to keep to."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

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
