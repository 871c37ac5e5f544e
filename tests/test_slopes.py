"""Diagrams of exponents, on tables whose slopes are exact: s = log10(gamma) + log10(lr) at each point."""

import io
import json

import numpy as np
import pytest
from rich.console import Console
from stores import write_cells
from synthetic import frames, grid

import runner
from runner import cli
from runner.analysis.exponents import fit
from runner.analysis.phase import Axes
from runner.analysis.slopes import Slope, read_slope, slope_grid, slope_zeros
from runner.errors import UserError
from runner.views.figures import specification

GAMMAS, LRS, WIDTHS = (0.1, 1.0, 10.0), (0.1, 1.0, 10.0), (32, 64, 128)
COLOR = "slope:ntk_change:width"
AXES = Axes("gamma", "lr", (), COLOR)
SLOPE = Slope("ntk_change", None, "width")


def planted():
    """Tables whose three seeds lie a factor 1.2 apart around an exact power of the width."""
    cells, trace, layers = frames(
        grid(width=WIDTHS, gamma=GAMMAS, lr=LRS, lr_unit="sharpness", seed=(0, 1, 2))
    )
    law = np.log10(cells["gamma"]) + np.log10(cells["lr"])
    cells["status"] = "ok"
    cells["ntk_change"] = 0.3 * cells["width"] ** law * 1.2 ** (cells["seed"] - 1)
    laws = dict(zip(cells["cell_id"], law, strict=True))
    widths = dict(zip(cells["cell_id"], cells["width"], strict=True))
    last = layers["step"] > 0
    sign = np.where(layers["role"] == "input", 1.0, -2.0)
    layers.loc[last, "movement_frobenius"] = (
        layers["cell_id"].map(widths) ** (sign * layers["cell_id"].map(laws))
    )[last]
    return cells, trace, layers


@pytest.fixture(scope="module")
def tables():
    return planted()


def test_each_point_has_its_slope(tables):
    found = slope_grid(*tables, AXES, SLOPE)
    assert [*found.columns] == [
        "gamma", "lr", "slope", "slope_low", "slope_high", "theory", "widths", "seeds", "cells", "left_out"
    ]  # fmt: skip
    assert len(found) == 9
    exact = np.log10(found["gamma"]) + np.log10(found["lr"])
    np.testing.assert_allclose(found["slope"], exact, atol=1e-12)
    assert (found["slope_low"] < exact).all()
    assert (found["slope_high"] > exact).all()
    assert found[["widths", "seeds", "cells", "left_out"]].drop_duplicates().to_numpy().tolist() == [
        [3, 3, 9, 0]
    ]


def test_it_is_the_slope_that_fit_gives(tables):
    cells, trace, layers = tables
    row = slope_grid(*tables, AXES, SLOPE).iloc[5]
    part = cells[(cells["gamma"] == row["gamma"]) & (cells["lr"] == row["lr"])]
    (alone,) = fit(part, trace, layers, ["ntk_change"]).to_dict("records")
    assert (row["slope"], row["slope_low"], row["slope_high"]) == (
        alone["slope"],
        alone["low"],
        alone["high"],
    )


def test_of_a_layer_by_its_role_or_name(tables):
    for layer, factor in {"input": 1, "layer1": -2, "output": -2}.items():
        found = slope_grid(*tables, AXES, Slope("movement_frobenius", layer, "width"))
        exact = factor * (np.log10(found["gamma"]) + np.log10(found["lr"]))
        np.testing.assert_allclose(found["slope"], exact, atol=1e-12)


def test_against_another_key(tables):
    found = slope_grid(*tables, Axes("width", "lr"), Slope("ntk_change", None, "gamma"))
    # log ntk_change = log10(gamma) log(width) + ..., a straight line in log gamma
    np.testing.assert_allclose(found["slope"], np.log10(found["width"]), atol=1e-12)
    assert (found["values"] == 3).all()
    assert found["theory"].isna().all()
    assert found["width"].dtype == "int64"


def test_the_slope_is_zero_on_an_exact_line(tables):
    zeros = slope_zeros(slope_grid(*tables, AXES, SLOPE), AXES)
    line = zeros[zeros["of"] == "slope"]
    assert set(line["line"]) == {0}
    np.testing.assert_allclose(line["x"] * line["y"], 1)  # log10(gamma) + log10(lr) = 0
    assert {*zip(line["x"].round(9), line["y"].round(9), strict=True)} >= {(0.1, 10), (1, 1), (10, 0.1)}
    for bound, side in (("slope_low", 1), ("slope_high", -1)):
        around = zeros[zeros["of"] == bound]
        assert (side * np.log10(around["x"] * around["y"]) > 0).all()


def test_a_single_row_is_crossed_from_border_to_border(tables):
    cells = tables[0][tables[0]["lr"] == 1.0]
    zeros = slope_zeros(slope_grid(cells, *tables[1:], AXES, SLOPE), AXES)
    line = zeros[zeros["of"] == "slope"]
    np.testing.assert_allclose(line["x"], 1)
    assert (line["y"].min(), line["y"].max()) == pytest.approx((2**-0.5, 2**0.5))


def test_no_number_without_support(tables):
    cells, trace, layers = tables
    sparse = cells[~((cells["gamma"] == 1.0) & (cells["lr"] == 1.0) & (cells["width"] == 128))].copy()
    sparse = sparse[~((sparse["gamma"] == 10.0) & (sparse["seed"] > 0))]
    sparse.loc[(sparse["gamma"] == 0.1) & (sparse["width"] == 64) & (sparse["seed"] == 1), "status"] = (
        "diverged"
    )
    found = slope_grid(sparse, trace, layers, AXES, SLOPE).set_index(["gamma", "lr"])
    assert np.isnan(found.loc[(1.0, 1.0), "slope"])
    assert found.loc[(1.0, 1.0), "widths"] == 2
    assert found.loc[10.0, "slope"].notna().all()
    assert found.loc[10.0, ["slope_low", "slope_high"]].isna().all(axis=None)
    assert (found.loc[0.1, "left_out"] == 1).all()
    zeros = slope_zeros(found.reset_index(), AXES)
    assert zeros[zeros["of"] == "slope"].empty  # every rectangle has the hole at a corner


@pytest.mark.parametrize(
    ("color", "axes", "message"),
    [
        ("slope:ntk_change", AXES, r"--color must be a column or slope:METRIC\[@LAYER\]:KEY, got slope:nt"),
        ("slope:a@b@c:width", AXES, "--color must be a column or slope"),
        ("slope::width", AXES, "--color must be a column or slope"),
        ("slope:ntk_chnge:width", AXES, "the METRIC of --color slope .* did you mean 'ntk_change'"),
        ("slope:lr:width", AXES, "the METRIC of --color slope must be one of"),
        ("slope:movement_frobenius:width", AXES, "--color slope.* must name a layer or role"),
        ("slope:ntk_change@input:width", AXES, "--color slope.* must name no layer"),
        ("slope:movement_frobenius@inptu:width", AXES, "the LAYER .*, got 'inptu'; did you mean 'input'"),
        ("slope:ntk_change:gamma", AXES, "--color slope.* no axis or facet, got gamma, which is --x"),
        ("slope:ntk_change:lr", AXES, "--color slope.* no axis or facet, got lr, which is --y"),
        ("slope:ntk_change:depth", Axes("gamma", "lr", ("depth",)), "--color .* depth, which is --facet"),
        ("slope:ntk_change:wdth", AXES, "the KEY of --color slope must be a column .* did you mean width"),
        ("slope:ntk_change:data", AXES, "the KEY of --color slope must name numbers, got data with digits"),
        ("slope:ntk_change:depth", AXES, r"width varies \(32, 64, 128\); choose one with --where width=32"),
        ("slope:ntk_change:width", Axes("gamma", "depth"), r"lr varies \(0.1, 1, 10\)"),
    ],
)  # fmt: skip
def test_bad_slopes(tables, color, axes, message):
    with pytest.raises(UserError, match="^" + message):
        slope_grid(*tables, axes, read_slope(color))


def test_too_few_values(tables):
    cells = tables[0][tables[0]["width"] < 128]
    with pytest.raises(
        UserError, match=r"^width must have at least 3 positive values at a point .* got 32, 64;"
    ):
        slope_grid(cells, *tables[1:], AXES, SLOPE)


def test_a_role_of_several_layers_is_no_layer():
    cells, trace, layers = frames(grid(width=WIDTHS, gamma=GAMMAS, lr=0.1, depth=3))
    with pytest.raises(UserError, match=r"^the LAYER .* a single one, got hidden, which is layer1, layer2"):
        slope_grid(cells, trace, layers, AXES, Slope("movement_frobenius", "hidden", "width"))


def test_a_column_is_no_slope():
    assert read_slope("ntk_change") is None
    assert read_slope("slope_of_mine") is None
    assert str(read_slope("slope:x@input:width")) == "slope of x of input against width"


def test_command_and_method_say_the_same(tmp_path, capsys, tables):
    store = tmp_path / "planted"
    write_cells(
        store, grid(width=WIDTHS, gamma=GAMMAS, lr=LRS, lr_unit="sharpness", seed=(0, 1, 2)), tables=tables
    )
    words = ["phase", str(store), "--x", "gamma", "--y", "lr", "--color", COLOR, "--facet", "none"]
    assert cli.main([*words, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    view = runner.load(store).phase(x="gamma", y="lr", color=COLOR, facet="none")
    assert [row["slope"] for row in said["rows"]] == view.table["slope"].tolist()
    assert len(said["zeros"]) == len(view.more["zeros"])
    assert cli.main([*words, "--csv"]) == 0
    assert capsys.readouterr().out.startswith("gamma,lr,slope,slope_low,slope_high,theory,widths,seeds,")
    assert cli.main([*words, "--out", str(tmp_path / "fig.svg")]) == 0
    text = capsys.readouterr().out
    rows = [line.split() for line in text.splitlines()]
    assert ["10", "0.00~", "1.00", "2.00"] in rows
    assert ["lr", "1", "-1.00", "0.00~", "1.00"] in [["lr", *row] for row in rows]
    assert "slope of ntk_change against width; ~ its 95% interval over seeds holds zero" in text
    assert (tmp_path / "fig.svg").stat().st_size > 1000
    caption = (tmp_path / "fig.caption.txt").read_text()
    assert "Slope of ntk_change against width, over gamma and lr." in caption
    assert "Solid: where the slope is zero; dashed: where a bound of its 95 % interval is" in caption
    out = Console(file=io.StringIO(), width=80)
    view.print(out)
    assert out.file.getvalue() in text


def test_the_scale_of_colors_is_centred_at_zero(tmp_path, tables):
    store = tmp_path / "planted"
    write_cells(
        store, grid(width=WIDTHS, gamma=GAMMAS, lr=LRS, lr_unit="sharpness", seed=(0, 1, 2)), tables=tables
    )
    where = "gamma=1,10"
    chart = specification(runner.load(store).phase(x="gamma", y="lr", color=COLOR, where=where).chart)
    scale = chart["concat"][0]["layer"][0]["encoding"]["color"]["scale"]
    assert scale["domain"] == pytest.approx([-2, 2])  # the slopes reach from -1 to 2
