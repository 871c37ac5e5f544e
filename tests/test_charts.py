import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from synthetic import LRS, WIDTHS, frames, grid

from runner.analysis.phase import Axes, phase_grid
from runner.analysis.regime import COLORS, REGIMES
from runner.errors import UserError
from runner.views.curves import curve_panel
from runner.views.figures import render, write_figure
from runner.views.phase.chart import phase_chart
from runner.views.scales import column_title
from runner.views.style import Layout

BY_NAME = Axes(facets=("parameterization",))
SCREEN = Layout()
MAGIC = {".svg": b"<svg", ".png": b"\x89PNG", ".pdf": b"%PDF"}


@pytest.fixture(scope="module")
def cells():
    return frames(grid(width=WIDTHS, lr=LRS, parameterization=("ntk", "sp"), seed=(0, 1)))[0]


@pytest.fixture(scope="module")
def chart(cells):
    return phase_chart(phase_grid(cells, BY_NAME), BY_NAME, "digits", "absolute", SCREEN)


@pytest.fixture(scope="module")
def spec(chart):
    return chart.to_dict()


def _layers(spec, mark):
    layers = [layer for panel in spec["concat"] for layer in panel["layer"] if layer["mark"]["type"] == mark]
    return [layer | {"rows": spec["datasets"][layer["data"]["name"]]} for layer in layers]


def _cells(spec):
    """The layers that hold the points of a panel."""
    return [layer for layer in _layers(spec, "rect") if layer.get("name", "").startswith("cells")]


def test_one_panel_per_facet_on_shared_log_axes(spec):
    panels = spec["concat"]
    assert [panel["title"] for panel in panels] == ["ntk", "sp"]
    x, y = zip(
        *[(panel["layer"][0]["encoding"]["x"], panel["layer"][0]["encoding"]["y"]) for panel in panels],
        strict=True,
    )
    assert {axis["scale"]["type"] for axis in (*x, *y)} == {"log"}
    assert x[0]["scale"]["domain"] == x[1]["scale"]["domain"]
    assert x[0]["axis"]["title"] == "width (units)"
    assert y[0]["axis"]["title"] == "learning rate η"
    assert x[0]["axis"]["values"] == list(WIDTHS)


def test_every_point_has_a_rectangle_and_its_letter(spec):
    rects, texts = _cells(spec), _layers(spec, "text")
    for rect in rects:
        assert len({row["id"] for row in rect["rows"]}) == len(WIDTHS) * len(LRS)  # a tie has two halves
    letters = [text for text in texts if "text" in text["encoding"]]
    assert {row["letter"] for text in letters for row in text["rows"]} == set("LCRUD")
    scale = rects[0]["encoding"]["color"]["scale"]
    assert scale["domain"] == list(REGIMES)
    assert scale["range"] == [COLORS[name] for name in REGIMES]


def test_boundary_and_critical_line_are_drawn(spec):
    assert _layers(spec, "rule")
    dashes = [line["mark"]["strokeDash"] for line in _layers(spec, "line")]
    assert dashes.count([5, 4]) == dashes.count([2, 2]) == 2  # 2 and 4 over lambda_max, in both panels
    assert dashes.count([1, 0]) == 4  # their casings
    assert any(text["mark"].get("text") == "2/λmax" for text in _layers(spec, "text"))


def test_an_absolute_lr_has_a_second_axis_in_units_of_the_critical_one(spec, cells):
    lines = _layers(spec, "line")
    first = {str(line["mark"]["strokeDash"]): [] for line in lines}
    for line in lines:
        first[str(line["mark"]["strokeDash"])].append(line["rows"][0]["y"])
    critical = first["[5, 4]"][0]
    assert sorted(y / critical for y in first["[1, 3]"][:4]) == pytest.approx([0.01, 0.1, 10, 100])
    assert any(text["mark"].get("text") == "0.2/λmax" for text in _layers(spec, "text"))
    grid = phase_grid(cells.assign(lr_unit="sharpness"), BY_NAME)
    relative = phase_chart(grid, BY_NAME, "", "sharpness", SCREEN)
    assert not [line for line in _layers(relative.to_dict(), "line") if line["mark"]["strokeDash"] == [1, 3]]


def test_no_critical_line_without_lr(cells):
    one = cells[(cells["lr"] == 0.1) & (cells["parameterization"] == "ntk")]
    axes = Axes(y="gamma")
    assert not _layers(phase_chart(phase_grid(one, axes), axes, "", None, SCREEN).to_dict(), "line")


def test_numeric_color_has_no_letters(cells):
    axes = Axes(facets=("parameterization",), color="ntk_change")
    found = phase_chart(phase_grid(cells, axes), axes, "", None, SCREEN).to_dict()
    color = _cells(found)[0]["encoding"]["color"]
    assert color["scale"]["scheme"] == "viridis"
    assert color["scale"]["type"] == "log"
    assert color["legend"]["title"] == "ntk change"
    assert not [text for text in _layers(found, "text") if "text" in text["encoding"]]


def test_points_without_a_regime_stay_empty(cells):
    holed = cells.copy()
    holed.loc[holed["width"] == 64, "regime"] = None
    rects = _cells(phase_chart(phase_grid(holed, BY_NAME), BY_NAME, "", None, SCREEN).to_dict())
    drawn = [row for row in rects[0]["rows"] if row["regime"] is not None]
    assert rects[0]["transform"] == [{"filter": "isValid(datum.regime)"}]
    assert len({row["id"] for row in drawn}) == (len(WIDTHS) - 1) * len(LRS)
    assert {row["letter"] for row in rects[0]["rows"] if row not in drawn} == {""}


def test_one_point():
    cells = frames(grid(width=64, lr=0.1))[0]
    chart = phase_chart(phase_grid(cells, Axes()), Axes(), "", None, SCREEN)
    assert len(_cells(chart.to_dict())[0]["rows"]) == 1


@pytest.mark.parametrize("suffix", MAGIC)
def test_formats(chart, tmp_path, suffix):
    path = tmp_path / f"new/phase{suffix}"
    write_figure(chart, path)
    assert path.read_bytes().startswith(MAGIC[suffix])
    once = path.read_bytes()
    write_figure(chart, path)
    assert path.read_bytes() == once


def test_bytes_do_not_depend_on_the_process(chart, tmp_path):
    script = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "from pathlib import Path; from test_charts import *\n"
        "cells = frames(grid(width=WIDTHS, lr=LRS, parameterization=('ntk', 'sp'), seed=(0, 1)))[0]\n"
        "chart = phase_chart(phase_grid(cells, BY_NAME), BY_NAME, 'digits', 'absolute', SCREEN)\n"
        "[write_figure(chart, Path(sys.argv[1]) / f'phase{suffix}') for suffix in MAGIC]\n"
    )
    here = str(Path(__file__).parent)
    subprocess.run([sys.executable, "-c", script, str(tmp_path), here], check=True)
    for suffix in MAGIC:
        assert (tmp_path / f"phase{suffix}").read_bytes() == render(chart, suffix), suffix


def test_pdf_offsets_are_true(chart):
    pdf = render(chart, ".pdf")
    start = int(pdf.rpartition(b"startxref\n")[2].split()[0])
    assert pdf[start:].startswith(b"xref\n")
    entries = [line for line in pdf[start:].splitlines() if line.endswith(b" n")]
    for number, entry in enumerate(entries, start=1):
        assert pdf[int(entry[:10]) :].startswith(b"%d 0 obj\n" % number)


def test_specification_is_valid_json_without_nan(chart):
    json.loads(chart.to_json(), parse_constant=lambda name: pytest.fail(name))


def test_bad_paths(chart, tmp_path):
    with pytest.raises(UserError, match=r"^--out suffix must be one of \.pdf, \.png, \.svg, got '\.jpg'"):
        write_figure(chart, tmp_path / "phase.jpg")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"^--out must be a file that can be written, got .*phase\.svg"):
        write_figure(chart, tmp_path / "file/phase.svg")


def test_titles():
    assert column_title("lr", "sharpness") == "learning rate times λmax at init"
    assert column_title("model.sigma_weight") == "sigma weight"
    assert column_title("model.sigma.input") == "init std of input weights, factor"
    assert column_title("train_seconds") == "train seconds (s)"


@pytest.mark.parametrize(
    ("values", "kind", "kept"), [((1.0, 0.5, 0.0), "linear", 3), ((0.0, 0.1, 0.2), "log", 2)]
)
def test_a_curve_that_reaches_zero_has_no_logarithm(values, kind, kept):
    rows = pd.DataFrame({"step": [0, 10, 100], "value": values, "low": 0.0, "high": values})
    panel = curve_panel(rows.assign(series="1", line="1"), "title", "gamma", ["1"], True, Layout())
    specification = panel.to_dict()
    (y,) = {json.dumps(layer["encoding"]["y"]["scale"]) for layer in specification["layer"][1:]}
    assert json.loads(y)["type"] == kind
    (data,) = specification["datasets"].values()
    assert len(data) == kept
    assert kind == "linear" or all(row["low"] > 0 for row in data)
