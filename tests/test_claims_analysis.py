"""What the rules stand on, from matched losses to rank correlations, and the command that applies them."""

import json

import claim_worlds as worlds
import numpy as np
import pandas as pd
import pytest
from sweeping import Engine

from runner import cli
from runner.analysis.best_lr import best_lr, drift_per_doubling, require_inside
from runner.analysis.boundary.places import seed_places
from runner.analysis.boundary.properties import Property, movement
from runner.analysis.claims import CLAIMS
from runner.analysis.correlation import separation, spearman
from runner.analysis.critical import critical_lr
from runner.analysis.estimate import Unsupported, numbers, over_seeds, share
from runner.analysis.grouped import grouped, places
from runner.analysis.matched_loss import at_loss
from runner.analysis.regime_table import regime_table
from runner.analysis.theory import r_exponent
from runner.grid.config import load_experiment, quick_words


def _trace(**cells):
    rows = [
        {"cell_id": name, "step": step, "train_loss": loss, "ntk_change": value}
        for name, points in cells.items()
        for step, (loss, value) in enumerate(points)
    ]
    return pd.DataFrame(rows)


def test_matched_loss_is_interpolated_in_the_logarithm():
    found = at_loss(
        _trace(
            falls=[(1, 0), (0.1, 1), (0.01, 2)],
            catapult=[(1, 0), (0.1, 1), (10, 5), (0.1, 7)],
            never=[(1, 0), (0.9, 1)],
            diverged=[(1, 0), (0.01, 1), (2, 3)],
        ),
        "ntk_change",
        0.1**1.5,
    )
    assert found["falls"] == pytest.approx(1.5)
    assert found[["catapult", "never", "diverged"]].isna().all()
    after = at_loss(_trace(catapult=[(1, 0), (0.1, 1), (10, 5), (0.1, 7)]), "ntk_change", 0.5)
    assert after["catapult"] == pytest.approx(5 + 2 * np.log(20) / np.log(100))


def test_the_critical_lr_is_two_over_the_top_eigenvalue():
    cells = pd.DataFrame({"lr_absolute": [1.0, 2.0], "lambda_max_init": 0.5})
    assert (critical_lr(cells) == 4).all()


def test_best_lr_and_its_drift():
    tables = worlds.best_lr({"sp": -1.0})
    sp = tables.cells[tables.cells["parameterization"] == "sp"]
    best = best_lr(sp)
    assert np.log2(best).tolist() == [4, 3, 2, 1, 0]
    assert drift_per_doubling(best) == pytest.approx(-1)
    require_inside(best, sp)
    with pytest.raises(Unsupported, match="an end of the grid"):
        require_inside(best, sp[sp["lr"] <= 16])
    out = sp.assign(status="diverged")
    with pytest.raises(Unsupported, match="every lr diverged at width 32"):
        require_inside(best_lr(out), out)


def test_crossover_is_interpolated():
    def found(**world):
        cells = worlds.richness(**world).cells
        return seed_places(
            cells, Property("movement", "", movement(cells), 0.2, smooth=True), "gamma", ["width"]
        )

    by_width = found(exponent=0.5).groupby("width")["place"].mean()
    assert by_width[64] == pytest.approx(4, rel=0.1)
    assert by_width[256] == pytest.approx(8, rel=0.1)
    assert found(size=1e-9)["place"].isna().all()


def test_rank_correlation_with_ties_and_groups():
    x = pd.Series([1.0, 2, 2, 3, 4, 5, 6, 7, 8])
    y = pd.Series([2.0, 1, 3, 3, 5, 4, 8, 8, 9])
    found = spearman(x, y)
    assert found.value == pytest.approx(x.rank().corr(y.rank()))
    assert found.low < found.value < found.high
    group = pd.Series([0] * 10 + [1] * 10)
    rising = pd.Series([*range(10), *range(10)], dtype=float)
    assert spearman(rising, rising - 100 * group).value < 0.9
    assert spearman(rising, rising - 100 * group, within=group).value == pytest.approx(1)
    for bad in (x.where(x < 4), x * 0):
        with pytest.raises(Unsupported):
            spearman(bad, y)


def test_groups_are_those_of_pandas():
    rng = np.random.default_rng(0)
    keys = {"gamma": rng.choice([10.0, 0.1], 60), "width": rng.choice([256, 64], 60)}
    rows = pd.DataFrame(keys | {"x": rng.normal(size=60) + 1e3})
    rows.loc[rows.index[:20:2], "x"] = np.nan
    rows = pd.concat([rows, pd.DataFrame({"gamma": [3.0, 4.0], "width": 64, "x": [1.0, np.nan]})])
    found = grouped(rows, "x", ["gamma", "width"])
    expected = rows.dropna().groupby(["gamma", "width"])["x"].agg(["size", "mean", "std"])
    assert list(zip(*found.keys, strict=True)) == list(expected.index)
    assert found.size.tolist() == expected["size"].tolist()
    np.testing.assert_allclose(found.mean, expected["mean"], rtol=1e-14)
    np.testing.assert_allclose(found.spread, expected["std"], rtol=1e-11)  # of one value NaN
    line = rows.dropna().groupby(["width", "gamma"]).ngroup()
    assert places([rows.dropna()[key].to_numpy() for key in ("width", "gamma")]).tolist() == line.tolist()


def test_separation_is_the_area_under_the_curve():
    score, positive = pd.Series([1.0, 2, 2, 3, 4]), pd.Series([False, False, True, True, True])
    pairs = [(a > b) + (a == b) / 2 for a in score[positive] for b in score[~positive]]
    assert separation(score, positive).value == pytest.approx(np.mean(pairs))
    with pytest.raises(Unsupported, match="nothing to tell apart"):
        separation(score, score > 9)


def test_estimates_refuse_what_has_no_support():
    frame = pd.DataFrame({"seed": [0, 0], "x": [1.0, 2.0]})
    with pytest.raises(Unsupported, match="one seed"):
        over_seeds(frame, lambda part: part["x"].mean())
    with pytest.raises(Unsupported, match="no column y"):
        numbers(frame, "y")
    found = share(pd.Series([True] * 10))
    assert found.value == found.high == 1
    assert found.low == pytest.approx(10 / (10 + 1.96**2))


@pytest.mark.parametrize(
    ("name", "faster", "expected"),
    [("ntk", 0, 0.5), ("mup", 0, 0), ("mean_field", 0, 0), ("sp", 1, 0.5), ("sp", 0, -1)],
)  # fmt: skip
def test_r_of_the_abc_table(name, faster, expected):
    from synthetic import exponents

    assert r_exponent(exponents(name), faster) == expected


def test_regimes_side_by_side():
    table = regime_table(worlds.tasks()).set_index("quantity")
    assert list(table.columns) == ["lazy", "rich"]
    assert table.loc["cells"].tolist() == ["48", "16"]
    lazy, rich = (float(text.split()[0]) for text in table.loc["xor: change of the kernel"])
    assert lazy < 0.1 < rich


def test_command_trains_what_is_missing_and_writes_the_tables(monkeypatch, tmp_path, capsys):
    engine = Engine(monkeypatch)
    out = tmp_path / "out"
    assert cli.main(["claims", "C8", "--quick", "--out", str(out), "--json"]) == 0
    trained = len(engine.trained)
    assert trained > 0
    answer = json.loads(capsys.readouterr().out)
    assert [row["claim"] for row in answer["rows"]] == ["C8"]
    assert list(answer["seconds"]) == ["claim_edges"]
    assert cli.main(["claims", "c8", "--quick", "--out", str(out)]) == 0
    assert len(engine.trained) == trained
    assert "1 claim: " in capsys.readouterr().out
    assert {"claims.md", "claims.parquet", "checks.parquet", "claim_edges"} == {
        path.name for path in out.iterdir()
    }
    assert pd.read_parquet(out / "claims.parquet")["claim"].tolist() == ["C8"]


def test_unknown_claim_is_one_line(capsys):
    assert cli.main(["claims", "C81"]) == 2
    assert capsys.readouterr().err.startswith("error: IDS must be one of C1, ")


def test_every_experiment_has_a_quick_grid():
    for name in {name for claim in CLAIMS for name in claim.experiments}:
        assert quick_words(load_experiment(name)), name
