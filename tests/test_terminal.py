"""Pictures on a terminal: blocks of a measure with sparklines, boundaries, curves in braille."""

import io

import numpy as np
import pytest
from rich.console import Console
from stores import write_cells
from synthetic import grid

from runner import load
from runner.views.braille import Line, chart, sparkline
from runner.views.scales import Scale


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("outputs") / "digits"
    write_cells(path, grid(width=(64, 256), lr=(0.1, 1.0, 10.0), parameterization=("ntk", "mup")))
    return load(path)


def shown(view, width=80, **more):
    """What a terminal with UTF-8 receives, without colours unless they are asked for."""
    file = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    settings = {"force_terminal": True, "color_system": None, "highlight": False, "height": 60} | more
    out = Console(file=file, width=width, **settings)
    view.print(out)
    file.flush()
    return file.buffer.getvalue().decode()


def plain(text):
    """Without the escape codes of styles."""
    return "\n".join(line.rstrip() for line in Console(no_color=True).render_str(text).plain.splitlines())


def test_a_line_is_drawn_where_it_runs():
    up, across = Scale("", False, (0.0, 1.0), [0.0, 1.0]), (lambda x: x, [0.0, 1.0])
    diagonal = Line("a", "", np.array([0.0, 1.0]), np.array([0.0, 1.0]))
    text = chart([diagonal], "title", across, up, 13, 2).plain.splitlines()
    # 8 columns are 16 dots, 2 rows are 8: one dot up for two to the right.
    assert [line.rstrip() for line in text] == [
        "title",
        "1 ┤    ⣀⠤⠒⠉ a",
        "0 ┤⣀⠤⠒⠉",
        "  └────────",
        "   0      1",
    ]


def test_dots_of_a_chart_are_those_of_a_naive_walk():
    rng = np.random.default_rng(0)
    values = rng.uniform(0, 1, 9)
    up, across = Scale("", False, (0.0, 1.0), [0.0, 1.0]), (lambda x: x / 8, [0.0])
    drawn = chart([Line("", "", np.arange(9.0), values)], "", across, up, 60, 6).plain.splitlines()[1:7]
    rows = [line.partition("┤")[2] or line.partition("│")[2] for line in drawn]
    columns = max(map(len, rows))
    dots = {
        (4 * r + i, 2 * c + j)
        for r, row in enumerate(rows)
        for c, letter in enumerate(row)
        for i in range(4)
        for j in range(2)
        if letter != " " and (ord(letter) - 0x2800) & [[1, 8], [2, 16], [4, 32], [64, 128]][i][j]
    }
    assert dots
    width = max(column for _, column in dots)
    for row, column in dots:
        x = 8 * column / width
        # Within a dot of the straight line between the neighbours, in steep pieces along x.
        near = np.linspace(x - 8 / width, x + 8 / width, 9).clip(0, 8)
        heights = (1 - np.interp(near, np.arange(9.0), values)) * 23
        assert heights.min() - 1.1 <= row <= heights.max() + 1.1
    assert columns <= 60


def test_blocks_of_a_measure_have_letter_value_and_course(store):
    text = shown(store.phase(color="ntk_change"), 100)
    lines = [line.rstrip() for line in plain(text).splitlines()]
    assert lines[0] == "mup" or lines[0].startswith("mup")
    at_one = next(line for line in lines if line.split()[:1] == ["1"])
    letters = [word for word in at_one.split() if len(word) == 1 and word.isalpha()]
    assert len(letters) >= 2
    assert any(block in at_one for block in "▁▂▃▄▅▆▇█")
    assert any(line.startswith("▁ ") and "ntk_change over the measured steps" in line for line in lines)
    assert "letters: regimes" in text
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize("width", [60, 80, 200])
def test_pictures_fit_into_the_terminal(store, width):
    for view in (store.phase(), store.phase(color="ntk_change"), store.curves("train_loss", where="lr=1")):
        assert max(len(line) for line in plain(shown(view, width)).splitlines()) <= width


def test_boundaries_are_marked_where_regimes_differ(store):
    grid = store.phase().table
    rows = {(row.parameterization, row.lr, row.width): row.regime for row in grid.itertuples()}
    expected = sum(
        rows[name, lr, 64] != rows[name, lr, 256] for name in ("ntk", "mup") for lr in (0.1, 1.0, 10.0)
    )
    assert plain(shown(store.phase(), 100)).count("▕") == expected > 0
    below = sum(
        rows[name, high, width] != rows[name, low, width]
        for name in ("ntk", "mup") for width in (64, 256) for low, high in ((0.1, 1.0), (1.0, 10.0))
    )  # fmt: skip
    underlined = shown(store.phase(), 100, color_system="standard", no_color=True)
    assert underlined.count("\x1b[4m") + underlined.count("\x1b[1;4m") <= below
    assert "\x1b[4m" in underlined


def test_curves_are_drawn_and_named(store):
    text = plain(shown(store.curves("train_loss", where="lr=1"), 80))
    lines = text.splitlines()
    assert any(0x2800 < ord(letter) < 0x2900 for letter in text)
    assert any(line.endswith(" 64") for line in lines)
    assert any(line.endswith(" 256") for line in lines)
    colored = shown(store.curves("train_loss", where="lr=1"), 80, color_system="truecolor")
    assert "\x1b[38;2;" in colored
    assert "\x1b[38;2;" not in shown(
        store.curves("train_loss", where="lr=1"), 80, color_system="truecolor", no_color=True
    )


def test_a_terminal_of_ascii_gets_the_tables(store):
    out = Console(
        file=io.TextIOWrapper(io.BytesIO(), encoding="ascii"),
        force_terminal=True,
        width=80,
        color_system=None,
    )
    store.curves("train_loss", where="lr=1").print(out)
    store.phase(color="ntk_change").print(out)
    out.file.flush()
    assert out.file.buffer.getvalue().isascii()


def test_sparklines():
    assert sparkline([1, 10, 100, 1000], 1, 1000, 4) == "▁▃▆█"
    assert sparkline([0.0, 0.5, 1.0], 0.0, 1.0, 3) == "▁▅█"
    assert sparkline([float("nan"), 5.0], 1.0, 1.0, 3) == " ▁"
    assert len(sparkline(range(1, 100), 1, 100, 6)) == 6
