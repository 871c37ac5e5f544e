"""The floors of the house: imports go downwards only, and nothing goes round in circles."""

import ast
from collections import deque
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

import runner

PACKAGE = Path(runner.__file__).parent
PLUGINS = PACKAGE / "_plugins"

# A folder is a floor, or a file of the top; from the ground up.
FLOORS = {
    0: "errors preemption schema",
    1: "grid numerics",
    2: "scaling",
    3: "layers",
    4: "data optim",
    5: "models",
    6: "measures store",
    7: "baselines training",
    8: "analysis planning",
    9: "launching",
    10: "views",
    11: "export",
    12: "commands",
    13: "__main__ cli hydra_plugins",
}
FLOOR_OF = {name: floor for floor, names in FLOORS.items() for name in names.split()}
DOOR = "runner"  # its __init__ opens what it offers on first use, so it stands on no floor
SILENT = range(10)
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
TREES = {name: ast.parse(path.read_text("utf-8")) for name, path in FILES.items()}


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


IMPORTS = {name: tuple(imports_of(tree)) for name, tree in TREES.items()}


def floor_of(name):
    """Return the floor of a module, or None if neither it nor a folder above it has one."""
    name = name.removeprefix("runner.")
    while name and name not in FLOOR_OF:
        name = name.rpartition(".")[0]
    return FLOOR_OF.get(name)


def where(name, line=1):
    """Return a clickable place in a file."""
    return f"{FILES[name].relative_to(PACKAGE.parent)}:{line}"


def run_at_start(name):
    """Return the modules that importing one runs: those it imports, and the packages they lie in."""
    targets = {item.target for item in IMPORTS[name] if item.when == "start"}
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


def test_every_module_has_a_floor():
    homeless = [where(name) for name in FILES if name != DOOR and floor_of(name) is None]
    assert not homeless, f"put them on a floor: add their names to FLOORS in tests/test_floors.py: {homeless}"


def test_every_floor_names_what_exists():
    known = [f"{name.removeprefix('runner.')}." for name in FILES]
    stale = [name for name in FLOOR_OF if not any(file.startswith(f"{name}.") for file in known)]
    assert not stale, f"gone from runner/, so take them out of FLOORS in tests/test_floors.py: {stale}"


def test_imports_go_down():
    upward = [
        f"{where(name, item.line)} on floor {floor_of(name)} imports {item.target} of {floor_of(item.target)}"
        for name, items in IMPORTS.items()
        for item in items
        if DOOR not in (name, item.target) and item.target in FILES
        if None not in (floor_of(name), floor_of(item.target)) and floor_of(item.target) > floor_of(name)
    ]
    assert not upward, "imports go to the same floor or down:\n" + "\n".join(upward)


def test_the_door_is_closed_at_start():
    items = [item.target for item in IMPORTS[DOOR] if item.when == "start" and item.target in FILES]
    assert not items, f"runner/__init__.py is run by every import: load {items} in __getattr__"


def test_no_cycles():
    graph = {name: {item.target for item in items if item.when == "start"} for name, items in IMPORTS.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"imports go in a circle: {' <- '.join(error.args[1])}")


@pytest.mark.parametrize("folder", WITHOUT_TORCH)
def test_what_reads_tables_needs_no_torch(folder):
    found = []
    for name in FILES:
        if not f"{name}.".startswith(f"runner.{folder}."):
            continue
        for item in IMPORTS[name]:
            if item.target.split(".")[0] == "torch":
                found.append(f"{where(name, item.line)} imports {item.target}")
            elif item.when != "types" and item.target in FILES and (chain := torch_chain(item.target)):
                found.append(f"{where(name, item.line)} imports {' -> '.join(chain)}")
    assert not found, f"{folder}/ must work on tables alone, without torch:\n" + "\n".join(found)


def test_lower_floors_print_nothing():
    prints = [
        where(name, node.lineno)
        for name, tree in TREES.items()
        if floor_of(name) in SILENT
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert not prints, f"what people read is said on floors 4 and 5; print in {prints}"
