import io

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from synthetic import WIDTHS, exponents, frames, grid

from runner.analysis.beside import is_bent
from runner.analysis.exponents import DEFAULT_METRICS, fit, fit_points
from runner.analysis.straight import loglog_slope, scatter
from runner.analysis.theory import predicted_slope
from runner.errors import UserError
from runner.views.fit import chart, print_fit
from runner.views.style import Layout

NAMES = ("ntk", "mup", "mean_field", "sp")


@pytest.fixture(scope="module")
def tables():
    return frames(
        grid(width=WIDTHS, lr=1.0, lr_unit="sharpness", parameterization=NAMES, seed=(0, 1, 2), depth=2)
    )


def _row(table, metric, parameterization, role=None):
    part = table[(table["metric"] == metric) & (table["parameterization"] == parameterization)]
    return (part[part["role"] == role] if role else part).iloc[0]


def test_a_line_that_falls_and_jumps_is_no_line():
    rng = np.random.default_rng(0)
    means = {32: 0.5, 64: 0.35, 128: 0.3, 256: 2.0, 512: 2.5}
    bent = scatter({n: mean * np.exp(0.02 * rng.normal(size=3)) for n, mean in means.items()})
    x, y = np.log(list(means)), np.log(list(means.values()))
    line = np.polynomial.Polynomial.fit(x, y, 1)
    assert bent["residual"] == pytest.approx(np.sqrt(sum((y - line(x)) ** 2) / 3), rel=0.05)
    assert is_bent(bent)
    straight = [scatter({n: n**-0.5 * np.exp(0.1 * rng.normal(size=4)) for n in means}) for _ in range(200)]
    # Both are the standard error of a mean, 0.1 / 2.
    for name in bent:
        assert np.sqrt(np.mean([one[name] ** 2 for one in straight])) == pytest.approx(0.05, rel=0.1)
    assert np.mean([is_bent(one) for one in straight]) < 0.05
    assert not is_bent(scatter({n: np.full(2, 3.0 * n**-0.7) for n in means}))


def test_known_power_laws_are_found(tables):
    found = fit(*tables)
    assert set(found["metric"]) == set(DEFAULT_METRICS)
    predicted = found.dropna(subset=["theory"])
    assert (predicted["slope"] - predicted["theory"]).abs().max() < 0.03
    assert (predicted["low"] <= predicted["slope"]).all()
    assert (predicted["slope"] <= predicted["high"]).all()
    assert (found["widths"] == len(WIDTHS)).all()
    assert (found["seeds"] == 3).all()
    assert (found["cells"] == 3 * len(WIDTHS)).all()
    assert (found["left_out"] == 0).all()


def test_slope_of_an_exact_power_law():
    line = loglog_slope({n: np.full(4, 3.0 * n**-0.7) for n in (8, 16, 64)})
    assert [line.slope, line.low, line.high] == pytest.approx([-0.7] * 3, abs=1e-12)


def test_interval_equals_a_naive_bootstrap():
    rng = np.random.default_rng(1)
    samples = {n: np.exp(rng.normal(size=5)) / n for n in (8, 16, 32, 64)}
    x = np.log(list(samples))
    slopes = []
    for _ in range(4000):
        y = [np.log(rng.choice(values, len(values))).mean() for values in samples.values()]
        slopes.append(np.polyfit(x, y, 1)[0])
    line = loglog_slope(samples)
    assert line.slope == pytest.approx(np.polyfit(x, [np.log(v).mean() for v in samples.values()], 1)[0])
    assert [line.low, line.high] == pytest.approx(np.percentile(slopes, [2.5, 97.5]), abs=0.04)
    assert line == loglog_slope(samples)


def test_one_seed_has_no_interval(tables):
    cells, trace, layers = tables
    found = fit(cells[cells["seed"] == 0], trace, layers)
    assert found["slope"].notna().all()
    assert found[["low", "high"]].isna().all(axis=None)
    assert "no interval with one seed" in _printed(found)


def test_unusable_cells_are_left_out_and_counted(tables):
    cells, trace, layers = (table.copy() for table in tables)
    ntk = cells["parameterization"] == "ntk"
    cells.loc[ntk & (cells["width"] == 32) & (cells["seed"] == 0), "ntk_change"] = 0.0
    cells.loc[ntk & (cells["width"] == 64) & (cells["seed"] == 0), "ntk_change"] = np.nan
    cells.loc[ntk & (cells["width"] == 128) & (cells["seed"] == 0), ["status", "ntk_change"]] = [
        "diverged",
        1e9,
    ]
    cells.loc[ntk & (cells["width"] == 256) & (cells["seed"] == 0), "status"] = "failed"
    row = _row(fit(cells, trace, layers), "ntk_change", "ntk")
    assert (row["left_out"], row["cells"], row["seeds"], row["widths"]) == (4, 11, 2, 5)
    assert row["slope"] == pytest.approx(-1, abs=0.05)
    assert _row(fit(cells, trace, layers), "movement_frobenius", "ntk")["left_out"] == 2


def test_a_facet_without_values_has_no_slope(tables):
    cells, trace, layers = (table.copy() for table in tables)
    cells.loc[cells["parameterization"] == "sp", "status"] = "diverged"
    row = _row(fit(cells, trace, layers), "ntk_change", "sp")
    assert pd.isna(row["slope"])
    assert (row["widths"], row["cells"], row["left_out"]) == (0, 0, 15)


def test_the_last_step_counts(tables):
    found = fit(*tables, metrics=["layers.feature_movement", "lambda_max"])
    assert _row(found, "layers.feature_movement", "ntk", "input")["slope"] == pytest.approx(-0.5, abs=0.05)
    assert set(found[found["metric"] == "layers.feature_movement"]["layer"]) == {"layer0", "layer1", "layer2"}
    assert found[found["metric"] == "layers.feature_movement"]["theory"].isna().all()
    assert _row(found, "lambda_max", "sp")["slope"] == pytest.approx(1, abs=0.05)


def test_a_users_measure_is_a_metric(tables):
    cells, trace, layers = tables
    found = fit(cells.assign(cka_gap=cells["width"] ** -2.0), trace, layers, metrics=["cka_gap"])
    assert found["slope"].to_numpy() == pytest.approx([-2.0] * 4)


@pytest.mark.parametrize(
    ("where", "options", "message"),
    [
        (
            {},
            {"metrics": ["ntk_chnge"]},
            "--metric must be one of .*, got 'ntk_chnge'; did you mean 'ntk_change'?",
        ),
        ({}, {"metrics": ["lr"]}, "--metric must be one of"),
        ({}, {"facets": ()}, r"parameterization varies \(mean_field, mup, ntk, sp\)"),
        ({}, {"facets": ("width",)}, "--facet must not be width"),
        ({"width": (32, 64)}, {}, "width must have at least 3 values for a fit, got 32, 64 in mean_field"),
    ],
)
def test_bad_fits(tables, where, options, message):
    cells = tables[0]
    for key, values in where.items():
        cells = cells[cells[key].isin(values)]
    with pytest.raises(UserError, match="^" + message):
        fit(cells, *tables[1:], **options)


def test_any_numeric_key_is_an_abscissa():
    gammas = (0.01, 0.1, 1.0, 10.0)
    cells, trace, layers = frames(grid(gamma=gammas, lr=0.1, seed=(0, 1), width=64, depth=2))
    cells["ntk_change"] = 0.3 * cells["gamma"] ** 0.7 * np.where(cells["seed"] == 0, 1.1, 1 / 1.1)
    found = fit(cells, trace, layers, ["ntk_change", "movement_frobenius"], (), "gamma")
    row = found.iloc[0]
    assert [row["slope"], row["low"], row["high"]] == pytest.approx([0.7] * 3, abs=0.1)
    assert (row["values"], row["seeds"], row["cells"]) == (4, 2, 8)
    assert "widths" not in found
    assert found["theory"].isna().all()  # it is against width
    points = fit_points(cells, trace, layers, ["ntk_change"], (), "gamma")
    assert points["gamma"].tolist() == list(gammas)
    assert points["value"].tolist() == pytest.approx([0.3 * gamma**0.7 for gamma in gammas])
    by_depth = frames(grid(depth=(1, 2, 4), lr=0.1, seed=(0, 1), width=64))
    assert fit(*by_depth, ["ntk_change"], (), "depth")["values"].tolist() == [3]


@pytest.mark.parametrize(
    ("x", "facets", "message"),
    [
        ("gama", (), "--x must be a column or a group key of the cells, got 'gama'; did you mean gamma?"),
        ("model", (), "--x must name numbers, got model with mlp"),
        ("gamma", ("gamma",), "--facet must not be gamma"),
        ("depth", (), r"gamma varies \(0.01, 0.1, 1\)"),
        (
            "width",
            ("gamma",),
            "width must have at least 3 values for a fit, got 64 in gamma 0.01; sweep",
        ),
    ],
)
def test_an_abscissa_that_cannot_be(x, facets, message):
    tables = frames(grid(gamma=(0.01, 0.1, 1.0), lr=0.1, seed=(0, 1), width=64))
    with pytest.raises(UserError, match=message):
        fit(*tables, ["ntk_change"], facets, x)


# -- pieces ------------------------------------------------------------------------------------------

GAMMAS = tuple(float(gamma) for gamma in np.geomspace(0.01, 100, 9))


def _crossing(break_=1.3, slopes=(1.0, 2 / 3), name="mup", **more):
    """Tables whose feature movement bends at a gamma; a seed of the widest gamma diverged."""
    axes = {
        "gamma": GAMMAS,
        "lr": 0.1,
        "seed": (0, 1, 2),
        "width": 64,
        "depth": 2,
        "center_output": True,
        **more,
    }
    tables = frames(grid(parameterization=name, **axes))
    cells = tables[0]
    log = np.log(cells["gamma"] / break_)
    rng = np.random.default_rng(0)
    cells["feature_movement"] = np.exp(
        np.where(log < 0, slopes[0], slopes[1]) * log + 0.05 * rng.standard_normal(len(cells))
    )
    cells.loc[(cells["gamma"] == GAMMAS[-1]) & (cells["seed"] == 0), "status"] = "diverged"
    return tables


def test_a_bend_is_found_with_theory_on_both_sides():
    tables = _crossing(lr_unit="sharpness")
    found = fit(*tables, ["feature_movement"], (), "gamma")
    assert found["piece"].tolist() == [0, 1]
    assert found["slope"].tolist() == pytest.approx([1, 2 / 3], abs=0.06)
    assert (found["low"] <= [1, 2 / 3]).all()
    assert (found["high"] >= [1, 2 / 3]).all()
    assert found["theory"].tolist() == pytest.approx([1, 2 / 3], abs=1e-5)
    first, last = found.iloc[0], found.iloc[1]
    assert first["break_low"] <= 1.3 <= first["break_high"]
    assert last[["break", "break_low", "break_high"]].isna().all()
    assert (first["first"], last["last"]) == (GAMMAS[0], GAMMAS[-1])
    assert first["last"] < first["break"] < last["first"]
    assert (found["left_out"] == 1).all()
    assert (found["cells"] == 26).all()


@pytest.mark.parametrize(("pieces", "count"), [(None, 2), ("auto", 2), (1, 1), ("2", 2), ("3", 3)])
def test_as_many_pieces_as_asked_for(pieces, count):
    found = fit(*_crossing(), ["feature_movement"], (), "gamma", pieces)
    assert len(found) == count
    assert ("piece" in found) == (pieces != 1)
    assert found["theory"].iloc[1:-1].isna().all()  # between the limits theory says nothing
    if count == 1:
        assert found["theory"].isna().all()


def test_a_straight_law_has_one_piece_and_no_theory_of_two():
    found = fit(*_crossing(slopes=(0.8, 0.8)), ["feature_movement", "ntk_change"], (), "gamma")
    row = found.iloc[0]
    assert (row["metric"], row["piece"], row["first"], row["last"]) == (
        "feature_movement", 0, GAMMAS[0], GAMMAS[-1],
    )  # fmt: skip
    assert row["low"] <= 0.8 <= row["high"]
    assert pd.isna(row["break"])
    assert pd.isna(row["theory"])


def test_against_width_theory_speaks_of_the_last_piece(tables):
    assert "piece" not in fit(*tables)
    more = frames(
        grid(width=(*WIDTHS, 1024), lr=1.0, lr_unit="sharpness", parameterization="ntk", seed=(0, 1), depth=2)
    )
    found = fit(*more, ["ntk_change"], (), "width", 2)
    assert found["piece"].tolist() == [0, 1]
    assert pd.isna(found["theory"].iloc[0])
    assert found["theory"].iloc[1] == -1


@pytest.mark.parametrize(
    ("pieces", "where", "message"),
    [
        ("4", GAMMAS, "--pieces must be one of 1, 2, 3, auto, got 4; auto takes"),
        ("two", GAMMAS, "--pieces must be one of"),
        (2, GAMMAS[:5], "gamma must have at least 6 positive values for 2 pieces, got 0.01, "),
        (3, GAMMAS[:8], "gamma must have at least 9 positive values for 3 pieces"),
    ],
)
def test_pieces_that_cannot_be(pieces, where, message):
    cells, trace, layers = _crossing()
    with pytest.raises(UserError, match="^" + message):
        fit(cells[cells["gamma"].isin(where)], trace, layers, ["feature_movement"], (), "gamma", pieces)


def test_the_terminal_says_slopes_and_breaks():
    found = fit(*_crossing(lr_unit="sharpness"), ["feature_movement"], ("parameterization",), "gamma")
    text = _printed(found, x="gamma")
    first, last = (line for line in text.splitlines() if "0.667" in line or "feature_mov" in line)
    break_ = found["break"].iloc[0]
    assert f"{break_:.3g} [" in first
    assert f"{found['slope'].iloc[1]:.2f}" in last
    assert "profile likelihood" in text
    assert "break: gamma where a piece of the line ends" in text
    assert max(map(len, text.splitlines())) <= 80


def test_a_broken_line_is_drawn_through_its_break():
    tables = _crossing(lr_unit="sharpness")
    fits = fit(*tables, ["feature_movement"], ("parameterization",), "gamma")
    points = fit_points(*tables, ["feature_movement"], ("parameterization",), "gamma")
    spec = chart(points, fits, ("parameterization",), Layout(), "gamma").to_dict()
    lines = [layer for layer in spec["concat"][0]["layer"] if layer["mark"]["type"] == "line"]
    dotted, solid = (spec["datasets"][layer["data"]["name"]] for layer in lines)
    assert [row["x"] for row in solid] == pytest.approx([GAMMAS[0], fits["break"].iloc[0], GAMMAS[-1]])
    steps = np.diff(np.log([[row["x"], row["value"]] for row in solid]), axis=0)
    assert steps[:, 1] / steps[:, 0] == pytest.approx(fits["slope"])
    for piece, slope in enumerate(fits["theory"]):
        (x0, y0), (x1, y1) = np.log([[row["x"], row["value"]] for row in dotted if row["piece"] == piece])
        assert (y1 - y0) / (x1 - x0) == pytest.approx(slope)


# -- theory ------------------------------------------------------------------------------------------

# metric, role, depth -> slope under ntk, mup, sp at a fixed lr * lambda_max; the table of the theory notes
THEORY = {
    ("lambda_max_init", None, 2): (0, 0, 1),
    ("ntk_change", None, 2): (-1, 0, -1),
    ("ntk_change", None, 1): (-1, 0, -2),
    ("kernel_distance", None, 2): (-2, 0, -2),
    ("kernel_distance", None, 1): (-2, 0, -4),
    ("movement_frobenius", "input", 2): (-0.5, 0, -1.5),
    ("movement_frobenius", "hidden", 2): (-1, -0.5, -1),
    ("movement_frobenius", "output", 2): (-0.5, 0, -0.5),
    ("movement_spectral", "hidden", 2): (-0.5, 0, -0.5),
    ("movement_spectral", "input", 2): (-0.5, 0, -1.5),
    ("feature_movement", None, 2): (-0.5, 0, -0.5),
    ("param_movement", None, 2): (-1, -0.5, -1),
    ("update_own", "input", 2): (-0.5, 0, -1.5),
    ("update_own", "hidden", 2): (-0.5, 0, -0.5),
    ("update_own", "output", 2): (0, 0, 0),
    ("update_passed", "input", 2): (None, None, None),
    ("update_passed", "hidden", 2): (-0.5, 0, -1.5),
    ("update_passed", "output", 2): (0, 0, 0),
    ("sharpness", None, 2): (None, None, None),
}


def _predict(name, metric, role, depth, unit="sharpness", optimizer="sgd"):
    cell = {"exponents": exponents(name), "optimizer": optimizer, "depth": depth, "lr_unit": unit}
    return predicted_slope(metric, role, cell)


@pytest.mark.parametrize("key", THEORY, ids=str)
def test_table_of_predictions(key):
    assert tuple(_predict(name, *key) for name in ("ntk", "mup", "sp")) == THEORY[key]
    assert _predict("mean_field", *key) == _predict("mup", *key)  # the same trajectories


def test_absolute_lr_predicts_where_the_kernel_does_not_grow():
    assert _predict("ntk", "ntk_change", None, 2, unit="absolute") == -1
    assert _predict("mup", "feature_movement", None, 2, unit="absolute") == 0
    assert _predict("sp", "ntk_change", None, 2, unit="absolute") is None
    assert _predict("sp", "lambda_max_init", None, 2, unit="absolute") == 1


def test_no_prediction_for_adams_kernel_or_an_unknown_table():
    assert _predict("ntk", "ntk_change", None, 2, optimizer="adam", unit="absolute") is None
    assert _predict("ntk", "ntk_change", None, 2, optimizer="adamw2") is None
    cell = {"exponents": '{"a":{},"b":{},"c":{}}', "optimizer": "sgd", "depth": 2, "lr_unit": "sharpness"}
    assert predicted_slope("ntk_change", None, cell) is None


# -- terminal ----------------------------------------------------------------------------------------


def _printed(table, facets=("parameterization",), x="width"):
    raw = io.BytesIO()
    out = Console(file=io.TextIOWrapper(raw, encoding="ascii"), width=80, highlight=False)
    print_fit(table, facets, out, x)
    out.file.flush()
    return raw.getvalue().decode("ascii")


def test_table_fits_a_plain_terminal(tables):
    text = _printed(fit(*tables))
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text
    hidden = next(
        line for line in text[text.index("\nntk ") :].splitlines() if "movement_frobenius  layer1" in line
    )
    assert "(hidden)" in hidden
    assert hidden.split()[-1] == "agrees"
    assert "data: seeds x widths, 3x5" in text
    assert "-1" in hidden.split()
