"""Shapes in signatures are checked in tests only; what a test sets in this process ends with it."""

import collections
import functools
import gc
import importlib
import io
import os
import pickle
from pathlib import Path

import jaxtyping
import pytest
import torch
from jaxtyping import install_import_hook
from omegaconf import OmegaConf
from typechecker import once_for_each_shape

ROOT = Path(__file__).resolve().parents[1]
CHECKED = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted((ROOT / "runner").rglob("*.py"))
    if "from jaxtyping import" in path.read_text("utf-8")
]
"""Every module with shapes in its signatures: found, not listed, so that none can be forgotten."""

# Before anything of the package is imported, and for as long as the tests run; the hook takes this name.
jaxtyping.jaxtyped = once_for_each_shape(jaxtyping.jaxtyped)
install_import_hook(CHECKED, "typechecker.check")

# The cells of tests are tiny: a second thread costs more than it brings, and far more on a busy machine.
torch.set_num_threads(1)


def pytest_collection_modifyitems(items):
    """Start the files with slow tests first, then those with many: no core is to wait for a last long one."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    count = collections.Counter(item.path for item in items)
    items.sort(key=lambda item: (item.path not in slow, -count[item.path], item.path))


def pytest_collection_finish():
    """What is there by now stays: collections of garbage, which every test has, need not look through it."""
    gc.freeze()


@pytest.fixture(scope="session")
def common(tmp_path_factory):
    """A folder that all workers of a run of the tests have in common."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(autouse=True, scope="session")
def cache(common):
    """One worker measures the machine, compiles and bundles for all, and nobody's home is written to."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(common / "cache"))
        yield


@pytest.fixture(autouse=True, scope="session")
def parsed_once():
    """Hydra parses two dozen files in each composition; the same text is parsed once for all tests."""
    load = OmegaConf.load
    # Unpickled, for a deep copy takes five times as long.
    parsed = functools.cache(lambda text: pickle.dumps(load(io.StringIO(text))))

    def remembered(file):
        return pickle.loads(parsed(file.read())) if hasattr(file, "read") else load(file)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OmegaConf, "load", remembered)
        yield


@pytest.fixture(autouse=True)
def as_it_was():
    """A sweep in the tests' own process sets torch up as a job does; not so the next test."""
    yield
    torch.set_flush_denormal(False)
    from runner.numerics.precision import set_cpu_products

    set_cpu_products(fast=False)


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium; without one, what needs it is skipped."""
    with importlib.import_module("browsing").chromium() as opened:
        yield opened


@pytest.fixture(scope="session")
def shown(common):
    """A store whose page has every section, and this page; one worker makes them for all."""
    from runner import load
    from runner.store.files import locked

    browsing = importlib.import_module("browsing")
    folder = common / "shown"
    kept = folder / "page.pickle"
    with locked(folder):
        if not kept.exists():
            store = browsing.digits_store(folder)
            page = browsing.checked_page(store, folder / "page.html")
            kept.write_bytes(pickle.dumps((store.path, page)))
    path, page = pickle.loads(kept.read_bytes())
    return load(path), page


@pytest.fixture(scope="session")
def digits(shown):
    return shown[0]


@pytest.fixture(scope="session")
def page_file(shown):
    return shown[1]
