"""Charts in a notebook, without a network, and the executed notebook of the docs."""

import base64
import json
import re
import shutil
import sys

import numpy as np
import pytest
from pages import DOCS, ROOT
from stores import write_cells
from synthetic import grid

from runner import load

sys.path.insert(0, str(ROOT / "scripts"))

import docs_notebook

sys.path.insert(0, str(DOCS))

import notebook

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NUMBER = re.compile(r"-?\d+\.\d+")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    path = tmp_path_factory.mktemp("outputs") / "digits"
    write_cells(path, grid(width=(64, 256), lr=(0.1, 1.0), parameterization=("ntk", "mup")))
    return load(path).phase()._repr_mimebundle_()


def test_a_chart_brings_all_that_it_needs(bundle):
    json.dumps(bundle, allow_nan=False)
    assert bundle["image/svg+xml"].startswith("<svg")
    away = re.findall(r"(?:src|href)\s*=\s*[\"']?https?:[^\"' ]+|cdn\.[\w.]+", bundle["text/html"])
    assert not away
    # Where scripts may not run, the picture in its place stays.
    picture = re.search(
        r'<img alt="runner chart" src="data:image/svg\+xml;base64,([^"]+)">', bundle["text/html"]
    )[1]
    assert base64.b64decode(picture).decode() == bundle["image/svg+xml"]


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium")
def test_a_chart_draws_itself_and_tells_its_numbers_offline(bundle, tmp_path):
    sync_api = pytest.importorskip("playwright.sync_api")
    (tmp_path / "out.html").write_text(
        f"<!doctype html><meta charset=utf-8>{bundle['text/html'] * 1}", "utf-8"
    )
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        asked, errors = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto((tmp_path / "out.html").as_uri())
        page.wait_for_selector("svg.marks", timeout=20_000)
        box = page.locator("svg.marks path[aria-roledescription='rect mark']").last.bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.wait_for_selector("#vg-tooltip-element.visible", timeout=5_000)
        said = page.locator("#vg-tooltip-element").inner_text()
        browser.close()
    assert not errors
    assert [url for url in asked if not url.startswith(("file:", "blob:", "data:"))] == []
    assert "width" in said
    assert "regime" in said


def test_another_renderer_has_its_way(tmp_path):
    import altair

    write_cells(tmp_path / "digits", grid(width=(64, 256), lr=(0.1, 1.0)), facet=())
    with altair.renderers.enable("mimetype"):
        found = load(tmp_path / "digits").phase()._repr_mimebundle_()
    kinds = found[0] if isinstance(found, tuple) else found
    assert any("vegalite" in kind for kind in kinds)


def test_the_notebook_of_the_docs_shows_what_its_code_gives(tmp_path, monkeypatch):
    """When it fails after a change of numbers or charts: python scripts/docs_notebook.py."""
    monkeypatch.setenv("PATH", f"{sys.prefix}/bin:{__import__('os').environ['PATH']}")
    kept = json.loads(docs_notebook.NOTEBOOK.read_text("utf-8"))
    executed = docs_notebook.execute(kept, tmp_path)
    assert kept["nbformat"] == 4
    for old, new in zip(kept["cells"], executed["cells"], strict=True):
        if old["cell_type"] != "code":
            continue
        assert [sorted(out.get("data", out)) for out in old["outputs"]] == [
            sorted(out.get("data", out)) for out in new["outputs"]
        ]
        for one, other in zip(old["outputs"], new["outputs"], strict=True):
            texts = ["".join(out.get("text") or out["data"].get("text/plain", [])) for out in (one, other)]
            # Another machine rounds otherwise: words must agree, numbers nearly.
            assert NUMBER.sub("#", texts[0]).split() == NUMBER.sub("#", texts[1]).split()
            numbers = [[float(number) for number in NUMBER.findall(text)] for text in texts]
            np.testing.assert_allclose(*numbers, atol=0.05)
            marks = [
                "".join(out.get("data", {}).get("image/svg+xml", [])).count("<text") for out in (one, other)
            ]
            assert marks[0] == marks[1]


def test_the_page_shows_code_and_outputs():
    text = notebook.markdown()
    assert "```py\nstore.phase()\n```\n\n<img " in text
    assert "```text\n144 cells: " in text
    assert not text.startswith("#")
