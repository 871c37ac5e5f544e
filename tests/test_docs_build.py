"""What builds the docs: the check for foreign hosts, the tables and the pictures of measured results."""

import sys

import pandas as pd
import pytest
from pages import ROOT, generated, hooks

from runner.views.claims import claims_markdown

sys.path.insert(0, str(ROOT / "scripts"))

import docs_pictures
import docs_tables


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.html", '<script src="https://cdn.example/x.js"></script>'),
        ("a.html", '<link rel="stylesheet" href="//fonts.example/css">'),
        ("a.html", '<img alt="" src=https://example.org/x.png>'),
        ("a.css", "@import 'https://example.org/x.css';"),
        ("a.css", "p { background: url(https://example.org/x.png) }"),
        ("a.js", 'import("https://unpkg.com/something")'),
    ],
)
def test_what_a_site_would_load_from_another_host_is_found(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert len(hooks.foreign(tmp_path)) == 1


def test_links_are_not_loads(tmp_path):
    text = '<a href="https://arxiv.org/abs/1806.07572">NTK</a><script src="x.js"></script>'
    (tmp_path / "a.html").write_text(text, encoding="utf-8")
    assert hooks.foreign(tmp_path) == []


def test_keys_are_read_with_their_comments():
    text = "# head\na: 1   # one\n              # and more\nb:\n  c: {x: 1}  # inner\nfree: null\n"
    found = [("a", "1", "one and more"), ("b.c", "{x: 1}", "inner"), ("free", "null", "")]
    assert [tuple(key) for key in generated.keys_of(text)] == found


def test_the_tables_of_claims_are_those_of_the_command(tmp_path):
    row = {"claim": "C1", "text": "said", "check": "by", "predicted": "> 0", "measured": 1.0, "low": 0.5}
    row |= {"high": 2.0, "cells": 3, "verdict": "holds", "note": ""}
    table = pd.DataFrame([row])
    beside = pd.DataFrame({"quantity": ["cells"], "lazy": [1], "rich": [2]})
    (tmp_path / "claims.md").write_text(claims_markdown(table, table, beside, "runner claims"), "utf-8")
    found = dict(docs_tables.claims(tmp_path))
    assert [line[:4] for line in found["claims.md"].splitlines()] == ["| cl", "| --", "| C1"]
    assert found["checks.md"].startswith("## Every check\n")
    assert "## Lazy and rich" in found["checks.md"]


def test_pictures_become_small_and_keep_what_is_drawn():
    mark = '<path aria-label="x: 1" role="graphics-symbol" d="M{x}.0000001,0h26.80000001Z" fill="#ddd"/>'
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" width="9"><g class="marks"><g>'
        + "".join(mark.format(x=x) for x in range(3))
        + '<path class="background" d="M0,0h0v0h0Z" fill="#ddd"/></g>'
        '<text transform="translate(1.26,2)" opacity="1">a b</text></g></svg>'
    )
    lines = docs_pictures.compact(svg).splitlines()
    assert '<g fill="#ddd">' in lines
    assert [line for line in lines if line.startswith("<path")] == [
        f'<path d="M{x},0h26.8Z"/>' for x in range(3)
    ]
    assert '<text x="1.3" y="2">a b</text>' in lines


def test_the_tables_of_the_benchmark_have_a_line_for_each_of_its_lines(tmp_path):
    line = {"family": "planner", "what": "calibration", "unit": "s", "figure": 0.455, "target": "<= 1"}
    line |= {"repeats": 5, "low": 0.43, "high": 0.461, "verdict": "pass"}
    shown = line | {"what": "step", "unit": "ratio", "target": None, "repeats": 1, "verdict": ""}
    rival = shown | {"family": "jax", "what": "MLP in JAX", "unit": "cells x steps/s", "figure": 78600.0}
    pd.DataFrame([line, shown, rival]).to_parquet(tmp_path / "bench.parquet")
    tables = dict(docs_tables.speed(tmp_path / "bench.parquet"))
    assert tables["speed.md"].splitlines()[2:] == [
        "| calibration | ≤ 1 s | 0.455 s (0.43 to 0.461) | yes |",
        "| step |  | 0.455 |  |",
    ]
    assert tables["rivals.md"].splitlines()[2:] == ["| MLP in JAX |  | 78,600 cells x steps/s |  |"]
    pd.DataFrame([rival]).to_parquet(tmp_path / "bench.parquet")
    assert [name for name, _ in docs_tables.speed(tmp_path / "bench.parquet")] == ["rivals.md"]
