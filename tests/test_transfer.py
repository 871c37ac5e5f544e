"""The best and the largest stable learning rate along any key: planted laws are given back."""

import json

import numpy as np
import pandas as pd
import pytest
from synthetic import frames, grid

import runner
from runner.analysis.edges import stable_rates
from runner.analysis.transfer import lr_curves, transfer
from runner.analysis.vertex import vertex
from runner.cli import main
from runner.errors import UserError
from runner.views.drift import best_words, drift_lines
from runner.views.style import Layout
from runner.views.transfer import chart

GAMMAS = tuple(float(gamma) for gamma in np.geomspace(0.01, 100, 9))
RATES = tuple(float(rate) for rate in np.geomspace(1e-4, 30, 25))
RICH = -4 / 3  # of depth 2


def planted(key="gamma", values=GAMMAS, law=lambda x: 2 * min(1.0, x**RICH), **more):
    """Cells that diverge beyond law(key), by seed a tenth more or less, and are best at a quarter of it."""
    axes = {
        "lr": RATES, "seed": (0, 1, 2), "width": 64, "depth": 2, "parameterization": "mup",
        "lr_unit": "sharpness", "center_output": True, key: values, **more,
    }  # fmt: skip
    cells, _, _ = frames(grid(**axes))
    edge = np.array([law(x) for x in cells[key]]) * 1.1 ** (cells["seed"] - 1)
    cells["status"] = np.where(cells["lr"] > edge, "diverged", "ok")
    cells["train_loss"] = np.exp(np.log(4 * cells["lr"] / edge) ** 2)
    return cells.assign(**{"model.activation": "relu"})


def test_the_edge_against_gamma_bends_with_theory_on_both_sides():
    found = stable_rates(planted(), (), "gamma")
    assert found["gamma"].tolist() == pytest.approx(GAMMAS)
    assert np.log(found["edge"]).tolist() == pytest.approx(
        [np.log(2 * min(1.0, gamma**RICH)) for gamma in GAMMAS], abs=0.4
    )
    assert (found["low"] < found["edge"]).all()
    assert (found["edge"] < found["high"]).all()
    assert not found["at_end"].any()
    lazy, rich = (found[found["piece"] == piece].iloc[0] for piece in (0, 1))
    assert lazy["drift_low"] <= 0 <= lazy["drift_high"]
    assert rich["drift_low"] <= RICH <= rich["drift_high"]
    assert lazy["break_low"] <= 1 <= lazy["break_high"]
    assert pd.isna(rich["break"])
    assert [lazy["theory"], rich["theory"]] == pytest.approx([0, RICH], abs=1e-5)


def test_the_edge_is_the_middle_of_the_last_stable_and_the_first_diverged_rate():
    cells = planted(values=GAMMAS[:3])
    part = cells[cells["gamma"] == GAMMAS[0]]
    last, first = [], []
    for seed in (0, 1, 2):
        own = part[part["seed"] == seed]
        last.append(max(own["lr"][own["status"] == "ok"]))
        first.append(min(own["lr"][own["status"] == "diverged"]))
    row = stable_rates(cells, (), "gamma").iloc[0]
    geometric = [float(np.prod(rates) ** (1 / 3)) for rates in (last, first)]
    assert [row["low"], row["high"]] == pytest.approx(geometric)
    assert row["edge"] == pytest.approx(np.sqrt(geometric[0] * geometric[1]))


def test_an_edge_beyond_the_grid_is_none():
    cells = planted()
    cells.loc[(cells["gamma"] == GAMMAS[1]) & (cells["seed"] == 2), "status"] = "ok"
    cells.loc[cells["gamma"] == GAMMAS[2], "status"] = "diverged"
    found = stable_rates(cells, (), "gamma")
    assert found["at_end"].tolist() == [False, True, True, *[False] * 6]
    assert found.loc[found["at_end"], ["edge", "low", "high"]].isna().all(axis=None)
    assert found["drift"].notna().all()
    with pytest.raises(UserError, match=r"^lr must reach from stable to diverged at some gamma"):
        stable_rates(cells.assign(status="ok"), (), "gamma")


def test_edges_against_width_and_keys_on_which_theory_is_silent():
    widths = (32, 64, 128, 256)
    sp = planted("width", widths, lambda n: 200 / n, parameterization="sp", lr_unit="absolute")
    row = stable_rates(sp, ("parameterization",)).iloc[0]
    assert row["drift_low"] <= -1 <= row["drift_high"]
    assert row["theory"] == -1
    assert row["piece"] == 0
    found = stable_rates(planted("depth", (1, 2, 4, 8), lambda depth: 3 / depth), (), "depth")
    assert found["drift"].iloc[0] == pytest.approx(-1, abs=0.2)
    assert found["theory"].isna().all()


def test_the_best_rate_against_gamma_breaks():
    found = transfer(planted(), facets=(), x="gamma")
    assert found["best_lr"].tolist() == pytest.approx([0.5 * min(1.0, g**RICH) for g in GAMMAS], rel=0.05)
    lazy, rich = (found[found["piece"] == piece].iloc[0] for piece in (0, 1))
    assert [lazy["drift"], rich["drift"]] == pytest.approx([0, RICH], abs=0.05)
    assert lazy["break"] == pytest.approx(1, rel=0.2)
    assert not found["at_end"].any()
    assert not found["at_edge"].any()
    assert ((found["last"] < found["best_lr"]) & (found["best_lr"] < found["first"])).all()
    straight = transfer(planted(), facets=(), x="gamma", pieces=1)
    assert list(straight.columns) == [
        "gamma", "best_lr", "low", "high", "last", "first", "at_end", "at_edge",
        "drift", "drift_low", "drift_high", "too_coarse", "stays_put", "stays_because", "seeds",
    ]  # fmt: skip
    assert straight["drift"].nunique() == 1


def test_a_vertex_is_off_by_what_cubics_say():
    """Polynomials fitted by NumPy, and their minima on a fine grid between the halves of the steps."""
    rng = np.random.default_rng(1)
    for _ in range(30):
        x = np.cumsum(rng.uniform(0.5, 1.5, 5))
        y = (x - x[2]) ** 2 + rng.normal(0, 0.1, 5)
        fine = np.linspace((x[1] + x[2]) / 2, (x[2] + x[3]) / 2, 100_001)

        def minimum(chosen, degree, x=x, y=y, fine=fine):
            return fine[np.polyval(np.polyfit(x[chosen], y[chosen], degree), fine).argmin()]

        place = minimum([1, 2, 3], 2)
        moved = [abs(minimum(chosen, 3) - place) for chosen in ([0, 1, 2, 3], [1, 2, 3, 4])]
        found = vertex(x, y)
        assert found == pytest.approx((place, min(max(moved), (x[3] - x[1]) / 4)), abs=1e-4)
        alone = vertex(x[1:4], y[1:4])  # nothing tells how far from a parabola it is
        assert alone == pytest.approx((place, (x[3] - x[1]) / 4), abs=1e-4)


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([4, 1, 0, 1, 4], (2, 0)),  # a parabola
        ([4, 1, 0, np.inf, np.nan], (2, 0.5)),  # known to half a step
        ([0, 1, 4, 9, 16], (0, 0.5)),
        ([1, 1, 1, 1, 1], (0, 0.5)),
        ([np.inf, np.nan, np.inf, np.inf, np.inf], (np.nan, np.nan)),
    ],
)
def test_vertices_by_hand(losses, expected):
    assert vertex(np.arange(5.0), np.array(losses, float)) == pytest.approx(expected, nan_ok=True)


def test_intervals_of_best_rates_cover_what_was_planted():
    rng, widths, seeds = np.random.default_rng(0), (32, 64, 128, 256, 512), 2
    hits, drifts = [], []
    for _ in range(40):
        rates = 10 ** (np.arange(-4, 1.5, 0.5) + rng.uniform(0, 0.5))
        width, lr, seed = (one.ravel() for one in np.meshgrid(widths, rates, range(seeds), indexing="ij"))
        moved = {(n, s): rng.normal(0, 0.05) for n in widths for s in range(seeds)}
        off = np.log(lr * width / 4) + [moved[key] for key in zip(width, seed, strict=True)]
        cells = pd.DataFrame({"width": width, "lr": lr, "seed": seed, "status": "ok"})
        found = transfer(cells.assign(train_loss=np.exp(np.exp(0.7 * off) - 0.7 * off)), facets=())
        truth = 4 / found["width"]
        hits += ((found["low"] <= truth) & (truth <= found["high"])).tolist()
        drifts.append(found["drift_low"].iloc[0] <= -1 <= found["drift_high"].iloc[0])
    assert np.mean(hits) >= 0.9
    assert np.mean(drifts) >= 0.9


def test_a_rate_has_the_digits_that_its_interval_tells():
    row = {"best_lr": 0.004274, "low": 0.00279, "high": 0.006546, "at_end": False, "at_edge": False}
    assert best_words(row) == "0.0043 [0.0028, 0.0065]"
    assert best_words(row | {"low": 0.0042, "high": 0.00435}) == "0.00427 [0.0042, 0.00435]"
    assert best_words(row | {"low": np.nan, "high": np.nan}) == "0.0043"
    assert best_words(row | {"best_lr": 3.16228, "at_edge": True}) == "3.16^"  # of the grid, and a bound
    assert best_words(row | {"best_lr": 10.0, "at_end": True, "at_edge": True}) == "10*"
    assert best_words(row | {"best_lr": np.nan}) == best_words(None) == "."


def test_a_best_rate_at_an_end_of_the_grid_does_not_pull_the_drift():
    cells = planted()
    cells = cells[cells["lr"] > 0.002]  # the richest is best below
    found = transfer(cells, facets=(), x="gamma")
    assert found["at_end"].tolist() == [False] * 8 + [True]
    rich = found.iloc[-1]
    assert rich["piece"] == 1
    assert rich["drift_low"] <= RICH <= rich["drift_high"]


@pytest.mark.parametrize("key", ["depth", "data.train_size"])
def test_any_numeric_key_is_an_abscissa(key):
    values = (8, 16, 32, 64)
    cells = planted("depth", values, lambda x: 8 / x)
    if key != "depth":
        cells = cells.assign(**{key: cells["depth"], "depth": 2})
    found = transfer(cells, facets=(), x=key)
    assert found[key].tolist() == list(values)
    assert found["drift"].iloc[0] == pytest.approx(-1, abs=0.02)
    curves = lr_curves(cells, facets=(), x=key)
    assert len(curves) == len(values) * len(RATES)
    assert curves["best"].sum() == len(values)


@pytest.mark.parametrize(
    ("x", "facets", "message"),
    [
        ("gama", (), "--x must be a column or a group key of the cells, got 'gama'; did you mean gamma?"),
        ("model", (), "--x must name numbers, got model with mlp"),
        ("lr", (), "--x must be another key than lr and seed, got lr"),
        ("gamma", ("gamma",), "--facet must not be gamma or lr, which the best lr runs over"),
        ("depth", (), r"gamma varies \(0.01, "),
        ("depth", ("gamma",), "depth must have at least 2 positive values for a drift, got 2; sweep more"),
    ],
)
@pytest.mark.parametrize("rates", [transfer, stable_rates])
def test_an_abscissa_that_cannot_be(rates, x, facets, message):
    with pytest.raises(UserError, match=f"^{message.replace('?', '[?]')}"):
        rates(planted(), facets=facets, x=x)


@pytest.mark.parametrize("rates", [transfer, stable_rates])
def test_pieces_that_cannot_be(rates):
    with pytest.raises(UserError, match=r"^--pieces must be one of 1, 2, 3, auto, got four"):
        rates(planted(), facets=(), x="gamma", pieces="four")


@pytest.mark.parametrize("rates", [transfer, stable_rates])
def test_pieces_need_values_with_a_rate(rates):
    message = r"^gamma must have at least 6 values with a rate inside the grid for 2 pieces, got 5; sweep"
    with pytest.raises(UserError, match=message):
        rates(planted(values=GAMMAS[:5]), facets=(), x="gamma", pieces=2)


def test_fitted_lines_and_theory_are_drawn():
    cells = planted()
    rates = stable_rates(cells, (), "gamma")
    spec = chart(
        lr_curves(cells, facets=(), x="gamma"), rates, (), "train_loss", None, Layout(), "gamma"
    ).to_dict()
    layers = [layer for layer in spec["concat"][0]["layer"] if layer["mark"]["type"] == "line"]
    dotted, solid = (spec["datasets"][layer["data"]["name"]] for layer in layers)
    assert [row["x"] for row in solid] == pytest.approx([GAMMAS[0], rates["break"].iloc[0], GAMMAS[-1]])
    assert {row["piece"] for row in dotted} == {0, 1}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A sweep along gamma and lr, trained for real."""
    path = tmp_path_factory.mktemp("sweep") / "rich"
    words = [
        "data=xor", "data.dim=4", "data.train_size=8", "data.test_size=8", "data.probe_size=4", "width=16",
        "depth=1", "parameterization=mup", "gamma=logspace(0,1.5,4)", "lr=logspace(-2,2,9)", "seed=0,1",
        "lr_unit=sharpness", "steps=60", "measure.points=3", "workers=1", f"store={path}",
    ]  # fmt: skip
    assert main(["sweep", *words]) == 0
    return path


def test_a_real_sweep_has_an_edge_that_falls_with_gamma(store, capsys):
    capsys.readouterr()
    table = runner.load(store).transfer(x="gamma", edge=True).table
    assert table["drift"].iloc[0] < -0.5
    assert main(["transfer", str(store), "--x", "gamma", "--edge", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["gamma"] for row in rows] == pytest.approx(table["gamma"].tolist())
    assert list(rows[0]) == list(table.columns)
    assert main(["transfer", str(store), "--x", "gamma", "--edge"]) == 0
    text = capsys.readouterr().out
    assert "largest stable lr" in text
    assert "doublings of the largest stable lr per doubling of gamma" in text
    assert "width" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_a_real_sweep_has_best_rates_and_figures(store, capsys, tmp_path):
    capsys.readouterr()
    out = tmp_path / "edge.svg"
    assert main(["transfer", str(store), "--x", "gamma", "--out", str(out)]) == 0
    assert "lr of the smallest train_loss" in capsys.readouterr().out
    caption = out.with_suffix(".caption.txt").read_text()
    assert "The best learning rate against gamma" in caption
    assert "width" not in caption.replace("width 16", "")
    view = runner.load(store).transfer(x="gamma", edge=True)
    assert "largest stable learning rate against gamma" in view.caption
    assert main(["fit", str(store), "--x", "gamma", "--where", "lr=0.1", "--metric", "ntk_change"]) == 0
    assert "log gamma" in capsys.readouterr().out


def test_a_best_rate_below_divergence_is_a_bound():
    cells = planted(key="width", values=(64, 128, 256), law=lambda width: 2.0)
    cells["train_loss"] = 1 / cells["lr"]  # the larger the better, up to the edge
    cells["status"] = np.where(cells["lr"] > 2, "diverged", "ok")  # at which all seeds agree
    found = transfer(cells, facets=())
    assert found["at_edge"].all()
    assert not found["at_end"].any()
    stable = cells.groupby("lr")["status"].apply(lambda status: (status == "ok").all())
    assert found["best_lr"].tolist() == pytest.approx([max(stable.index[stable])] * 3)
    assert found["first"].tolist() == pytest.approx([min(stable.index[~stable])] * 3)
    assert found[["low", "high", "drift", "drift_low", "drift_high"]].isna().all(axis=None)
    assert found["too_coarse"].all()
    assert set(found["stays_put"]) == {"cannot tell"}
    why = "at 3 of 3 the best rate is a bound, the last rate before divergence"
    assert set(found["stays_because"]) == {why}
    assert drift_lines(found, ()) == {"": "drift not known, stays put: cannot tell"}
    beyond = transfer(cells[cells["lr"] <= 2], facets=())
    assert set(beyond["stays_because"]) == {"at 3 of 3 the best rate is a bound, an end of the grid"}


@pytest.mark.parametrize(("slope", "verdict"), [(0, "cannot tell"), (-1, "no")])
def test_a_drift_is_that_of_the_rates_that_are_no_bounds(slope, verdict):
    """Those of the two widest are at the edge: without them the drift is the same, and yes is never said."""
    widths = (32, 64, 128, 256, 512)
    cells = planted("width", widths, lambda width: 2 * (width / 32) ** slope)
    wide = cells["width"] > 128
    cells.loc[wide, "train_loss"] = 1 / cells["lr"]
    found, others = (transfer(part, facets=()) for part in (cells, cells[~wide]))
    assert found["at_edge"].tolist() == [False] * 3 + [True] * 2
    drift = ["drift", "drift_low", "drift_high"]
    assert found.iloc[0][drift].tolist() == pytest.approx(others.iloc[0][drift].tolist())
    assert found["low"].notna().tolist() == [True] * 3 + [False] * 2
    assert set(others["stays_put"]) == {"yes" if slope == 0 else "no"}
    assert set(found["stays_put"]) == {verdict}
    assert found["stays_because"].str.contains("over the range of the others; at 2 of 5 the best rate").all()


def test_no_interval_reaches_beyond_where_every_seed_diverged():
    cells = planted("width", (32, 64, 128), lambda width: 2)
    spread = 8.0 ** (cells["seed"] - 1)
    cells["train_loss"] = np.exp(np.log(2 * cells["lr"] * spread) ** 2)
    found = transfer(cells, facets=())
    stable = cells.groupby("lr")["status"].apply(lambda status: (status == "ok").any())
    assert (found["low"] < found["best_lr"]).all()
    assert found["high"].tolist() == pytest.approx([min(stable.index[~stable])] * 3)
