import html
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from browsing import CONTRASTS, OVERFLOWS, OVERLAPS, UNMARKED, Visit, checked_page, soonest_ready
from stores import write_cells
from synthetic import LRS, WIDTHS, cell, frames, grid

from runner import load
from runner.cli import main
from runner.grid.config import load_thresholds
from runner.views.drift import best_words
from runner.views.page import write_page
from runner.views.page.answers import in_short
from runner.views.page.packing import pack_curves
from runner.views.picture import Answer

EVIL = "</script><script>window.hacked=1</script><img src=x onerror='window.hacked=1'>"
MEGABYTE = 1_000_000
BUSY = (
    "where.parameterization=ntk&where.parameterization=sp&where.seed=0&where.width=64&where.width=128"
    '&step=20&linear=curves&brush={"on":"diagram","panel":"ntk","x":[40,140],"y":[0.05,2]}'
)
"""A view with filters, a step, a linear scale and a brush."""
ALL_DRAWN = "() => [...document.querySelectorAll('.chart')].every(one => one.querySelector('svg'))"
COLORS_IN_USE = """() => [...new Set([...document.querySelectorAll("body, body *")].flatMap(one => {
    const { color, backgroundColor, borderBottomColor, fill, stroke } = getComputedStyle(one);
    return [color, backgroundColor, borderBottomColor, fill, stroke];
}))]"""


def test_opens_offline_quickly_and_in_silence(browser, page_file):
    assert page_file.size <= 3 * MEGABYTE
    assert page_file.left_out == ()
    assert soonest_ready(browser, page_file.path, 2.0) < 2.0


def looked_at(visit, width):
    """Nothing is wider than its place, on top of another or pale, as the page is now."""
    # What is new is marked with the next frame.
    visit.page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
    for fault in (OVERFLOWS, OVERLAPS, CONTRASTS, UNMARKED):
        assert visit.page.evaluate(fault) == []


@pytest.mark.parametrize("width", [390, 1440, 2560])
def test_nothing_overflows_overlaps_or_is_pale(browser, page_file, digits, width):
    of = digits.cells.drop_duplicates(["parameterization", "width", "lr"]).set_index(
        ["parameterization", "width", "lr"]
    )["cell_id"]
    compared = f"pick={of['ntk', 128, 0.3]}&with={of['mean_field', 512, 1.0]}&color=ntk_change"
    with Visit(browser, page_file.path, width) as visit:
        page = visit.page
        room = page.evaluate("document.querySelector('#diagram svg').getBoundingClientRect().width")
        assert room <= page.evaluate("document.querySelector('#diagram').clientWidth")
        assert room >= (0.9 if width < 1000 else 0.6) * width
        looked_at(visit, width)
        page.evaluate("document.querySelectorAll('details').forEach(one => (one.open = true))")
        page.evaluate("scrollTo(0, document.body.scrollHeight)")
        for theme in ("light", "dark"):
            for fragment in (compared, "where.lr=0.5&color=ntk_change", BUSY):
                visit.go(fragment)
                if fragment == compared:
                    assert page.inner_text("#other").startswith("B: mean_field, width 512")
                    assert page.is_visible("#curves .role-legend-label text >> text=B")
                looked_at(visit, width)
            page.wait_for_function(ALL_DRAWN)  # those that nobody sees, too
            names = page.locator("#parallel .role-axis-label text").all()
            lefts = [name.bounding_box()["x"] for name in names]
            assert min(np.diff(lefts)) >= 60  # slanted ones need room beside each other
            looked_at(visit, width)
            if theme == "light":
                page.click("#theme")
                page.wait_for_selector("#diagram .role-axis-label text[fill='#e8e6e3']")
        assert visit.complaints == []


def test_a_dark_page_is_printed_light(browser, page_file):
    """By the colours that a printer gets: none of the dark theme's is left, in the text or in a chart."""
    with Visit(browser, page_file.path, scheme="dark") as visit:
        visit.page.wait_for_function(ALL_DRAWN)
        assert "rgb(232, 230, 227)" in visit.page.evaluate(COLORS_IN_USE)
        visit.page.emulate_media(media="print", color_scheme="dark")
        dark = {"rgb(21, 23, 26)", "rgb(232, 230, 227)", "rgb(168, 168, 168)", "rgb(58, 61, 66)"}
        assert dark.isdisjoint(visit.page.evaluate(COLORS_IN_USE))
        assert visit.page.evaluate(CONTRASTS) == []


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
        visit.page.wait_for_selector(f"#diagram .role-axis-label text[fill='{ink}']")
        assert visit.complaints == []


def test_names_do_no_harm(browser, tmp_path):
    cells = [
        cell(width=width, lr=lr, model=f"{EVIL}{i}", data=EVIL, model__activation=EVIL)
        for width in (32, 64, 128) for lr in (0.1, 0.3, 1.0) for i in (0, 1)
    ]  # fmt: skip
    table, *others = frames(cells)
    table = table.assign(**{f"a {EVIL}": np.arange(len(table), dtype=float)})  # a measure of the user's
    write_cells(tmp_path / "store", cells, facet=("model",), name=EVIL, tables=(table, *others))
    page = checked_page(load(tmp_path / "store"), tmp_path / "page.html")
    assert EVIL not in page.path.read_text()
    with Visit(browser, page.path) as visit:
        visit.page.mouse.move(*visit.place_of(x=64))
        tooltip = visit.page.wait_for_selector("#vg-tooltip-element.visible")
        assert EVIL in tooltip.inner_text()  # the model
        assert EVIL in visit.page.inner_text("#numbers")  # the measure
        visit.page.mouse.click(*visit.place_of(x=64))
        visit.page.select_option("#color", f"a {EVIL}")
        visit.page.wait_for_selector("#diagram .role-legend-title")
        visit.page.click("#filtered")
        visit.page.locator("[data-key='model']").first.click()
        visit.settle()
        for name in ("scatter", "parallel", "scaling", "transfer"):
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
    page = checked_page(load(tmp_path / "store"), tmp_path / "page.html")
    text = page.path.read_text()
    assert "gamma, by parameterization, optimizer, model.activation" in re.sub(r"lr over ", "", text)
    assert "No fits: width must have at least 3 values" in text
    with Visit(browser, page.path) as visit:
        assert visit.complaints == []


@pytest.mark.parametrize("kind", ["one", "diverged"])
def test_a_page_of_one_cell_and_of_divergent_ones(browser, tmp_path, kind):
    cells = grid(lr=0.1) if kind == "one" else grid(width=(32, 64), lr=(100.0, 1000.0), seed=(0, 1))
    write_cells(tmp_path / "store", cells)
    page = write_page(load(tmp_path / "store"), tmp_path / "page.html")
    with Visit(browser, page.path) as visit:
        assert set(visit.letters().values()) == ({"D"} if kind == "diverged" else {"L"})
        visit.page.locator("#parallel").scroll_into_view_if_needed()
        visit.page.wait_for_selector("#parallel svg")
        assert visit.complaints == []


def test_claims_beside_the_store_are_shown(page_file):
    row = "<td>Lazy: &lt;b&gt;</td><td>slope</td><td>-1</td><td>-0.9</td><td>[-1, -0.8]</td>"
    assert row in page_file.path.read_text()


def test_commands_on_the_page_run(page_file, digits, capsys):
    lines = [
        line
        for block in re.findall(r"<pre>(runner .*?)</pre>", page_file.path.read_text(), re.DOTALL)
        for line in html.unescape(block).splitlines()
        if not line.startswith("runner sweep")
    ]
    assert {line.split()[1] for line in lines} >= {"boundary", "transfer", "fit", "theory"}
    seen = set()
    for line in lines:
        kind = line.split()[1], "--collapse" in line
        if kind not in seen:
            seen.add(kind)
            assert main(line.split()[1:]) == 0, line
            assert capsys.readouterr().out
    assert ("boundary", True) in seen


def test_sections_have_the_numbers_of_the_analysis(page_file, digits):
    text = html.unescape(page_file.path.read_text())
    rich = load_thresholds("default")["rich"]
    places = digits.boundary(of=f"movement={rich}", along="lr", x="width").table.dropna(subset=["place"])
    for row in places.to_dict("records"):
        assert f"<td>{row['place']:.3g} [{row['low']:.3g}, {row['high']:.3g}]</td>" in text
    for row in digits.transfer().table.to_dict("records"):
        assert f"<td>{best_words(row)}</td>" in text


def test_the_page_says_in_short_what_its_sections_say(page_file, digits):
    """Every number and verdict of the first table is in a table of the analysis."""
    text = html.unescape(page_file.path.read_text())
    table = re.search(r'<section id="in-short">.*?</table>', text, re.DOTALL)[0]
    rows = re.findall(r"<tr><th scope=row>(.*?)</th>(.*?)</tr>", table)
    found = {name: re.findall(r"<td>(.*?)</td>", re.sub(r"</?strong>", "", row)) for name, row in rows}
    assert {name for label in found for name in label.split(" = ")} == {"ntk", "mup", "sp", "mean_field"}
    edges = digits.boundary(of="diverged", along="lr", x="width").table.dropna(subset=["place"])
    rates = digits.transfer().table.drop_duplicates("parameterization").set_index("parameterization")
    for label, (_, diverges, critical, put, features, moved) in found.items():
        name = label.split(" = ")[0]
        own = edges[edges["parameterization"] == name].sort_values("width").iloc[[0, -1]]
        assert diverges == " → ".join(
            f"{row['place']:.3g} [{row['low']:.3g}, {row['high']:.3g}]" for row in own.to_dict("records")
        )
        at_ends = digits.cells[digits.cells["parameterization"] == name].groupby("width")
        bound = 2 / at_ends["lambda_max_init"].median().iloc[[0, -1]]
        times = (
            f"{row['place'] / rate:.2g} [{row['low'] / rate:.2g}, {row['high'] / rate:.2g}]"
            for row, rate in zip(own.to_dict("records"), bound, strict=True)
        )
        assert critical == (
            " → ".join(f"{rate:.3g}" for rate in bound)
            + f"; training diverges at {' → '.join(times)} times that"
        )
        assert put.startswith(f"{rates.loc[name, 'stays_put']}: {rates.loc[name, 'stays_because']}")
        assert features.startswith(("turns lazy: -", "learns features at any width: ", "cannot tell: "))
        assert "; ntk change " in features
        least, most = (
            digits.cells.loc[
                digits.cells[digits.cells["parameterization"] == name]["param_movement"].agg(end)
            ]
            for end in ("idxmin", "idxmax")
        )
        assert moved == " → ".join(
            f"{cell['param_movement']:.3g} (width {cell['width']}, lr {cell['lr']:.3g})"
            for cell in (least, most)
        )
        assert f"<td>{put}</td>" in text  # the section's own words


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("0.15 [0.05, 0.26]", "0.15 [0.05, 0.25]", True),
        ("0.15 [0.05, 0.26]", "0.15 [0.05, 0.28]", False),
        ("4.32e-05", "4.33e-05", True),
        ("at 3 of 5", "at 2 of 5", False),
        ("more 0.1", "less 0.1", False),
    ],
)
def test_the_same_networks_differ_by_rounding(one, other, alike):
    answers = [("there", Answer("edge", {"mup": one, "mean_field": other}))]
    table = in_short(answers, ("mean_field", "mup"), [("mean_field", "mup")])
    assert table.count("<th scope=row>") == 2 - alike
    assert other in table


def test_panels_of_the_same_networks_share_a_row_where_words_are_equal():
    answers = [("there", Answer("edge", {"mup": "1", "mean_field": "1", "ntk": "yes: <2>"}, "Rule."))]
    panels, same = ("mean_field", "mup", "ntk"), [("mean_field", "mup")]
    table = in_short(answers, panels, same)
    assert re.findall(r"<th scope=row>(.*?)</th>", table) == ["mean_field = mup", "ntk"]
    assert "<td><strong>yes</strong>: &lt;2&gt;</td>" in table
    assert '<a href="#there">edge</a>' in table
    assert "Rule." in table
    apart = [("there", Answer("edge", {"mup": "1", "mean_field": "2"}))]
    assert re.findall(r"<th scope=row>(.*?)</th>", in_short(apart, panels, same)) == [*panels]
    assert in_short([("there", Answer("edge", {"other": "1"}))], panels, same) == ""


def test_a_sweep_of_gamma_has_its_section(tmp_path):
    cells = grid(width=(32, 64, 128), gamma=(0.1, 0.3, 1.0, 3.0, 10.0), seed=(0, 1))
    write_cells(tmp_path / "store", cells)
    page = checked_page(load(tmp_path / "store"), tmp_path / "page.html")
    text = page.path.read_text()
    assert "Scaling with the richness gamma" in text
    assert re.search(r"runner fit \S+ --x gamma --where width=128", text)


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
def test_ten_thousand_cells(browser, tmp_path):
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
    assert len(_packed(page)) == 10_000
    assert soonest_ready(browser, page.path, 4.0) < 4.0


def test_says_what_it_leaves_out(digits, tmp_path, monkeypatch):
    monkeypatch.setattr("runner.views.page.document.MOST_CURVE_BYTES", 40_000)
    monkeypatch.setattr("runner.views.page.document.MOST_PANELS", 3)
    page = write_page(digits, tmp_path / "page.html")
    facets, curves = page.left_out
    assert facets.startswith("1 of 4 facets (parameterization)")
    left, whole = map(int, re.findall(r"(\d+) of (\d+) cells", curves)[0])
    assert whole == 270
    assert whole - left == len(_packed(page)) > 0
    assert curves.replace("`", "") in page.path.read_text().replace("`", "")


def test_flags_are_marked(browser, tmp_path):
    cells = grid(width=(32, 64), lr=(0.1, 0.3), seed=(0, 1))
    table, *others = frames(cells)
    table = table.assign(controlled_divergence=(table["lr"] == 0.3) & (table["width"] == 64)).astype(
        {"controlled_divergence": "boolean"}
    )
    write_cells(tmp_path / "store", cells, tables=(table, *others))
    page = write_page(load(tmp_path / "store"), tmp_path / "page.html")
    with Visit(browser, page.path) as visit:
        assert [key[1:] for key, letter in visit.letters().items() if "*" in letter] == [(64, 0.3)]


def test_a_store_of_failed_cells(tmp_path):
    cells = grid(width=(32, 64, 128), lr=(0.1, 0.2, 0.3))
    table, trace, layers = frames(cells)
    nothing = dict.fromkeys(("regime", "train_loss", "ntk_change", "feature_movement", "lambda_max_init"))
    table = table.assign(status="failed", error="boom", **nothing)
    write_cells(tmp_path / "store", cells, tables=(table, trace.iloc[:0], layers.iloc[:0]))
    page = checked_page(load(tmp_path / "store"), tmp_path / "page.html")
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
    places = sorted(map(int, part["cells"]))
    seeds = (
        cells["seed"]
        .iloc[places]
        .groupby(points.iloc[places].to_numpy())
        .apply(lambda own: tuple(sorted(own)))
    )
    assert len(seeds) == 40
    assert set(seeds) <= {(1,), (1, 2), (1, 2, 3)}
    one, of_cell = part["cells"][str(places[2])], cells["cell_id"].iloc[places[2]]
    losses = trace[trace["cell_id"] == of_cell].sort_values("step")["train_loss"]
    assert one["trace"][0] == pytest.approx(list(losses), rel=1e-3)
