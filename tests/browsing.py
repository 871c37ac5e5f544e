"""The page of a store in a headless Chromium: opened offline, looked at, and driven."""

import shutil
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
from stores import write_cells
from synthetic import LRS, WIDTHS, frames, grid
from vega import compared_with_schema

from runner import load
from runner.views.page import write_page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def digits_store(folder):
    """A store of four parameterizations over width and lr, two seeds each, and a claim beside it."""
    path = folder / "digits"
    names = ("ntk", "mup", "sp", "mean_field")
    cells = grid(width=WIDTHS, lr=(0.001, *LRS), parameterization=names, seed=(0, 1))
    write_cells(path, cells, tables=_on_the_way(*frames(cells)))
    claim = {
        "claim": "C1", "text": "Lazy: <b>", "check": "slope", "predicted": "-1", "measured": -0.9,
        "low": -1.0, "high": -0.8, "cells": 15, "verdict": "holds", "note": "",
    }  # fmt: skip
    (path.parent / "claims").mkdir()
    pd.DataFrame([claim]).to_parquet(path.parent / "claims/claims.parquet")
    return load(path)


def _on_the_way(table, trace, layers):
    """The tables with two more measured steps, at which networks have moved by a share of what they do."""
    between = []
    for step in (1, 20):
        then, start = trace[trace["step"] == 200].assign(step=step), 0.5
        for name in ("ntk_change", "feature_movement", "kernel_distance"):
            then[name] *= step / 200
        then["train_loss"] = start * (then["train_loss"] / start) ** (step / 200)
        between.append(then)
    trace = pd.concat([trace, *between], ignore_index=True)
    diverged = trace["cell_id"].isin(table.loc[table["status"] == "diverged", "cell_id"])
    return table, trace[~diverged | (trace["step"] < 7)], layers


def checked_page(store, path):
    """The page of a store, whose charts keep to Vega-Lite's schema."""
    with compared_with_schema():
        return write_page(store, path)


@contextmanager
def chromium():
    """A browser for as long as the block lasts."""
    sync_api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("needs a Chromium: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


def soonest_ready(browser, path, within, visits=5):
    """Seconds until a page can be used: the best of some visits, for other tests take the same cores."""
    best = float("inf")
    for _ in range(visits):
        with Visit(browser, path) as visit:
            assert visit.complaints == []
            assert visit.external() == []
            best = min(best, visit.seconds())
        if best < within:
            break
    return best


class Visit:
    """A page opened offline, with all that it complained of and asked for."""

    def __init__(self, browser, path, width=1440, scheme="light", fragment="", height=900):
        self.context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, offline=True
        )
        self.page = self.context.new_page()
        self.page.set_default_timeout(20_000)
        self.complaints, self.requests = [], []
        self.page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(Path(path).absolute().as_uri() + fragment)
        self.page.wait_for_selector("body[data-ready]")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.close()

    def seconds(self):
        """From the start of the navigation until the page could be used, by the page's clock."""
        return self.page.evaluate("performance.getEntriesByName('ready')[0].startTime") / 1000

    def external(self):
        return [url for url in self.requests if not url.startswith(("file:", "data:", "blob:"))]

    def items(self, chart, mark, *fields):
        """These fields of the rows behind the marks of a chart."""
        return self.page.eval_on_selector_all(
            f"#{chart} .{mark} path, #{chart} .{mark} text, #{chart} .{mark} image",
            "(all, fields) => all.map(one => fields.map(field => one.__data__?.datum?.[field]))",
            list(fields),
        )

    def place_of(self, **wanted):
        """The middle on the screen of the point of the diagram with these values."""
        return self.page.evaluate(
            """wanted => {
                for (const path of document.querySelectorAll("#diagram .mark-rect path")) {
                    const datum = path.__data__?.datum ?? {};
                    if (Object.entries(wanted).every(([key, value]) => datum[key] === value)) {
                        const box = path.getBoundingClientRect();
                        return [box.x + box.width / 2, box.y + box.height / 2];
                    }
                }
            }""",
            wanted,
        )

    def letters(self):
        """The letters of the diagram by panel, x and y."""
        rows = self.items("diagram", "mark-text", "kind", "panel", "x", "y", "letter")
        return {tuple(row): letter for kind, *row, letter in rows if kind == "cell"}

    def show(self, fragment):
        """Go to a view by its fragment."""
        self.page.evaluate("text => { location.hash = text || '#' }", fragment)
        self.settle(fragment)

    def go(self, fragment):
        """Go to a view whose address the page may shorten or write otherwise."""
        self.page.evaluate("text => { delete document.body.dataset.shown; location.hash = text }", fragment)
        self.page.wait_for_function("() => 'shown' in document.body.dataset")

    def settle(self, fragment=None):
        """Wait until charts are as the address says."""
        self.page.wait_for_timeout(160)  # a brush is told of when the hand rests
        self.page.wait_for_function(
            "text => document.body.dataset.shown === (text ?? location.hash.slice(1))", arg=fragment
        )

    def settle_any(self):
        """Wait until the charts have followed, whatever the address was."""
        self.page.wait_for_timeout(300)

    def drag(self, start, end):
        self.page.mouse.move(*start)
        self.page.mouse.down()
        self.page.mouse.move(*((a + b) / 2 for a, b in zip(start, end, strict=True)), steps=3)
        self.page.mouse.move(*end, steps=3)
        self.page.mouse.up()
        self.settle()

    def fades(self, chart, mark):
        return {round(fade, 2) for (fade,) in self.items(chart, mark, "fade") if fade is not None}

    def dimmed(self, chart, mark):
        """Whether some marks of a chart stand back behind what is brushed."""
        return min(self.fades(chart, mark)) < 0.2

    def point(self):
        return self.page.inner_text("#point")

    def curves(self):
        return self.page.eval_on_selector_all(
            "#curves .mark-line path", "all => all.map(one => one.getAttribute('d'))"
        )


OVERFLOWS = """() => [...document.querySelectorAll("body *")].filter(one => one.clientWidth
    && getComputedStyle(one).display !== "inline" && one.scrollWidth > one.clientWidth + 1
    && !one.closest(".chart, .scroll, pre, .skip, details:not([open]), script, #vg-tooltip-element")
).map(one => one.outerHTML.slice(0, 90))"""
UNMARKED = """() => [...document.querySelectorAll(".scroll, .chart, pre")].filter(one => one.clientWidth
    && one.scrollWidth > one.clientWidth + 2 && !(one.dataset.more && one.tabIndex === 0)
    && !one.closest("details:not([open])")
).map(one => one.outerHTML.slice(0, 90))"""
OVERLAPS = """() => {
    const boxes = (selector) => [...document.querySelectorAll(selector)]
        .filter(one => one.getClientRects().length && one.textContent.trim())
        .map(one => [one.textContent, one.getBoundingClientRect()]);
    const meet = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 2
        && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 3;
    const marks = ["role-axis-label", "role-axis-title", "role-legend-label", "role-title-text",
        "labels_marks", "letters_marks"];
    const found = [];
    for (const selector of [
        marks.map(name => `#diagram .${name} text`).join(),
        "header h1, header p, header button, .controls > label, .controls > button, .panel .head p,"
        + " .panel button, summary, .status",
        "#scatter .role-axis-label text", ".chip-button",
        "#measures label",
        ".tool", "#curves .role-axis-label text",
        "#curves .role-title text, #curves .role-legend-label text, #curves .role-legend-title text",
        "#point, #other, .panel button, #numbers td, #numbers th",
    ]) {
        const all = boxes(selector);
        all.forEach(([text, box], i) => all.slice(i + 1).forEach(([other, there]) =>
            meet(box, there) && found.push(`${text} | ${other}`)));
    }
    return found;
}"""
CONTRASTS = """() => {
    const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
    const light = (rgb) => rgb.slice(0, 3).map(part => part / 255)
        .map(part => part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
        .reduce((sum, part, i) => sum + part * [0.2126, 0.7152, 0.0722][i], 0);
    const behind = (node) => {
        for (; node; node = node.parentElement) {
            const color = numbers(getComputedStyle(node).backgroundColor);
            if (color.length < 4 || color[3] > 0) return color;
        }
        return [255, 255, 255];
    };
    const found = [];
    const visit = (node, color) => {
        const [a, b] = [light(numbers(color)), light(behind(node))].sort((a, b) => b - a);
        if ((a + 0.05) / (b + 0.05) < 4.5)
            found.push(`${node.textContent.slice(0, 30)} ${color} on ${behind(node)}`);
    };
    for (const node of document.querySelectorAll("body *")) {
        if (!node.getClientRects().length || node.closest("svg, script, :disabled")) continue;
        if ([...node.childNodes].some(child => child.nodeType === 3 && child.data.trim()))
            visit(node, getComputedStyle(node).color);
    }
    const roles = ["axis-label", "axis-title", "title-text", "title-subtitle", "legend-label"];
    for (const node of document.querySelectorAll(roles.map(role => `.chart .role-${role} text`).join()))
        visit(node, getComputedStyle(node).fill);
    return found;
}"""
