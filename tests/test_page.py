import json
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from stores import write_cells
from synthetic import LRS, WIDTHS, cell, frames, grid
from vega import compared_with_schema

from runner import load
from runner.cli import main
from runner.views.page import write_page
from runner.views.page.packing import pack_curves

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
EVIL = "</script><script>window.hacked=1</script><img src=x onerror='window.hacked=1'>"
MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("outputs") / "digits"
    names = ("ntk", "mup", "sp", "mean_field")
    write_cells(path, grid(width=WIDTHS, lr=(0.001, *LRS), parameterization=names, seed=(0, 1)))
    claim = {
        "claim": "C1", "text": "Lazy: <b>", "check": "slope", "predicted": "-1", "measured": -0.9,
        "low": -1.0, "high": -0.8, "cells": 15, "verdict": "holds", "note": "",
    }  # fmt: skip
    (path.parent / "claims").mkdir()
    pd.DataFrame([claim]).to_parquet(path.parent / "claims/claims.parquet")
    return load(path)


@pytest.fixture(scope="module")
def page_file(store):
    with compared_with_schema():
        return write_page(store, store.path / "report.html")


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("needs a Chromium: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


class Visit:
    """A page opened offline, with all that it complained of and asked for."""

    def __init__(self, browser, path, width=1400, scheme="light"):
        self.context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
        )
        self.page = self.context.new_page()
        self.complaints, self.requests = [], []
        self.page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        start = time.monotonic()
        self.page.goto(Path(path).absolute().as_uri())
        self.page.wait_for_selector("body[data-ready]")
        self.seconds = time.monotonic() - start

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.close()

    def external(self):
        return [url for url in self.requests if not url.startswith(("file:", "data:", "blob:"))]

    def place_of(self, **wanted):
        """The middle on the screen of the point of the diagram with these values."""
        return self.page.evaluate(
            """wanted => {
                for (const path of document.querySelectorAll("#phase .mark-rect path")) {
                    const datum = path.__data__?.datum ?? {};
                    if (Object.entries(wanted).every(([key, value]) => datum[key] === value)) {
                        const box = path.getBoundingClientRect();
                        return [box.x + box.width / 2, box.y + box.height / 2];
                    }
                }
            }""",
            wanted,
        )

    def point(self):
        return self.page.inner_text("#point")

    def curves(self):
        return self.page.eval_on_selector_all(
            "#curves .mark-line path", "all => all.map(one => one.getAttribute('d'))"
        )

    def fills(self):
        return self.page.eval_on_selector_all(
            "#phase .mark-rect path", "all => all.map(one => one.getAttribute('fill'))"
        )


def test_opens_offline_quickly_and_in_silence(browser, page_file):
    assert page_file.size <= 6 * MEGABYTE
    assert page_file.left_out == ()
    visits = []
    while len(visits) < 20 and min(visits, default=2.0) >= 2.0:  # the machine may be busy with other tests
        with Visit(browser, page_file.path) as visit:
            assert visit.complaints == []
            assert visit.external() == []
            visits.append(visit.seconds)
    assert min(visits) < 2.0


def test_every_chart_is_drawn_once_in_view(browser, page_file):
    with Visit(browser, page_file.path) as visit:
        for name in ("phase", "curves", "scaling", "transfer", "spectrum"):
            visit.page.locator(f"#{name}").scroll_into_view_if_needed()
            visit.page.wait_for_selector(f"#{name} svg")
        assert visit.complaints == []


def test_a_click_shows_the_curves_of_the_point(browser, page_file):
    with Visit(browser, page_file.path) as visit:
        before = visit.curves()
        visit.page.mouse.click(*visit.place_of(panel="ntk", x=128, y=0.3))
        visit.page.wait_for_function(
            "document.querySelector('#point').innerText.startsWith('ntk, width 128, lr 0.3')"
        )
        assert "lazy (100 % of 2 seeds)" in visit.point()
        visit.page.wait_for_timeout(300)
        assert visit.curves()
        assert visit.curves() != before
        assert visit.complaints == []


def test_the_pointer_shows_the_point(browser, page_file):
    with Visit(browser, page_file.path) as visit:
        visit.page.mouse.move(*visit.place_of(panel="mup", x=64, y=1))
        tooltip = visit.page.wait_for_selector("#vg-tooltip-element.visible").inner_text()
        assert re.search(r"parameterization\W+mup", tooltip)
        assert re.search(r"width\W+64", tooltip)
        assert "ntk_change" in tooltip


def test_the_colour_menu_changes_the_diagram(browser, page_file):
    with Visit(browser, page_file.path) as visit:
        before = visit.fills()
        visit.page.select_option("#color", "ntk_change")
        visit.page.wait_for_selector("#phase .role-legend-title >> text=ntk change")
        assert visit.fills() != before
        assert visit.complaints == []
        visit.page.select_option("#color", "regime")
        visit.page.wait_for_selector("#phase >> text=L lazy")


def test_keys_choose_points(browser, page_file):
    with Visit(browser, page_file.path) as visit:
        visit.page.focus("#phase")
        seen = [visit.point()]
        for key in ("ArrowRight", "ArrowDown", "PageDown"):
            visit.page.keyboard.press(key)
            seen.append(visit.point())
        assert len(set(seen)) == 4
        visit.page.locator("#picker select").nth(1).select_option("512")
        assert "width 512" in visit.point()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_follows_the_system_and_the_button(browser, page_file, scheme):
    paper = {"light": "rgb(255, 255, 255)", "dark": "rgb(21, 23, 26)"}
    other = {"light": "dark", "dark": "light"}[scheme]
    with Visit(browser, page_file.path, scheme=scheme) as visit:
        background = "getComputedStyle(document.body).backgroundColor"
        assert visit.page.evaluate(background) == paper[scheme]
        visit.page.click("#theme")
        assert visit.page.evaluate(background) == paper[other]
        ink = {"light": "#1a1a1a", "dark": "#e8e6e3"}[other]
        visit.page.wait_for_selector(f"#phase .role-axis-label text[fill='{ink}']")
        assert visit.complaints == []


def test_fits_a_phone(browser, page_file):
    with Visit(browser, page_file.path, width=390) as visit:
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= 390
        room = "document.querySelector('#phase svg').getBoundingClientRect().width"
        assert visit.page.evaluate(room) <= 390


def test_names_do_no_harm(browser, tmp_path):
    cells = [
        cell(width=width, lr=lr, model=f"{EVIL}{i}", data=EVIL, model__activation=EVIL)
        for width in (32, 64, 128) for lr in (0.1, 0.3, 1.0) for i in (0, 1)
    ]  # fmt: skip
    table, *others = frames(cells)
    table = table.assign(**{f"a {EVIL}": np.arange(len(table), dtype=float)})  # a measure of the user's
    write_cells(tmp_path / "store", cells, facet=("model",), name=EVIL, tables=(table, *others))
    with compared_with_schema():
        page = write_page(load(tmp_path / "store"), tmp_path / "page.html")
    assert EVIL not in page.path.read_text()
    with Visit(browser, page.path) as visit:
        visit.page.mouse.move(*visit.place_of(x=64))
        tooltip = visit.page.wait_for_selector("#vg-tooltip-element.visible")
        assert tooltip.inner_text().count(EVIL) >= 2  # the model, the measure
        visit.page.mouse.click(*visit.place_of(x=64))
        visit.page.select_option("#color", f"a {EVIL}")
        visit.page.wait_for_selector("#phase .role-legend-title")
        for name in ("scaling", "transfer"):
            visit.page.locator(f"#{name}").scroll_into_view_if_needed()
            visit.page.wait_for_selector(f"#{name} svg")
        assert visit.page.evaluate("window.hacked") is None
        assert visit.page.query_selector("img") is None
        assert EVIL in visit.page.inner_text("h1")
        assert visit.complaints == []


def test_a_store_with_other_axes_and_little_measured(browser, tmp_path):
    cells = grid(
        width=64, gamma=(0.1, 1.0, 10.0), optimizer=("sgd", "adam"), model__activation=("relu", "tanh")
    )
    table, trace, layers = frames(cells)
    table = table.assign(ntk_change=np.nan, feature_movement=np.nan, regime=None, lambda_max_init=np.nan)
    trace = trace.assign(ntk_change=np.nan, feature_movement=np.nan)
    write_cells(tmp_path / "store", cells, tables=(table, trace, layers.iloc[:0]))
    with compared_with_schema():
        page = write_page(load(tmp_path / "store"), tmp_path / "page.html")
    text = page.path.read_text()
    assert "gamma, by parameterization, optimizer, model.activation" in re.sub(r"lr over ", "", text)
    assert "No fits: width must have at least 3 values" in text
    with Visit(browser, page.path) as visit:
        assert visit.complaints == []


def test_claims_beside_the_store_are_shown(page_file):
    row = "<td>Lazy: &lt;b&gt;</td><td>slope</td><td>-1</td><td>-0.9</td><td>[-1, -0.8]</td>"
    assert row in page_file.path.read_text()


def test_commands_on_the_page_run(page_file, store, capsys):
    command = re.search(r"<pre>(runner fit .*?)</pre>", page_file.path.read_text())[1]
    assert main(command.split()[1:]) == 0
    assert "95% interval" in capsys.readouterr().out


# -- without a browser -------------------------------------------------------------------------------


class Tiled:
    """A store of many cells without the disk: a small one, again and again under other seeds."""

    def __init__(self, small, copies):
        self.path, self.launches = Path("outputs/many"), []
        self.config = {"name": "many", "facet": ["parameterization"]}
        self.cells, self.trace, self.layers = (
            pd.concat([self._copy(table, copy) for copy in range(copies)], ignore_index=True)
            for table in small
        )

    def launch_cells(self, launch=None):
        return list(self.cells["cell_id"])

    def _copy(self, table, copy):
        changed = {"cell_id": table["cell_id"] + f"-{copy}"}
        return table.assign(**changed, **({"seed": copy} if "seed" in table else {}))


def _packed(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page.path.read_text())[1])["curves"]["cells"]


@pytest.mark.slow
def test_ten_thousand_cells(tmp_path):
    lrs = (0.001, *LRS, 100.0)
    small = frames(grid(width=WIDTHS, lr=lrs, parameterization=("ntk", "mup", "sp", "mean_field")))
    several = [
        pd.concat([table[table["step"] > 0].assign(step=step) for step in range(1, 13)])
        for table in small[1:]
    ]
    store = Tiled((small[0], *several), 50)
    assert len(store.cells) == 10_000
    page = write_page(store, tmp_path / "page.html")
    assert page.size <= 25 * MEGABYTE
    assert page.left_out == ()
    assert sum(map(len, _packed(page).values())) == 10_000


def test_says_what_it_leaves_out(store, tmp_path, monkeypatch):
    monkeypatch.setattr("runner.views.page.document.MOST_CURVE_BYTES", 40_000)
    monkeypatch.setattr("runner.views.page.document.MOST_PANELS", 3)
    page = write_page(store, tmp_path / "page.html")
    facets, curves = page.left_out
    assert facets.startswith("1 of 4 facets (parameterization)")
    left, whole = map(int, re.findall(r"(\d+) of (\d+) cells", curves)[0])
    assert whole == 270
    assert whole - left == sum(map(len, _packed(page).values())) > 0
    assert curves.replace("`", "") in page.path.read_text().replace("`", "")


def test_a_store_of_failed_cells(tmp_path):
    cells = grid(width=(32, 64, 128), lr=(0.1, 0.2, 0.3))
    table, trace, layers = frames(cells)
    nothing = dict.fromkeys(("regime", "train_loss", "ntk_change", "feature_movement", "lambda_max_init"))
    table = table.assign(status="failed", error="boom", **nothing)
    write_cells(tmp_path / "store", cells, tables=(table, trace.iloc[:0], layers.iloc[:0]))
    with compared_with_schema():
        page = write_page(load(tmp_path / "store"), tmp_path / "page.html")
    assert page.left_out == ()
    assert "9 cells: 9 failed" in page.path.read_text()
    assert _packed(page) == {}


def test_curves_that_do_not_fit_are_chosen_seed_by_seed():
    cells, trace, layers = frames(grid(width=WIDTHS, lr=LRS, seed=(3, 1, 2)))
    points = pd.Series(pd.factorize(cells["width"] * 1000 + cells["lr"])[0], index=cells.index)
    whole, count = pack_curves(cells, points, trace, layers, 10**9)
    assert count == len(cells)
    room = len(json.dumps(whole["cells"])) // 2
    part, few = pack_curves(cells, points, trace, layers, room)
    assert 40 < few < len(cells)
    seeds = [[one["seed"] for one in part["cells"][str(point)]] for point in range(40)]
    assert {tuple(found) for found in seeds} <= {(1,), (1, 2), (1, 2, 3)}
    one = part["cells"]["2"][0]
    of_cell = cells[(points == 2) & (cells["seed"] == 1)]["cell_id"].iloc[0]
    losses = trace[trace["cell_id"] == of_cell].sort_values("step")["train_loss"]
    assert one["trace"][0] == pytest.approx(list(losses), rel=1e-3)
