"""Every interaction of the page, each on the page of one store that all tests share."""

import json
import re
from importlib.resources import files

import numpy as np
import pandas as pd
import pytest
from browsing import Visit

from runner.analysis.regime import LETTERS
from runner.grid.config import load_thresholds


@pytest.fixture(scope="module")
def opened(browser, page_file):
    with Visit(browser, page_file.path) as visit:
        yield visit


@pytest.fixture
def visit(opened):
    """The page of the store as it opens, one for all tests: a view is a fragment."""
    opened.page.evaluate("scrollTo(0, 0)")
    opened.show("")
    opened.complaints.clear()
    yield opened
    assert opened.complaints == []


def test_every_chart_is_drawn_once_in_view(visit):
    for name in ("diagram", "curves", "scatter", "parallel", "scaling", "transfer", "spectrum"):
        visit.page.locator(f"#{name}").scroll_into_view_if_needed()
        visit.page.wait_for_selector(f"#{name} svg")


def test_a_click_shows_the_curves_of_the_point(visit):
    before = visit.curves()
    visit.page.mouse.click(*visit.place_of(panel="ntk", x=128, y=0.3))
    visit.settle()
    assert visit.point() == "ntk, width 128, lr 0.3: lazy (2 of 2 seeds)"
    assert visit.curves()
    assert visit.curves() != before
    numbers = visit.page.inner_text("#numbers")
    assert re.search(r"ntk change\s+0\.0\d+\s+0\.0\d+ . 0\.0\d+", numbers)


def test_the_pointer_shows_the_point_and_the_line(visit):
    visit.page.mouse.move(*visit.place_of(panel="mup", x=64, y=1))
    tooltip = visit.page.wait_for_selector("#vg-tooltip-element.visible").inner_text()
    assert re.search(r"parameterization\W+mup", tooltip)
    assert re.search(r"width\W+64", tooltip)
    assert re.search(r"seeds\W+seed 0: crossover; seed 1: crossover", tooltip)
    box = visit.page.locator("#vg-tooltip-element").bounding_box()
    x, y = visit.place_of(panel="mup", x=64, y=1)
    assert not box["x"] <= x <= box["x"] + box["width"]  # letters of its row and its column stay in sight
    assert not box["y"] <= y <= box["y"] + box["height"]
    visit.page.mouse.move(*visit.place_of(panel="mup", x=32, y=0.001))
    visit.page.wait_for_function(
        "() => document.querySelector('#vg-tooltip-element').innerText.includes('untrained: not yet (2 of 2')"
    )
    assert re.search(r"ntk change\W+0\.\d+ \(0\.\d+ . 0\.\d+\)", tooltip)
    place = visit.page.evaluate(
        """() => {
            const wanted = ({ words, panel }) => words === "diverges from" && panel === "ntk";
            const all = [...document.querySelectorAll("#diagram .places_marks path")];
            const box = all.find(path => wanted(path.__data__.datum)).getBoundingClientRect();
            return [box.x + box.width / 2, box.y + box.height / 2];
        }"""
    )
    visit.page.mouse.move(*place)
    visit.page.wait_for_function(
        "() => document.querySelector('#vg-tooltip-element').innerText.includes('diverges')"
    )
    assert re.search(
        r"diverges from\W+lr [\d.]+ \[[\d.]+, [\d.]+\]", visit.page.inner_text("#vg-tooltip-element")
    )
    visit.page.mouse.click(*place)  # chooses the cell that the line passes
    visit.settle()
    assert visit.point().startswith("ntk, width")


def test_a_measure_is_a_map_between_its_points(visit, digits):
    visit.page.select_option("#color", "ntk_change")
    visit.settle("color=ntk_change")
    visit.page.wait_for_selector("#diagram .role-legend-title >> text=ntk change")
    maps = visit.items("diagram", "mark-image", "panel", "x0", "x1", "y0", "y1")
    assert [one[0] for one in maps] == ["mean_field", "mup", "ntk", "sp"]
    assert {tuple(one[1:]) for one in maps} == {(32, 512, 0.001, 30)}  # no further than the outermost points
    assert len(visit.letters()) == 180
    known = digits.cells.dropna(subset=["ntk_change"]).set_index("cell_id")["ntk_change"]
    buttons = visit.page.locator("#extremes .end")
    assert buttons.count() == 2
    for place, (word, end) in enumerate((("largest", known.max()), ("smallest", known.min()))):
        names = buttons.nth(place).locator("button").evaluate_all("all => all.map(one => one.dataset.cell)")
        assert known[names].tolist() == pytest.approx([end] * len(names), rel=1e-3)
        text = buttons.nth(place).inner_text()
        value = re.match(rf"{word} ntk change: ([\d.]+),", text)[1]
        assert float(value) == pytest.approx(end, rel=0.01)
        assert names[0] in text
    visit.page.focus("#extremes button")  # the mouse is not needed
    visit.page.keyboard.press("Enter")
    visit.settle()
    chosen = visit.page.inner_text("#cells")
    assert known.loc[chosen.split()].max() == pytest.approx(known.max(), rel=1e-3)
    assert visit.page.is_visible("#scatter-extremes")
    visit.show("color=ntk_change&where.parameterization=mup&where.parameterization=mean_field")
    assert "mean_field = mup, width 32, lr 30, seed 0" in visit.page.inner_text("#extremes")  # one entry
    visit.show("color=ntk_change")
    visit.page.select_option("#color", "regime")
    visit.settle("")
    visit.page.wait_for_selector("#diagram >> text=L lazy")
    assert visit.items("diagram", "mark-image", "panel") == []


def test_letters_and_lines_are_those_of_the_analysis(visit, digits):
    letters = {(row["parameterization"], row["width"], row["lr"]): row["regime"][0].upper()
               for row in digits.phase().table.to_dict("records")}  # fmt: skip
    assert visit.letters() == letters
    limit = load_thresholds("default")["rich"]
    table = digits.boundary(of=f"movement={limit}", along="lr").table.dropna(subset=["place"])
    expected = {(row["parameterization"], row["width"]): row["place"] for row in table.to_dict("records")}
    rows = visit.items("diagram", "places_marks", "words", "panel", "x", "y", "low", "high")
    found = {(panel, x): y for words, panel, x, y, *_ in rows if words == "rich from"}
    assert found == pytest.approx(expected, rel=1e-3)
    assert all(low < y < high for *_, y, low, high in rows)


def test_the_slider_shows_every_cell_at_its_step(visit, digits):
    visit.page.focus("#step")
    visit.page.keyboard.press("Home")
    visit.settle("step=1")
    then = digits.phase(x="width", y="lr", facet="parameterization,step").table
    first = then[then["step"] == 1]
    letters = {(row["parameterization"], row["width"], row["lr"]): LETTERS.get(row["regime"], "")
               for row in first.to_dict("records")}  # fmt: skip
    assert visit.letters() == letters
    assert visit.page.inner_text("#at") == "1"
    visit.page.keyboard.press("End")
    visit.settle("")
    assert visit.page.inner_text("#at").endswith("(end)")


def test_play_goes_through_the_steps_and_stops(visit):
    visit.page.evaluate(
        """() => {
            const at = document.getElementById("at");
            window.seen = [];
            new MutationObserver(() => window.seen.push(at.textContent)).observe(at, { childList: true });
        }"""
    )
    visit.page.click("#play")
    visit.page.wait_for_function("() => window.seen.length > 2")
    visit.page.wait_for_function("() => document.querySelector('#play').innerText === 'Play'")
    visit.settle("")
    assert list(dict.fromkeys(visit.page.evaluate("window.seen"))) == ["1", "20", "200 (end)"]


def test_filters_choose_cells_by_any_key(visit):
    visit.page.click("#filtered")
    visit.page.click("[data-key='parameterization'][data-value='ntk']")
    visit.page.click("[data-key='width'][data-value='64']")
    visit.page.keyboard.press("Tab")
    visit.page.keyboard.press("Enter")
    visit.settle()
    assert {key[:2] for key in visit.letters()} == {("ntk", 64), ("ntk", 128)}
    assert visit.page.inner_text("#selected").startswith("36 of 360 cells")
    assert visit.point().startswith("ntk, width 64")  # never of a point that is not shown
    visit.page.click("[data-key='seed'][data-value='1']")
    visit.settle()
    assert "hidden while a filter parts them" in visit.page.inner_text("#selected")
    assert visit.items("diagram", "places_marks", "words") == []
    visit.page.click("#clear")
    visit.settle("")
    assert len(visit.letters()) == 180
    visit.page.click("#filtered")


def test_a_cell_is_found_by_its_id(visit, digits):
    row = digits.cells[
        (digits.cells["width"] == 256) & (digits.cells["lr"] == 3) & (digits.cells["seed"] == 1)
    ].iloc[0]
    visit.page.fill("#find", row["cell_id"][3:12])
    visit.settle()
    assert visit.point().startswith(f"{row['parameterization']}, width 256, lr 3")
    assert row["cell_id"] in visit.page.inner_text("#cells")
    visit.page.fill("#find", "nothing")
    assert visit.page.inner_text("#found") == "no cells"
    visit.page.fill("#find", "")


def test_two_cells_are_compared(visit):
    visit.page.mouse.click(*visit.place_of(panel="ntk", x=128, y=0.3))
    visit.page.keyboard.down("Shift")
    visit.page.mouse.click(*visit.place_of(panel="mup", x=64, y=0.3))
    visit.page.keyboard.up("Shift")
    visit.settle()
    rows = [row.split("\t") for row in visit.page.inner_text("#numbers").splitlines()]
    assert ["parameterization", "ntk", "mup"] in rows
    assert ["width", "128", "64"] in rows
    assert not [row for row in rows if row[0] in ("lr", "seed")]
    names = visit.page.eval_on_selector_all(
        "#curves .role-legend-label text", "all => all.map(one => one.textContent)"
    )
    assert {"A", "B"} <= set(names)
    visit.page.click("#swap")
    visit.settle()
    assert visit.point().startswith("A: mup, width 64")


def test_a_brush_in_any_chart_is_seen_in_all(visit):
    for name in ("scatter", "parallel"):
        visit.page.locator(f"#{name}").scroll_into_view_if_needed()
        visit.page.wait_for_selector(f"#{name} svg")
    charts = (("diagram", "mark-rect"), ("scatter", "mark-symbol"), ("parallel", "mark-line"))

    def dimmed():
        found = []
        for chart, mark in charts:
            visit.page.locator(f"#{chart}").scroll_into_view_if_needed()
            visit.page.wait_for_timeout(300)  # what nobody sees is filled when it comes into view
            found.append(visit.dimmed(chart, mark))
        return found

    visit.page.evaluate("scrollTo(0, 0)")
    (left, low), (right, high) = (
        visit.place_of(panel="mup", x=64, y=0.1),
        visit.place_of(panel="mup", x=256, y=3),
    )
    visit.drag((left - 9, low + 5), (right + 9, high - 5))
    assert "24 of 360 cells brushed" in visit.page.inner_text("#selected")
    assert dimmed() == [True, True, True]
    rows = visit.items("diagram", "mark-rect", "panel", "x", "y", "kind", "fade")
    bright = {tuple(row) for *row, kind, fade in rows if kind == "cell" and fade > 0.2}
    assert bright == {("mup", width, lr) for width in (64, 128, 256) for lr in (0.1, 0.3, 1, 3)}
    assert "brushed" in visit.page.locator("#curves .role-legend-label text").all_text_contents()
    for name in ("scatter", "parallel"):
        visit.page.click("#clear")
        visit.settle("")
        assert dimmed() == [False, False, False]
        box = visit.page.locator(f"#{name} .background").first.bounding_box()
        visit.page.mouse.move(0, 0)
        visit.page.locator(f"#{name}").scroll_into_view_if_needed()
        box = visit.page.locator(f"#{name} .background").first.bounding_box()
        start = (box["x"] + 0.3 * box["width"], box["y"] + 0.3 * box["height"])
        visit.drag(start, (box["x"] + 0.8 * box["width"], box["y"] + 0.9 * box["height"]))
        assert "brushed" in visit.page.inner_text("#selected")
        assert dimmed() == [True, True, True]
    visit.page.click("#clear")
    visit.settle("")


def test_scales_are_linear_on_demand(visit):
    def ticks(chart):
        return visit.page.eval_on_selector_all(
            f"#{chart} .role-axis-label text", "all => all.map(one => one.getBoundingClientRect().x)"
        )

    for chart, scale in (
        ("diagram", "diagram.x"),
        ("curves", "steps"),
        ("scatter", "scatter.x"),
        ("scaling", "scaling.x"),
    ):
        visit.page.locator(f"#{chart}").scroll_into_view_if_needed()
        visit.page.wait_for_selector(f"#{chart} svg")
        before = ticks(chart)
        visit.page.click(f"[data-scale='{scale}']")
        visit.page.wait_for_function(f"() => document.body.dataset.shown.includes('{scale}')")
        visit.page.wait_for_timeout(200)
        assert ticks(chart) != before
        assert visit.page.get_attribute(f"[data-scale='{scale}']", "aria-pressed") == "true"
        visit.page.click(f"[data-scale='{scale}']")
        visit.settle("")


def test_what_is_shown_can_be_taken_along(visit, digits):
    visit.show("where.width=64&where.parameterization=ntk&where.parameterization=mup")
    with visit.page.expect_download() as download:
        visit.page.click("#csv")
    table = pd.read_csv(download.value.path())
    cells = digits.cells
    chosen = cells[(cells["width"] == 64) & cells["parameterization"].isin(["ntk", "mup"])]
    assert download.value.suggested_filename == "digits.csv"
    assert sorted(table["cell_id"]) == sorted(chosen["cell_id"])
    both = table.merge(chosen, on="cell_id", suffixes=("", "_true"))
    for name in ("width", "lr", "regime", "status", "parameterization"):
        assert list(both[name]) == list(both[f"{name}_true"])
    np.testing.assert_allclose(both["ntk_change"], both["ntk_change_true"], rtol=1e-3)
    visit.show("")
    for chart in ("diagram", "curves"):
        with visit.page.expect_download() as download:
            visit.page.click(f"[data-file='{chart}.svg']")
        assert download.value.path().read_text().startswith("<svg")
        with visit.page.expect_download() as download:
            visit.page.click(f"[data-file='{chart}.png']")
        assert download.value.path().read_bytes().startswith(b"\x89PNG")


def test_a_link_restores_the_view(browser, page_file, visit):
    visit.page.select_option("#color", "ntk_change")
    visit.page.mouse.click(*visit.place_of(panel="ntk", x=128, y=0.3))
    visit.page.uncheck("[data-line='theory']")
    visit.page.focus("#step")
    visit.page.keyboard.press("ArrowLeft")
    visit.settle()
    address, point = visit.page.url, visit.point()
    assert "color=ntk_change" in address
    with Visit(browser, page_file.path, fragment="#" + address.partition("#")[2]) as other:
        assert other.point() == point
        assert other.letters() == visit.letters()
        assert other.page.input_value("#color") == "ntk_change"
        assert not other.page.is_checked("[data-line='theory']")
        assert other.page.url == address
        other.page.evaluate("location.hash = 'color=none&step=7.5&pick=c1-none&where.no=1&brush=[1'")
        other.page.wait_for_function("() => document.querySelector('#color').value === 'regime'")
        other.settle_any()
        assert other.complaints == []


def test_the_address_is_copied(visit):
    visit.context.grant_permissions(["clipboard-read", "clipboard-write"])
    visit.show("color=ntk_change&step=20")
    visit.page.click("#link")
    visit.page.wait_for_function("() => document.querySelector('#link').innerText === 'Copied'")
    assert visit.page.evaluate("navigator.clipboard.readText()") == visit.page.url
    assert visit.page.url.endswith("#color=ntk_change&step=20")


def test_where_the_clipboard_is_refused_the_address_is_shown(visit):
    visit.page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject() }")
    visit.show("color=ntk_change&step=20")
    visit.page.click("#link")
    visit.page.wait_for_selector("#address")
    assert "refuses the clipboard" in visit.page.inner_text("#refused")
    assert visit.page.inner_text("#link") == "Copy link"
    assert visit.page.evaluate("getSelection().toString()") == visit.page.url
    visit.show("")
    assert visit.page.is_hidden("#address")  # the view has changed
    visit.page.evaluate("delete navigator.clipboard.writeText")


def test_curves_are_those_that_are_asked_for(visit):
    def titles():
        return visit.page.locator("#curves .role-title-text").all_text_contents()

    before = titles()
    visit.page.click("summary >> text=Which curves")
    visit.page.uncheck("[data-curve='train_loss']")
    visit.settle()
    assert "show=" in visit.page.url
    assert titles() == [title for title in before if title != "train loss"]
    visit.page.check("[data-curve='train_loss']")
    visit.settle()
    assert sorted(titles()) == sorted(before)
    visit.show("")
    assert titles() == before
    assert visit.page.is_checked("[data-curve='train_loss']")
    visit.page.click("summary >> text=Which curves")


def test_a_filter_of_no_cell_says_so(visit):
    visit.show("where.width=64&where.lr=0.5")
    visit.page.locator("#scatter").scroll_into_view_if_needed()
    visit.page.wait_for_timeout(300)
    assert visit.page.inner_text("#selected") == "0 of 360 cells: no cell matches the filter."
    assert visit.letters() == {}
    assert visit.curves() == []
    titles = visit.page.locator("#diagram text").all_text_contents()
    assert {"ntk", "mup", "sp", "mean_field"} <= set(titles)  # panels stay
    visit.page.click("#clear")
    visit.settle("")
    assert len(visit.letters()) == 180


def test_where_seeds_disagree_a_corner_tells_the_other_regime(visit, digits):
    table = digits.phase().table
    split = {
        (row["parameterization"], row["width"], row["lr"])
        for row in table.to_dict("records")
        if row["share"] < 1
    }
    assert split
    rows = visit.items("diagram", "corners_marks", "kind", "panel", "x1", "y1", "fill")
    cells = visit.items("diagram", "cells_marks", "kind", "panel", "x", "y", "x1", "y1", "fill")
    fill = {(panel, x1, y1): (x, y, own) for _, panel, x, y, x1, y1, own in cells}
    found = {(panel, *fill[panel, x1, y1][:2]) for _, panel, x1, y1, _ in rows}
    assert found == split
    seconds = visit.items("diagram", "mark-text", "kind", "panel", "x", "y")
    assert {tuple(row) for kind, *row in seconds if kind == "second"} == split  # of two seeds it is a tie
    panel, x, y = min(split)
    visit.page.mouse.click(*visit.place_of(panel=panel, x=x, y=y))
    visit.settle()
    assert re.search(r"tie: 1 \w+, 1 \w+$", visit.point())
    assert all(fill[panel, x1, y1][2] != other for _, panel, x1, y1, other in rows)


def test_keys_choose_points(visit):
    visit.page.focus("#diagram")
    seen = [visit.point()]
    for key in ("ArrowRight", "ArrowDown", "PageDown"):
        visit.page.keyboard.press(key)
        visit.settle()
        seen.append(visit.point())
    assert len(set(seen)) == 4
    visit.page.keyboard.press("c")
    visit.page.keyboard.press("ArrowUp")
    visit.settle()
    assert visit.page.inner_text("#other") == f"B: {seen[-1]}"
    visit.page.keyboard.press("Escape")
    visit.settle()
    assert visit.page.inner_text("#other") == ""


def test_links_lead_to_sections_and_leave_the_view_as_it_is(visit):
    """By keyboard: the address holds the view, which no link to a place of the page may undo."""
    visit.show("color=ntk_change")
    links = visit.page.locator("nav a").all()
    named = [(link.get_attribute("href"), link.inner_text()) for link in links if link.is_visible()]
    headings = visit.page.locator("main section[id] > h2:visible")
    assert [words for _, words in named] == [
        text.split("\n")[0].strip() for text in headings.evaluate_all(
            "all => all.map(one => one.firstChild.data)"
        )
    ]  # fmt: skip
    answers = visit.page.locator("#in-short thead a").all()
    assert {"#about-boundaries", "#about-transfer", "#about-scaling", "#single-cells"} == {
        link.get_attribute("href") for link in answers
    }
    for link in (answers[-1], links[3]):
        link.focus()
        visit.page.keyboard.press("Enter")
        place = link.get_attribute("href")
        heading = visit.page.locator(f"{place} > h2")
        assert heading.evaluate("one => one === document.activeElement")
        top = visit.page.locator(place).evaluate("one => one.getBoundingClientRect().top")
        assert 0 <= top <= 60
        assert visit.page.url.endswith("#color=ntk_change")
    visit.page.focus(".skip")
    visit.page.keyboard.press("Enter")
    assert visit.page.evaluate("document.activeElement.id") == "point"
    assert visit.page.url.endswith("#color=ntk_change")


def test_every_control_is_reached_by_tab(visit):
    visit.page.evaluate("document.activeElement.blur()")
    reached = set()
    for _ in range(90):
        visit.page.keyboard.press("Tab")
        reached.add(
            visit.page.evaluate("document.activeElement.id || document.activeElement.dataset.file || ''")
        )
    header = {"csv", "link", "theme", "color", "play", "step", "find"}
    assert header | {"diagram", "diagram.svg", "compare", "a", "b"} <= reached


MODULES = """async ([texts, run]) => {
    const address = text => "data:text/javascript," + encodeURIComponent(text);
    const modules = await Promise.all(texts.map(text => import(address(text))));
    return await (new Function("modules", `return (${run})(...modules)`))(modules);
}"""


@pytest.fixture(scope="module")
def blank(browser):
    page = browser.new_page()
    yield page
    page.close()


def run_modules(page, names, code):
    """What JavaScript says of modules of the page's script that import nothing."""
    folder = files("runner.views.page.script")
    return page.evaluate(MODULES, [[(folder / f"{name}.js").read_text() for name in names], code])


def test_a_state_survives_its_fragment(blank):
    back = run_modules(blank, ["state"], """state => {
        const where = { width: ["64", "128"], "model.activation": ["r,e"] };
        const brush = { on: "diagram", panel: "m=u", x: [1, 2], y: [3, 4] };
        const given = { ...state.START, color: "a&b=c", step: 25, where, brush, pick: "c1-1", other: "c1-2",
            linear: ["steps"], hidden: ["lines"], show: [], a: "lr", b: "x y" };
        return [given, state.fromFragment("#" + state.toFragment(given)), state.toFragment(state.START)];
    }""")  # fmt: skip
    assert back[0] == back[1]
    assert back[2] == ""


def test_a_map_is_bilinear_and_stops_at_holes(blank):
    found = run_modules(blank, ["raster"], """raster => {
        const table = [[0, 1, null], [2, 3, 5]];
        const at = (...place) => raster.between(table, ...place);
        return [at(0, 0, 0.5, 0.5), at(0, 0, 0, 1), at(0, 0, 0.25, 0), at(1, 0, 0.1, 0.1)];
    }""")  # fmt: skip
    assert found == [1.5, 2, 0.25, None]


def test_medians_are_those_of_numpy(blank):
    values = [[3.0, 1.0, 2.0], [4.0, 1.0], [5.0], [], [None, 2.0]]
    found = run_modules(blank, ["table"], f"table => {json.dumps(values)}.map(table.median)")
    assert found == [2.0, 2.5, 5.0, None, 2.0]
