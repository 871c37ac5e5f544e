import io
import json

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from synthetic import LRS, WIDTHS, frames, grid

from runner.analysis.columns import column, group_keys
from runner.analysis.phase import Axes, boundary, edges, phase_grid
from runner.analysis.selection import VaryingError, require_no_other_varying, select
from runner.errors import UserError
from runner.views.figures import specification
from runner.views.phase.chart import phase_chart
from runner.views.phase.terminal import print_phase
from runner.views.style import Layout

BY_NAME = Axes(facets=("parameterization",))


@pytest.fixture(scope="module")
def cells():
    return frames(grid(width=WIDTHS, lr=LRS, parameterization=("ntk", "sp"), seed=(0, 1, 2)))[0]


def _with_regimes(rows):
    """Return cells of one facet with the regimes given as {(width, lr): [regime of each seed]}."""
    made = grid(width=[w for w, _ in rows], lr=0.1)[:0]
    regimes = []
    for (width, lr), seeds in rows.items():
        made += grid(width=width, lr=lr, seed=tuple(range(len(seeds))))
        regimes += seeds
    table = frames(made)[0]
    table["regime"] = pd.Series(regimes, dtype=object)
    return table


def test_one_row_per_point(cells):
    table = phase_grid(cells, BY_NAME)
    assert [*table.columns[:3]] == ["parameterization", "width", "lr"]
    assert len(table) == 2 * len(WIDTHS) * len(LRS)
    assert not table.duplicated(["parameterization", "width", "lr"]).any()
    assert (table["seeds"] == 3).all()
    assert table["width"].dtype == "int64"


def test_majority_share_and_tie():
    table = phase_grid(
        _with_regimes(
            {(64, 0.1): ["lazy", "lazy", "rich"], (64, 1.0): ["rich", "diverged"], (64, 2.0): [None]}
        ),
        Axes(),
    )
    assert table["regime"].fillna("none").tolist() == ["lazy", "diverged", "none"]
    assert table["share"].tolist() == pytest.approx([2 / 3, 1 / 2, 0])
    assert table["second"].fillna("none").tolist() == ["none", "rich", "none"]
    rows = _drawn(table, Axes())
    halves = [(row["letter"], row["x0"], row["x1"], row["x"]) for row in rows if row.get("second")]
    left, right = dict.fromkeys(sorted(halves, key=lambda half: half[1]))
    assert [left[0], right[0]] == ["D", "R"]
    assert left[2] == pytest.approx(right[1])
    assert left[1] < left[3] < left[2] < right[3] < right[2]


def _drawn(table, axes):
    """The rows of all layers of a diagram."""
    spec = phase_chart(table, axes, "", None, Layout()).to_dict()
    return [row for rows in spec["datasets"].values() for row in rows]


def test_a_colour_bar_ends_with_a_tick(cells):
    axes = Axes(facets=("parameterization",), color="ntk_change")
    table = phase_grid(cells, axes)
    colors = [layer["encoding"].get("color", {}) for layer in
              phase_chart(table, axes, "", None, Layout()).to_dict()["concat"][0]["layer"]]  # fmt: skip
    (ticks,) = [color["legend"]["values"] for color in colors if color.get("legend")]
    assert ticks[-1] == table["value"].max()
    assert ticks == sorted(set(ticks))


def test_critical_line_in_the_unit_of_y(cells):
    table = phase_grid(cells, BY_NAME)
    ntk = table[table["parameterization"] == "ntk"]["critical"]
    sp = table[table["parameterization"] == "sp"].groupby("width")["critical"].median()
    assert ntk.to_numpy() == pytest.approx(np.full(len(ntk), 4.0), rel=0.1)
    assert sp.to_numpy() == pytest.approx(4.0 / np.array(WIDTHS), rel=0.1)
    sharp = frames(grid(width=WIDTHS, lr=LRS, lr_unit="sharpness"))[0]
    assert (phase_grid(sharp, Axes())["critical"] == 2).all()
    assert (
        phase_grid(select(cells, ["lr=0.1", "parameterization=ntk"]), Axes(y="gamma"))["critical"]
        .isna()
        .all()
    )


def test_there_is_no_critical_line_where_lambda_max_is_no_scale(cells):
    adam = cells.assign(lr_sharpness=pd.array([None] * len(cells), dtype="Float64"))
    assert phase_grid(adam, BY_NAME)["critical"].isna().all()


def test_results_as_axes(cells):
    one = select(cells, ["parameterization=ntk", "seed=0"])
    assert (phase_grid(one, Axes(y="lr_sharpness"))["critical"] == 2).all()
    assert len(phase_grid(one, Axes(x="lambda_max_init", y="lr_absolute", facets=("width",)))) == len(one)


def test_numeric_color_is_the_median_over_seeds(cells):
    table = phase_grid(cells, Axes(facets=("parameterization",), color="ntk_change"))
    point = select(cells, ["parameterization=sp", "width=64", "lr=0.1"])
    row = table[(table["parameterization"] == "sp") & (table["width"] == 64) & (table["lr"] == 0.1)]
    assert row["value"].item() == point["ntk_change"].median()


def test_edges_are_geometric_midpoints():
    assert edges(np.array([1.0, 4.0, 16.0]), "width") == pytest.approx([0.5, 2, 8, 32])
    assert edges(np.array([0.0, 1.0, 3.0]), "width") == pytest.approx([-0.5, 0.5, 2, 4])
    assert edges(np.array([8.0]), "width") == pytest.approx([8 / 2**0.5, 8 * 2**0.5])


def test_exponents_are_axes():
    """An exponent is a logarithm already; the name of the table follows from the exponents."""
    assert edges(np.array([0.5, 1.0, 2.0]), "parameterization.a.output") == pytest.approx(
        [0.25, 0.75, 1.5, 2.5]
    )
    cells = frames(grid(width=(32, 64), seed=(0, 1)))[0]
    cells["parameterization.a.output"] = np.where(cells["seed"] == 0, 0.5, 1.0)
    cells["parameterization"] = np.where(cells["seed"] == 0, "ntk", "ntk with a.output=1")
    axes = Axes(y="parameterization.a.output")
    assert len(phase_grid(cells, axes)) == 4
    cells["parameterization.b.output"] = cells["parameterization.a.output"]
    with pytest.raises(VaryingError, match=r"^parameterization\.b\.output varies"):
        phase_grid(cells, axes)


def test_boundary_separates_neighbours_of_different_regime():
    table = phase_grid(
        _with_regimes({(1, 1.0): ["lazy"], (4, 1.0): ["rich"], (1, 4.0): ["lazy"], (4, 4.0): ["diverged"]}),
        Axes(),
    )
    found = {tuple(np.round(line, 6)) for line in boundary(table, Axes()).to_numpy(float)}
    assert found == {(2, 0.5, 2, 2), (2, 2, 2, 8), (2, 2, 8, 2)}


def test_no_boundary_next_to_a_hole():
    table = phase_grid(_with_regimes({(1, 1.0): ["lazy"], (4, 1.0): [None], (16, 1.0): ["rich"]}), Axes())
    assert boundary(table, Axes()).empty
    assert [*boundary(table, Axes()).columns] == ["x", "y", "x2", "y2"]


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        (
            Axes(x="widht"),
            "--x must be a column or a group key of the cells, got 'widht'; did you mean width?",
        ),
        (Axes(y="parameterization"), "--y must name numbers, got parameterization with ntk, sp"),
        (Axes(color="device"), "--color must name numbers, got device with cpu"),
        (Axes(x="lr"), "--y must differ from --x, got lr for both"),
        (Axes(facets=("width",)), "--facet must not repeat an axis, got width"),
        (Axes(facets=("model.activatoin",)), "--facet must be .* did you mean model.activation?"),
        (Axes(y="diverged_step", x="batch_size"), "--x and --y must have values"),
        (Axes(), r"parameterization varies \(ntk, sp\); choose one with --where parameterization=ntk or"),
    ],
)
def test_bad_axes(cells, axes, message):
    with pytest.raises(UserError, match="^" + message):
        phase_grid(cells, axes)


# -- selection ---------------------------------------------------------------------------------------


def test_where_compares_by_type():
    cells = frames(
        grid(width=(64, 128), lr=(0.1, 10**-1.5), model__bias=(True, False), batch_size=(None, 64))
    )[0]
    for where, count in {
        "width=64": 8,
        "width=64,128": 16,
        "lr=0.1": 8,
        "lr=0.0316228": 8,  # as printed
        "model.bias=true": 8,
        "batch_size=null": 8,
        "batch_size=64": 8,
        "center_output=false": 16,
        "parameterization.a.hidden=0.5": 16,
        "data=digits": 16,
    }.items():
        assert len(select(cells, [where])) == count, where
    assert len(select(cells, ["width=64", "lr=0.1", "model.bias=true", "batch_size=64"])) == 1


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("width", "--where must be key=value, got 'width'"),
        ("width=65", "--where width must be one of 32, 64, 128, 256, 512, got 65"),
        ("width=wide", "--where width must be one of 32, 64, 128, 256, 512, got wide"),
        ("dept=2", "--where must be a column or a group key of the cells, got 'dept'; did you mean depth?"),
        ("settings={}", "--where must be a column or a group key of the cells, got 'settings'"),
        ("model.activation=tanh", "--where model.activation must be one of relu, got tanh"),
    ],
)
def test_bad_where(cells, where, message):
    with pytest.raises(UserError, match="^" + message):
        select(cells, [where])


def test_group_keys_are_columns(cells):
    assert {"model.activation", "data.train_size", "measure.points", "parameterization.c.sgd.output"} <= {
        *group_keys(cells).columns
    }
    assert set(column(cells, "data.train_size", "--x")) == {512}


def test_what_varies_beside_axes_is_named():
    cells = frames(grid(width=(32, 64), depth=(1, 2), model__activation=("relu", "tanh")))[0]
    with pytest.raises(VaryingError) as caught:
        require_no_other_varying(cells, ("width", "lr"), ("parameterization",))
    assert str(caught.value) == (
        "depth varies (1, 2), model.activation too; choose one with --where depth=1 "
        "or separate it with --facet depth,parameterization"
    )
    assert caught.value.keys == ("depth", "model.activation")
    require_no_other_varying(cells, ("width", "lr"), ("depth", "model.activation"))


def test_a_key_may_differ_between_facets():
    cells = frames([*grid(width=(32, 64), data="digits"), *grid(width=(32, 64), data="xor", data__dim=30)])[0]
    require_no_other_varying(cells, ("width",), ("data",))
    with pytest.raises(VaryingError, match=r"^data varies \(digits, xor\); choose"):
        require_no_other_varying(cells, ("width",), ())


def test_an_edited_parameterization_is_not_averaged_over(cells):
    mixed = cells[cells["parameterization"] == "ntk"].copy()
    mixed.loc[mixed["seed"] == 1, "parameterization.a.hidden"] = 0.25
    with pytest.raises(VaryingError, match=r"^parameterization\.a\.hidden varies \(0.25, 0.5\)"):
        phase_grid(mixed, BY_NAME)


# -- terminal ----------------------------------------------------------------------------------------


def _printed(table, axes, width=80, encoding="ascii"):
    """Return what a pipe of that encoding receives."""
    raw = io.BytesIO()
    out = Console(file=io.TextIOWrapper(raw, encoding=encoding), width=width, highlight=False)
    print_phase(table, axes, out)
    out.file.flush()
    return raw.getvalue().decode(encoding)


def test_diagram_reads_without_color_or_unicode(cells):
    text = _printed(phase_grid(cells, BY_NAME), BY_NAME)
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 80
    rows = [line.split() for line in text.splitlines()]
    assert rows[0] == ["ntk", "sp"]  # side by side
    assert rows[2][:6] == ["30", "D", "D", "D", "D", "D"]  # the largest lr on top
    assert ["width", *map(str, WIDTHS)] == rows[len(LRS) + 3][:6]
    assert "L  lazy" in text
    assert "2 / lambda_max" in text


def test_share_where_seeds_disagree():
    table = phase_grid(_with_regimes({(64, 0.1): ["lazy", "rich"], (128, 0.1): ["lazy", "lazy"]}), Axes())
    assert "R 50%" in _printed(table, Axes())
    assert "100%" not in _printed(table, Axes())


def test_wide_grid_is_continued():
    cells = frames(grid(width=tuple(range(100, 130)), lr=(0.1, 1.0)))[0]
    text = _printed(phase_grid(cells, Axes()), Axes(), width=60)
    assert "(continued)" in text
    assert all(str(width) in text for width in range(100, 130))
    assert max(map(len, text.splitlines())) <= 60


def test_many_rows_are_thinned_to_the_window_of_a_terminal():
    rates = tuple(10 ** (place / 10) for place in range(57))
    table = phase_grid(frames(grid(width=WIDTHS, lr=rates))[0], Axes())
    out = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=80, height=30)
    print_phase(table, Axes(), out)
    lines = out.file.getvalue().splitlines()
    assert len(lines) < 30
    assert "21 of 57 values of lr; --json, --csv and --out have all" in lines[-1]
    rows = [line.split()[0] for line in lines]
    assert f"{rates[-1]:.3g}" in rows
    assert f"{rates[0]:.3g}" in rows
    assert len(_printed(table, Axes()).splitlines()) > 57  # a pipe gets all


def test_the_critical_line_of_momentum(cells):
    settings = cells["settings"].map(
        lambda text: json.dumps(json.loads(text) | {"optimizer": {"momentum": 0.9}})
    )
    plain, heavy = (phase_grid(part, BY_NAME) for part in (cells, cells.assign(settings=settings)))
    np.testing.assert_allclose(heavy["critical"], 1.9 * plain["critical"])
    assert "3.8 / lambda_max at init, here the row 3.8/lambda" in _printed(heavy, BY_NAME)
    chart = json.dumps(specification(phase_chart(heavy, BY_NAME, "", None, Layout())))
    assert "3.8/\\u03bbmax" in chart


def test_numbers_instead_of_letters(cells):
    axes = Axes(facets=("parameterization",), color="ntk_change")
    text = _printed(phase_grid(cells, axes), axes)
    assert "ntk_change, median of 3 seeds" in text
    assert " D " not in text


def test_failed_and_missing_points():
    cells = _with_regimes({(64, 0.1): ["lazy"], (128, 0.1): [None], (64, 1.0): ["rich"]})
    cells.loc[cells["width"] == 128, "status"] = "failed"
    rows = [line.split() for line in _printed(phase_grid(cells, Axes()), Axes()).splitlines()]
    assert ["1", "R", "."] in rows
    assert ["0.1", "L", "!"] in rows
