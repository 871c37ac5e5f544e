"""Papers: a verdict holds where the published numbers are true, fails where they are not, or says neither."""

import json

import pandas as pd
import paper_worlds
import pytest
import yaml
from sweeping import TINY, Engine, cells_of

from runner import cli
from runner.analysis.claims import judge
from runner.errors import UserError
from runner.grid.config import load_experiment, quick_words
from runner.literature import as_claim, choose_papers, papers
from runner.literature.paper import read_paper
from runner.views.results import load

PAPERS = papers()
# What a grid of decades, refined in rounds, cannot show without training.
FINER = {
    "atanasov2024": ["refine=none", "lr=logspace(-7,2,64)", "gamma=logspace(-3,4,15)"],
}


@pytest.fixture(scope="module")
def grids():
    """The quick grid of each paper, composed once."""
    with pytest.MonkeyPatch.context() as patch:
        return {
            name: cells_of(
                patch, f"+experiment={name}", *quick_words(load_experiment(name)), *FINER.get(name, ())
            )
            for name in PAPERS
        }


def _judged(grids, name, true):
    store = getattr(paper_worlds, name)(grids[name], true)
    return judge([as_claim(PAPERS[name])], {name: store}, ("published", "source"))


@pytest.mark.parametrize("name", PAPERS)
def test_a_paper_holds_where_it_is_true(grids, name):
    table, checks = _judged(grids, name, true=True)
    assert table.loc[0, "verdict"] == "holds", checks.to_string()
    assert checks["source"].str.len().gt(10).all()
    assert (checks["low"] <= checks["measured"] + 1e-9).all()


@pytest.mark.parametrize("name", PAPERS)
def test_a_paper_fails_where_it_is_false(grids, name):
    """Not one of its numbers holds: each rule by itself can fail."""
    table, checks = _judged(grids, name, true=False)
    assert table.loc[0, "verdict"] == "fails", checks.to_string()
    assert not (checks["verdict"] == "holds").any(), checks.to_string()


def test_a_number_of_other_data_is_not_judged(grids):
    """With relu left out by --quick, what the paper found of it is neither right nor wrong."""
    _, checks = _judged(grids, "atanasov2024", true=True)
    assert checks["check"].str.contains("linear").all()
    assert len(checks) == 4


@pytest.mark.parametrize("name", PAPERS)
def test_one_seed_tells_nothing(grids, name):
    store = getattr(paper_worlds, name)([cell for cell in grids[name] if cell.seed == 0], True)
    table, checks = judge([as_claim(PAPERS[name])], {name: store}, ("published", "source"))
    assert (checks["verdict"] == "inconclusive").all(), checks.to_string()
    assert (checks["note"] == "one seed: no interval").all()
    assert table.loc[0, "verdict"] == "inconclusive"


def test_choice_of_papers():
    assert [paper.name for paper in choose_papers(("yang2022", "luo2021"))] == ["yang2022", "luo2021"]
    with pytest.raises(UserError, match=r"NAMES must be one of .*, got 'luo'; did you mean 'luo2021'"):
        choose_papers(("luo",))


GOOD = {
    "what": "slope",
    "source": "figure 1",
    "from": "fit",
    "metric": "ntk_change",
    "value": -1,
    "within": 0.1,
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"from": "fitt"}, r"published\[0\].from must be one of phase, .*, got fitt, in mine.yaml"),
        ({"value": "big"}, r"published\[0\].value must be a number, got big; in mine.yaml"),
        ({"within": None}, r"published\[0\] must have a value and how far from it agrees"),
        ({"above": 0}, r"must have a value .*, or a bound \(above or below\), got value, within, above"),
        ({"source": ""}, r"source must be text, got nothing, in mine.yaml"),
        ({"metrc": "cka"}, r"published\[0\].metrc must be a known config key .*did you mean .*metric"),
        ({"over": {"wher": "lr=1"}}, r"published\[0\].over.wher must be a known config key"),
        ({"take": "lst"}, r"published\[0\].take must be one of first, last, got lst, in mine.yaml"),
        ({"from": "cells"}, r"metric must be a known config key"),
        ({"from": "cells", "metric": None}, r"must be a known config key"),
    ],
)
def test_a_mistake_in_a_section_is_named(change, message):
    section = {"cite": "Me, 2026", "finding": "it is so", "published": [GOOD | change]}
    with pytest.raises(UserError, match=message):
        read_paper("mine", section)


@pytest.mark.parametrize("section", [{}, [], {"cite": "x"}, {"published": [GOOD]}, {"publishd": []}])
def test_a_section_that_is_none_is_refused(section):
    with pytest.raises(UserError, match=r"in mine\.yaml"):
        read_paper("mine", section)


@pytest.fixture
def mine(tmp_path):
    """A folder of one's own with a paper, whose cells give 1/width."""
    (tmp_path / "conf/experiment").mkdir(parents=True)
    keys = dict(word.split("=") for word in TINY)
    experiment = {
        "defaults": [{"override /data": "xor"}], "name": "mine", "steps": 4,
        "data": {key[5:]: int(value) for key, value in keys.items() if key.startswith("data.")},
        "quick": ["seed=range(2)"],
        "paper": {
            "cite": "Me, 2026", "finding": "the kernel is frozen",
            "figure": {"from": "fit", "metric": "ntk_change"},
            "published": [GOOD | {"what": "kernel", "rival": 0}, GOOD | {"what": "nothing", "metric": "cka"}],
        },
        "hydra": {"sweeper": {"params": {"width": "16,32,64", "seed": "range(4)"}}},
    }  # fmt: skip
    text = "# @package _global_\n" + yaml.safe_dump(experiment, sort_keys=False)
    (tmp_path / "conf/experiment/mine.yaml").write_text(text)
    return tmp_path


def test_a_paper_of_ones_own_is_reproduced(mine, monkeypatch, capsys):
    engine = Engine(monkeypatch)
    words = ["reproduce", "mine", "--config-dir", str(mine / "conf"), "--out", str(mine / "out")]
    assert cli.main([*words, "--quick", "--json"]) == 0
    assert len(engine.trained) == 6
    row = json.loads(capsys.readouterr().out)["rows"][0]
    assert (row["claim"], row["published"], row["source"]) == ("mine", -1, "figure 1")
    assert row["verdict"] == "inconclusive"  # of the second number there is nothing
    checks = pd.read_parquet(mine / "out/checks.parquet")
    assert list(checks["verdict"]) == ["holds", "inconclusive"]
    assert checks.loc[1, "note"] == "the cells do not give it"
    text = (mine / "out/reproduce.md").read_text()
    assert "| mine | the kernel is frozen | 1 of 2 | inconclusive |" in text
    assert "![the kernel is frozen](mine.svg)" in text
    assert (mine / "out/mine.svg").is_file()
    # The same again trains nothing; without --quick what is missing.
    assert cli.main([*words, "--quick"]) == 0
    assert len(engine.trained) == 6
    assert cli.main(words) == 0
    assert len(engine.trained) == 12
    page = load(mine / "out/mine").report(mine / "page.html").path.read_text()
    assert "Published figures" in page
    assert "figure 1" not in page.partition("Published figures")[0]


def test_a_mistake_costs_nothing(mine, monkeypatch, capsys):
    engine = Engine(monkeypatch)
    path = mine / "conf/experiment/mine.yaml"
    path.write_text(path.read_text().replace("within: 0.1", "withn: 0.1", 1))
    assert (
        cli.main(["reproduce", "mine", "--config-dir", str(mine / "conf"), "--out", str(mine / "out")]) == 2
    )
    assert "did you mean paper.published[0].within?, in mine.yaml" in capsys.readouterr().err
    assert not engine.trained
    assert not (mine / "out").exists()


def test_a_number_is_not_left_out_for_a_misspelling(mine, monkeypatch, capsys):
    """Of other data it is left out; of a key that no cell has nobody would miss it."""
    Engine(monkeypatch)
    path = mine / "conf/experiment/mine.yaml"
    words = ["reproduce", "mine", "--config-dir", str(mine / "conf"), "--out", str(mine / "out"), "--quick"]
    text = path.read_text()
    path.write_text(text.replace("within: 0.1", "within: 0.1\n    only: data=digits"))
    assert cli.main(words) == 0
    assert "no published figure is of these data" in (mine / "out/reproduce.md").read_text()
    path.write_text(text.replace("within: 0.1", "within: 0.1\n    only: dta=xor"))
    assert cli.main(words) == 2
    assert "only must be a column or a group key of the cells, got 'dta'" in capsys.readouterr().err


def test_keys_change_every_experiment(mine, monkeypatch):
    engine = Engine(monkeypatch)
    words = ["reproduce", "mine", "width=16,32,64,128", "--config-dir", str(mine / "conf")]
    assert cli.main([*words, "--out", str(mine / "out")]) == 0
    assert len(engine.trained) == 16
