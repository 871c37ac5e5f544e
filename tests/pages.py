"""The README and the pages of the docs as readers see them: examples included, generated parts filled in."""

import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
EXAMPLES = DOCS / "examples"
sys.path.insert(0, str(DOCS))

import generated  # noqa: E402
import hooks  # noqa: E402, F401  # for the tests of the build

README = (ROOT / "README.md").read_text("utf-8")
FENCE = re.compile(r"^[ \t]*```(\w*)[^\n]*\n(.*?)^[ \t]*```[ \t]*$", re.MULTILINE | re.DOTALL)
_INCLUDED = re.compile(r'--8<-- "([^"]+)"')


def included(name):
    """The text of a file that a page includes, from the first folder that has it, as in mkdocs.yml."""
    (path, *_) = [folder / name for folder in (EXAMPLES, DOCS / "results", ROOT) if (folder / name).is_file()]
    return path.read_text("utf-8").rstrip("\n")


def page(path):
    """A page as it is built."""
    return _INCLUDED.sub(lambda found: included(found[1]), generated.expand(path.read_text("utf-8")))


PAGES = {
    str(path.relative_to(ROOT)): page(path)
    for path in (ROOT / "README.md", *sorted(DOCS.rglob("pages/**/*.md")))
}
ALL = "\n".join(PAGES.values())
BLOCKS = FENCE.findall(ALL)


def copy_examples(folder):
    """Put the reader's files into a folder."""
    shutil.copytree(EXAMPLES, folder, dirs_exist_ok=True)
