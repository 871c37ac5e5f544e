"""The floors of the house: imports go downwards only, and nothing goes round in circles."""

import ast
import functools
from collections import deque
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

import runner

PACKAGE = Path(runner.__file__).parent
PLUGINS = PACKAGE / "_plugins"

FLOORS = (
    "errors", "preemption", "version", "grid", "numerics", "scaling", "layers", "data", "optim", "models",
    "limits", "measures", "schema", "store", "baselines", "training", "analysis", "planning", "launching",
    "views", "literature", "coordinates", "export", "commands", "cli", "__main__", "hydra_plugins",
)  # fmt: skip
"""From the ground up: each folder, or file of the top, may import what comes before it."""
LOOSE = 7
"""Files that may lie in runner/ itself."""
DOOR = "runner"  # its __init__ opens what it offers on first use, so it stands on no floor
SILENT = FLOORS[: FLOORS.index("views")]
WITHOUT_TORCH = ("analysis", "views", "export")


class Import(NamedTuple):
    """One import: of what, where, and when.

    ``when`` is ``start`` when importing the importing module runs it, ``call`` inside a function, and
    ``types`` if only a type checker sees it.
    """

    target: str
    line: int
    when: str


def name_of(path):
    """Return the name under which a file is imported."""
    parts = path.relative_to(PLUGINS if PLUGINS in path.parents else PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


@functools.cache
def trees():
    """Return what is written in every file; when first asked, as each worker of the tests reads this file."""
    return {name: ast.parse(path.read_text("utf-8")) for name, path in FILES.items()}


def imports_of(tree):
    """Yield every import of a file."""
    waiting = deque((node, "start") for node in tree.body)
    while waiting:
        node, when = waiting.popleft()
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, when)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: write the import out, relative ones are hard to move"
            for alias in node.names:
                # `from runner import layers` is of a module, `from runner import __version__` is not.
                module = f"{node.module}.{alias.name}"
                yield Import(module if module in FILES else node.module, node.lineno, when)
        elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            waiting.extend((child, "types") for child in node.body)
            waiting.extend((child, when) for child in node.orelse)
        else:
            inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            waiting.extend((child, "call" if inside else when) for child in ast.iter_child_nodes(node))


@functools.cache
def all_imports():
    """Return the imports of every file."""
    return {name: tuple(imports_of(tree)) for name, tree in trees().items()}


def floor_of(name):
    """Return the floor of a module: its folder, or itself."""
    return name.removeprefix("runner.").partition(".")[0]


def upward(imports):
    """Return the imports, those inside functions too, that do not go to the same folder or one below."""
    return [
        f"{where(name, item.line)} in {floor_of(name)} imports {item.target}"
        for name, items in imports.items()
        for item in items
        if item.when != "types" and item.target in FILES and DOOR not in (name, item.target)
        if FLOORS.index(floor_of(item.target)) > FLOORS.index(floor_of(name))
    ]


def circle(imports):
    """Return modules that import each other in a circle, also inside functions; nothing if there are none."""
    graph = {name: {item.target for item in items if item.when != "types"} for name, items in imports.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def where(name, line=1):
    """Return a clickable place in a file."""
    return f"{FILES[name].relative_to(PACKAGE.parent)}:{line}"


def run_at_start(name):
    """Return the modules that importing one runs: those it imports, and the packages they lie in."""
    targets = {item.target for item in all_imports()[name] if item.when == "start"}
    parts = name.split(".")
    parents = {".".join(parts[:count]) for count in range(1, len(parts))}
    return targets | (parents & set(FILES))


def torch_chain(start):
    """Return how importing a module comes to import torch, as the modules on the way, or None."""
    chains = {start: (start,)}
    waiting = deque([start])
    while waiting:
        module = waiting.popleft()
        for target in sorted(run_at_start(module)):
            if target.split(".")[0] == "torch":
                return [*chains[module], target]
            if target in FILES and target not in chains:
                chains[target] = (*chains[module], target)
                waiting.append(target)
    return None


def test_every_folder_is_a_floor():
    assert {floor_of(name) for name in FILES if name != DOOR} == set(FLOORS)


def test_few_files_lie_loose():
    assert len(list(PACKAGE.glob("*.py"))) <= LOOSE


def test_imports_go_down():
    found = upward(all_imports())
    assert not found, "imports go to the same folder or down:\n" + "\n".join(found)


def test_the_door_is_closed_at_start():
    at_start = {item.target for item in all_imports()[DOOR] if item.when == "start"}
    items = at_start & set(FILES) - {"runner.version"}
    assert not items, f"runner/__init__.py is run by every import: load {items} in __getattr__"


def test_nothing_goes_round_in_circles():
    found = circle(all_imports())
    assert not found, f"imports go in a circle: {' <- '.join(found)}"


@pytest.mark.parametrize("when", ["start", "call"])
def test_a_planted_import_is_found(when):
    """One that goes up, and one that closes a circle inside a folder; inside a function, too."""
    up = Import("runner.commands.sweep", 1, when)
    assert len(upward(all_imports() | {"runner.grid.cell": (*all_imports()["runner.grid.cell"], up)})) == 1
    back = Import("runner.grid.config", 1, when)
    planted = all_imports() | {"runner.grid.cell": (*all_imports()["runner.grid.cell"], back)}
    assert {"runner.grid.cell", "runner.grid.config"} <= set(circle(planted))
    assert not upward(planted)


def test_an_import_for_types_alone_is_no_import():
    seen = Import("runner.commands.sweep", 1, "types")
    planted = all_imports() | {"runner.grid.cell": (*all_imports()["runner.grid.cell"], seen)}
    assert not upward(planted)
    assert not circle(planted)


@pytest.mark.parametrize("folder", WITHOUT_TORCH)
def test_what_reads_tables_needs_no_torch(folder):
    found = []
    for name in FILES:
        if not f"{name}.".startswith(f"runner.{folder}."):
            continue
        for item in all_imports()[name]:
            if item.target.split(".")[0] == "torch":
                found.append(f"{where(name, item.line)} imports {item.target}")
            elif item.when != "types" and item.target in FILES and (chain := torch_chain(item.target)):
                found.append(f"{where(name, item.line)} imports {' -> '.join(chain)}")
    assert not found, f"{folder}/ must work on tables alone, without torch:\n" + "\n".join(found)


def test_lower_floors_print_nothing():
    prints = [
        where(name, node.lineno)
        for name, tree in trees().items()
        if floor_of(name) in SILENT
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert not prints, f"what people read is said in views and commands; print in {prints}"
