"""Papers: a verdict holds where the published numbers are true, fails where they are not, or says neither."""

import paper_worlds
import pytest
from sweeping import cells_of

from runner.analysis.claims import judge
from runner.grid.config import load_experiment, quick_words
from runner.literature import as_claim, choose_papers, papers

PAPERS = papers()
# What a grid of decades, refined in rounds, cannot show without training.
FINER = {"atanasov2024": ["refine=none", "lr=logspace(-7,2,64)", "gamma=logspace(-3,4,15)"]}


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


def test_choice_of_papers():
    assert [paper.name for paper in choose_papers(("yang2022", "luo2021"))] == ["yang2022", "luo2021"]
