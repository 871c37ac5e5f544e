"""Figures as they are printed: read back from the scene that is drawn, in points."""

import json
import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
import vl_convert
from stores import write_cells
from synthetic import grid

from runner import load
from runner.views.figures import POINTS, fitted_layout, specification
from runner.views.lettering import fitting, letter_of, text_width
from runner.views.sizes import COLUMN, PAGE

VIEWS = {
    "phase": lambda store: store.phase(),
    "fit": lambda store: store.fit(["ntk_change", "movement_spectral"], where="lr=1"),
    "curves": lambda store: store.curves(["train_loss", "movement_spectral"], where=["lr=1"]),
    "transfer": lambda store: store.transfer(),
    "boundary": lambda store: store.boundary(),
    "collapse": lambda store: store.boundary(collapse="lr,width", of="ntk_change"),
    "profile": lambda store: store.profile(where="lr=1"),
}
DRAWN = [(name, COLUMN) for name in VIEWS] + [(name, PAGE) for name in ("phase", "transfer")]
SHARED = {"phase", "curves", "boundary", "profile"}
"""Views whose panels all have the same axis upwards, a measure or the key."""


@dataclass
class Figure:
    """A view at a width, as a specification and as the scene that is drawn."""

    spec: dict
    scene: dict
    size: tuple[float, float]
    panels: int

    def marks(self, kind, panel=None):
        """Return the items of marks of a kind with the marks' names, placed in the figure or in a panel."""
        found = []

        def walk(node, x, y, name):
            for item in node.get("items", []):
                at = x + (item.get("x") or 0), y + (item.get("y") or 0)
                if node.get("marktype") == kind:
                    found.append((node.get("name") or node.get("role"), x, y, item))
                for child in item.get("items", []):
                    walk(child, *at, name)

        walk(self.scene if panel is None else {"items": [panel]}, 0, 0, "")
        return found

    @property
    def groups(self):
        (root,) = self.scene["items"]
        return [mark for mark in root["items"] if str(mark.get("name", "")).startswith("concat_")]


def figure(view, inches):
    layout = fitted_layout(view.make, view.panels, inches, view.across)
    spec = specification(view.make(layout))
    drawn = vl_convert.vegalite_to_scenegraph(spec)
    drawn = json.loads(drawn) if isinstance(drawn, str) else drawn
    return Figure(spec, drawn["scenegraph"], (drawn["width"], drawn["height"]), view.panels)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("outputs") / "digits"
    axes = {"width": (32, 64, 128, 256), "lr": (0.01, 0.1, 1.0, 10.0, 100.0)}
    write_cells(path, grid(**axes, parameterization=("ntk", "mup"), seed=(0, 1)))
    return load(path)


@pytest.fixture(scope="module", params=DRAWN, ids=lambda one: f"{one[0]}-{one[1]}")
def drawn(request, store):
    name, inches = request.param
    return name, inches, figure(VIEWS[name](store), inches)


def test_a_figure_fills_its_width_and_fits_on_a_page(drawn):
    _, inches, found = drawn
    # The frame of the scene has 2 points of padding more at each side.
    assert found.size[0] == pytest.approx(inches * POINTS, abs=6)
    assert found.size[1] <= 9.5 * POINTS


def test_all_text_is_legible_at_100_percent(drawn):
    sizes = [item["fontSize"] for _, _, _, item in drawn[2].marks("text") if item.get("text")]
    assert 6 <= min(sizes) <= max(sizes) <= 9


def test_panels_are_equally_large_and_lettered(drawn):
    found = drawn[2]
    panels = [group["items"][0] for group in found.groups]
    assert len(panels) == found.panels > 1
    assert len({(panel["width"], panel["height"]) for panel in panels}) == 1
    letters = [item["text"] for name, _, _, item in found.marks("text") if "panel_letter" in str(name)]
    assert letters == [letter_of(place) for place in range(found.panels)]


def test_there_is_one_legend_of_everything_above_all_panels(drawn):
    name, _, found = drawn
    (root,) = found.scene["items"]
    above = [mark for mark in root["items"] if mark.get("role") == "legend"]
    inside = [mark for group in found.groups for mark in group["items"][0]["items"]]
    assert not [mark for mark in inside if mark.get("role") == "legend"]
    assert len(above) == (2 if name in ("transfer", "phase", "boundary") else 1)
    tops = [panel["items"][0]["y"] for panel in found.groups]
    for legend in above:
        (box,) = legend["items"]
        assert box["y"] + box["height"] <= min(tops)


def test_the_lines_of_a_diagram_have_a_key(drawn):
    name, _, found = drawn
    (root,) = found.scene["items"]
    texts = json.dumps([mark for mark in root["items"] if mark.get("role") == "legend"], ensure_ascii=False)
    for words in ("where the regime changes", "2/λmax at init"):
        assert (words in texts) == (name in ("phase", "boundary"))


def test_every_decade_of_a_logarithmic_axis_has_a_tick(drawn):
    layers = [layer for panel in drawn[2].spec["concat"] for layer in panel["layer"]]
    axes = [layer.get("encoding", {}).get(channel, {}) for layer in layers for channel in ("x", "y")]
    log = [axis for axis in axes if axis.get("scale", {}).get("type") == "log" and axis.get("axis")]
    assert log
    for axis in log:
        ticks, (low, high) = axis["axis"]["values"], axis["scale"]["domain"]
        powers = range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)
        assert len(ticks) >= 2
        of_two = all(math.log2(tick).is_integer() for tick in ticks)  # widths
        assert of_two or len(powers) < 3 or {float(f"1e{power}") for power in powers} <= {*ticks}


def test_an_axis_that_neighbours_share_is_labelled_once(drawn):
    name, _, found = drawn
    columns, labelled = found.spec["columns"], []
    for group in found.groups:
        axes = [mark["items"][0] for mark in group["items"][0]["items"] if mark.get("role") == "axis"]
        labelled.append(
            {axis["orient"] for axis in axes if any(m.get("role") == "axis-label" for m in axis["items"])}
        )
    for place, sides in enumerate(labelled):
        if name in SHARED:
            assert ("left" in sides) == (place % columns == 0)
            assert ("bottom" in sides) == (place + columns >= found.panels)
        assert place % columns or "left" in sides


def test_no_line_crosses_a_letter(drawn):
    name, _, found = drawn
    letters = lines = 0
    for group in found.groups if name in ("phase", "boundary") else ():
        boxes = [
            (item["x"], item["y"], 0.33 * item["fontSize"])  # half of a capital letter
            for mark, _, _, item in found.marks("text", group["items"][0])
            if str(mark).startswith("letters") and item["text"]
        ]
        letters += len(boxes)
        for x, y in _dense_lines(group["items"][0]):
            lines += 1
            for across, up, half in boxes:
                assert not ((np.abs(x - across) < half) & (np.abs(y - up) < half)).any()
    assert name not in ("phase", "boundary") or (letters > 30 and lines > 20)


def _dense_lines(panel):
    """The lines and rules of a panel's data, as places closer than half a point."""
    for mark in panel["items"]:
        if mark.get("role") != "mark":
            continue
        items = mark["items"]
        if mark["marktype"] == "rule":
            ends = [((i["x"], i["y"]), (i.get("x2", i["x"]), i.get("y2", i["y"]))) for i in items]
        elif mark["marktype"] == "line":
            ends = [((a["x"], a["y"]), (b["x"], b["y"])) for a, b in pairwise(items)]
        else:
            # Lines of several pieces stand in a group of their own.
            for item in items if mark["marktype"] == "group" else ():
                yield from _dense_lines(item)
            continue
        for (x0, y0), (x1, y1) in ends:
            places = np.linspace(0, 1, 2 + int(2 * np.hypot(x1 - x0, y1 - y0)))
            yield x0 + places * (x1 - x0), y0 + places * (y1 - y0)


@pytest.mark.parametrize(
    ("axes", "facet", "draw"),
    [
        ({"width": 64, "lr": (0.1, 1.0, 10.0)}, (), lambda store: store.curves("train_loss", by="lr")),
        ({"width": (32, 64), "lr": (1e5, 1e6), "parameterization": ("ntk", "sp")}, ("parameterization",),
         lambda store: store.phase()),
        ({"width": (32, 64), "lr": 1.0, "parameterization": ("ntk", "sp"), "gamma": (1.0, 2.0)},
         ("parameterization", "gamma"),
         lambda store: store.curves("train_loss,movement_spectral")),
        ({"width": (32, 64), "depth": (1, 2, 3), "parameterization": ("ntk", "mean_field"),
          "model__activation": ("relu", "tanh"), "lr": (0.01, 0.1, 1.0)},
         ("parameterization", "depth", "model.activation"), lambda store: store.transfer()),
    ],
    ids=["one width", "all diverged", "a facet without a loss", "twelve facets"],
)  # fmt: skip
def test_odd_stores_are_drawn(tmp_path, axes, facet, draw):
    write_cells(tmp_path / "odd", grid(**axes), facet=facet)
    found = figure(draw(load(tmp_path / "odd")), COLUMN)
    assert found.size[0] <= COLUMN * POINTS + 6
    assert min(item["fontSize"] for _, _, _, item in found.marks("text") if item.get("text")) >= 6


def test_widths_of_texts_are_those_of_the_font():
    """Helvetica's metrics: W is 944 thousandths, i 222."""
    assert text_width("Wi", 1000) == 944 + 222
    assert text_width("width", 10) == pytest.approx(7.22 + 2.22 + 5.56 + 2.78 + 5.56)
    assert fitting(["a"] * 12, 1e9, 7) == 12
    assert [letter_of(place) for place in (0, 25, 26, 701, 702)] == ["(a)", "(z)", "(aa)", "(zz)", "(aaa)"]
