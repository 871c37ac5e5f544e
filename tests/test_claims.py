import functools
import io
import itertools
import json

import claim_worlds as worlds
import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from runner.analysis.claims import CLAIMS, COLUMNS, choose_claims, judge
from runner.analysis.claims.verdict import above, below, headline, verdict_of, within
from runner.analysis.estimate import Estimate, Tables
from runner.analysis.regime_table import regime_table
from runner.errors import UserError
from runner.grid.config import conf_dir
from runner.store.keys import is_key
from runner.views.claims import claims_markdown, claims_table

IDS = [claim.id for claim in CLAIMS]
LAZY_IS_RICH = {"ntk": "mup", "sp": "mup"}
RICH_IS_LAZY = {"mup": "ntk", "mean_field": "ntk"}
# What the world must be like for a claim to be false.
FALSE = {
    "C1": {"claim_width": lambda: worlds.width(LAZY_IS_RICH)},
    "C2": {"claim_width": lambda: worlds.width(LAZY_IS_RICH)},
    "C3": {"claim_kernel": lambda: worlds.kernel({"ntk": "mup"})},
    "C4": {"claim_limit": lambda: worlds.limit(slope=0.0)},
    "C5": {"claim_kernel": lambda: worlds.kernel(over_bound=3.0)},
    "C6": {"claim_width": lambda: worlds.width(RICH_IS_LAZY)},
    "C7": {"claim_width": lambda: worlds.width(LAZY_IS_RICH)},
    "C8": {"claim_edges": lambda: worlds.edges(slope=0.0)},
    "C9": {"claim_width": lambda: worlds.width(RICH_IS_LAZY)},
    "C10": {"claim_kernel": lambda: worlds.kernel({"mup": "ntk"})},
    "C11": {"claim_tasks": lambda: worlds.tasks(features=-1.0)},
    "C12": {"claim_tasks": lambda: worlds.tasks(features=-1.0)},
    "C13": {"claim_kernel": lambda: worlds.kernel({"mup": "ntk"})},
    "C14": {"claim_depth": lambda: worlds.depth(sign=-1.0)},
    "C15": {"claim_tasks": lambda: worlds.tasks(features=-1.0)},
    "C16": {"claim_best_lr": lambda: worlds.best_lr({"mup": -1.0})},
    "C17": {"claim_richness": lambda: worlds.richness(size=1e-5)},
    "C18": {"claim_infinite": lambda: worlds.infinite(mean=0.0)},
}
# Other ways of being false, one for each check that the first way leaves standing.
ALSO_FALSE = [
    ("C4", {"claim_width": lambda: worlds.width(LAZY_IS_RICH)}),
    ("C5", {"claim_kernel": lambda: worlds.kernel(lambda_min=-1e-6)}),
    ("C7", {"claim_width": lambda: worlds.width(RICH_IS_LAZY)}),
    ("C8", {"claim_edges": lambda: worlds.edges(richer=-1.0)}),
    ("C9", {"claim_width": lambda: worlds.width(LAZY_IS_RICH)}),
    ("C9", {"claim_adam": lambda: worlds.width(RICH_IS_LAZY)}),
    ("C9", {"claim_adam": lambda: worlds.width(LAZY_IS_RICH)}),
    ("C11", {"claim_tasks": lambda: worlds.tasks(lazy=0.1)}),
    ("C11", {"claim_tasks": lambda: worlds.tasks(converged=10.0)}),
    ("C17", {"claim_richness": lambda: worlds.richness(exponent=0.1)}),
    ("C17", {"claim_richness": lambda: worlds.richness(exponent=1.0)}),
    ("C16", {"claim_best_lr": lambda: worlds.best_lr({"sp": 0.0})}),
    ("C17", {"claim_width": lambda: worlds.width(RICH_IS_LAZY)}),
    ("C18", {"claim_infinite": lambda: worlds.infinite(spread=0.0)}),
    ("C18", {"claim_infinite": lambda: worlds.infinite(left=0.1)}),
]


@pytest.fixture(scope="module")
def truth():
    return worlds.truth()


@pytest.fixture(scope="module")
def judged(truth):
    """The table and the checks of all claims where all are true."""
    return judge(CLAIMS, truth)


def _verdicts(frames, *ids):
    table, checks = judge(choose_claims(ids), frames)
    return table.set_index("claim"), checks


@pytest.mark.parametrize("name", IDS)
def test_a_claim_holds_where_it_is_true(judged, name):
    table, checks = judged
    checks = checks[checks["claim"] == name]
    assert table.set_index("claim").loc[name, "verdict"] == "holds", checks.to_string()
    assert len(checks)
    assert checks["cells"].gt(0).all()
    assert (checks["low"] <= checks["measured"] + 1e-9).all()
    assert (checks["measured"] <= checks["high"] + 1e-9).all()


def test_markdown_and_terminal(judged):
    table, checks = judged
    text = claims_markdown(table, checks, regime_table(worlds.tasks()), "runner claims --quick")
    assert "`runner claims --quick`" in text
    assert all(f"| {claim.id} | {claim.text} |" in text for claim in CLAIMS)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) > len(CLAIMS) + len(checks)
    file = io.StringIO()
    Console(file=file, width=80, highlight=False).print(claims_table(table, 80))
    lines = file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert sum(line.rstrip().endswith("holds") for line in lines) == len(CLAIMS)


@pytest.mark.parametrize(
    ("name", "changed"),
    [*FALSE.items(), *ALSO_FALSE],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_claim_fails_where_it_is_false(truth, name, changed):
    table, checks = _verdicts(truth | {key: make() for key, make in changed.items()}, name)
    assert table.loc[name, "verdict"] == "fails", checks.to_string()
    assert table.loc[name, "check"] in set(checks.loc[checks["verdict"] == "fails", "check"])


def _only(tables, keep):
    cells = tables.cells[keep(tables.cells)]
    ids = set(cells["cell_id"])
    return Tables(cells, *(frame[frame["cell_id"].isin(ids)] for frame in (tables.trace, tables.layers)))


def _diverged(tables):
    cells = tables.cells.assign(status="diverged", regime="diverged", train_loss=np.nan, ntk_change=np.nan)
    return Tables(cells, tables.trace.iloc[:0], tables.layers.iloc[:0])


def _emptied(tables):
    keys = ["cell_id", "status", "regime", "width", "depth", "seed", "parameterization", "settings",
            "exponents", "lr", "lr_unit", "lr_absolute", "lr_sharpness", "gamma", "model", "data",
            "optimizer",
            "initial_train_loss"]  # fmt: skip
    keys += [name for name in tables.cells if is_key(name)]
    return Tables(
        tables.cells[keys].assign(regime=None), tables.trace[["cell_id", "step"]],
        tables.layers[["cell_id", "step", "role", "layer_index"]],
    )  # fmt: skip


POOR = {
    "one seed": lambda tables: _only(tables, lambda cells: cells["seed"] == 0),
    "two widths": lambda tables: _only(tables, lambda cells: cells["width"].isin([64, 128])),
    "all diverged": _diverged,
    "no cells": lambda tables: _only(tables, lambda cells: cells["seed"] < 0),
    "missing columns": _emptied,
}
# A width is not what these are about.
WITHOUT_WIDTHS = {"C5", "C10", "C11", "C12", "C14", "C15"}


POORLY = [
    (kind, name)
    for kind, name in itertools.product(POOR, IDS)
    if kind != "two widths" or name not in WITHOUT_WIDTHS
]


@pytest.fixture(scope="module")
def poor(truth):
    return functools.cache(lambda kind: {key: POOR[kind](tables) for key, tables in truth.items()})


@pytest.mark.parametrize(("kind", "name"), POORLY)
def test_no_verdict_without_support(poor, kind, name):
    table, checks = _verdicts(poor(kind), name)
    assert table.loc[name, "verdict"] == "inconclusive", checks.to_string()
    undecided = checks[checks["verdict"] == "inconclusive"]
    assert undecided["note"].str.len().gt(0).all()


@pytest.mark.parametrize("name", IDS)
def test_a_missing_experiment_is_said(name):
    table, _ = _verdicts({}, name)
    assert table.loc[name, "verdict"] == "inconclusive"
    assert "no results of the experiment claim_" in table.loc[name, "note"]


def test_every_claim_has_a_row_and_its_experiments_exist():
    assert [f"C{number}" for number in range(1, 19)] == IDS
    assert set(FALSE) == set(IDS)
    table, checks = judge(CLAIMS, {})
    assert list(table.columns) == list(checks.columns) == list(COLUMNS)
    for claim in CLAIMS:
        for experiment in claim.experiments:
            assert (conf_dir() / "experiment" / f"{experiment}.yaml").is_file()


def test_choice_of_claims():
    assert [claim.id for claim in choose_claims(["c3", "C1"])] == ["C1", "C3"]
    assert len(choose_claims([])) == 18
    with pytest.raises(UserError, match=r"IDS must be one of C1, .*, got 'C19'; did you mean"):
        choose_claims(["C19"])


@pytest.mark.parametrize(
    ("value", "low", "high", "verdict"),
    [
        (-1.0, -1.1, -0.9, "holds"),
        (-1.0, -1.9, -0.1, "holds"),
        (-1.0, -2.1, 0.1, "inconclusive"),  # does not exclude the rival
        (-0.7, -0.9, -0.5, "inconclusive"),  # outside, but reaches in
        (-0.5, -0.7, -0.3, "fails"),
        (np.nan, np.nan, np.nan, "inconclusive"),
    ],
)
def test_a_band(value, low, high, verdict):
    assert within("x", lambda: Estimate(value, low, high, 3), -1.2, -0.8, rival=0).verdict == verdict


@pytest.mark.parametrize(("low", "high"), [(1.0, 2.0), (-1.0, 1.0), (-2.0, -1.0)])
def test_a_bound(low, high):
    middle = Estimate((low + high) / 2, low, high, 3)
    mirrored = {"holds": "fails", "fails": "holds", "inconclusive": "inconclusive"}
    expected = "holds" if low > 0 else "fails" if high < 0 else "inconclusive"
    assert above("x", lambda: middle, 0).verdict == expected
    assert below("x", lambda: middle, 0).verdict == mirrored[expected]


def test_a_claim_is_as_strong_as_its_weakest_check():
    good, open_, bad = (
        above("x", lambda found=found: found, 0)
        for found in (Estimate(1, 0.5, 2, 3), Estimate(1, -1, 2, 3), Estimate(-1, -2, -0.5, 3))
    )
    assert verdict_of([good, good]) == "holds"
    assert verdict_of([good, open_]) == "inconclusive"
    assert verdict_of([open_, bad, good]) == "fails"
    assert headline([good, open_, bad]) is bad
    assert headline([good, open_]) is open_


def test_tables_are_typed(judged):
    for frame in judged:
        assert (frame[["measured", "low", "high"]].dtypes == "float64").all()
        assert pd.api.types.is_integer_dtype(frame["cells"])


def test_a_crossover_without_a_theory_is_not_judged(truth):
    """Exponents that theory does not speak of, or two kinds of them, make no band to be met."""
    tables = truth["claim_richness"]
    cells = tables.cells.copy()
    table = json.loads(cells["exponents"].iloc[0])
    other = json.loads(cells["exponents"].iloc[0])
    other["a"]["output"] += 0.25  # features change more with width
    del table["c"]["sgd"]
    cells.loc[cells["seed"] == 0, "exponents"] = json.dumps(other)
    for changed in (cells, cells.assign(exponents=json.dumps(table))):
        found = _verdicts(truth | {"claim_richness": Tables(changed, tables.trace, tables.layers)}, "C17")
        assert found[0].loc["C17", "verdict"] == "inconclusive"
        assert "theory gives these exponents no crossover" in found[1]["note"].iloc[-1]
