"""Cells at each measured step: against the same cells trained for so many steps, and tables by hand."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from cells import make_cell
from stores import write_cells
from synthetic import THRESHOLDS, frames, grid

import runner
from runner import cli
from runner.analysis.phase import Axes, phase_grid
from runner.analysis.regime import JUDGED as FLAGGED
from runner.analysis.regime import classify
from runner.analysis.steps import at_steps, with_derived
from runner.errors import UserError
from runner.training.train import train_pack

STEPS = (1, 2, 4, 8, 16, 32)
MEASURES = ("ntk_change", "feature_movement")
KEYS = ["gamma", "lr", "seed"]
JUDGED = ["train_loss", "test_loss", *MEASURES]


def trained(steps, measured, stop):
    """Cells as `runner sweep` leaves them, and their trace: some diverge, some stop, some hardly train."""
    functions = {name: {"_target_": f"runner.measures.{name}"} for name in MEASURES}
    changes = {"steps": steps, "measure": {"steps": measured, "functions": functions}}
    changes |= {"stop": {"train_loss": 0.3}} if stop else {}
    cells = [
        make_cell(width=32, lr=lr, seed=seed, gamma=gamma, **changes)
        for gamma in (0.1, 3.0) for lr in (0.01, 0.3, 1.0, 6.0, 40.0) for seed in (0, 1)
    ]  # fmt: skip
    made = train_pack(cells, torch.device("cpu"))
    rows = [cell.row() | row for cell, row in zip(cells, made.cells, strict=True)]
    known = {key: None for row in rows for key in row} | dict.fromkeys(("stopped_step", "diverged_step"))
    found = pd.DataFrame(rows, columns=[*known]).assign(cell_id=[cell.cell_id for cell in cells])
    found[[*FLAGGED]] = classify(found, THRESHOLDS)
    return found, pd.DataFrame(made.trace)


@pytest.mark.parametrize("stop", [False, True], ids=["free", "stop"])
def test_a_cell_at_a_step_is_the_cell_that_ended_there(stop):
    """The regime, the status and every measure of cells that train, stay, stop and diverge."""
    whole, trace = trained(STEPS[-1], [*STEPS], stop)
    found = at_steps(whole, trace, THRESHOLDS)
    seen = set()
    for steps in STEPS:
        ended = trained(steps, [], stop)[0].sort_values(KEYS)
        at = max(step for step in found["step"] if step <= steps)  # later ones have nobody who still trains
        mine = found[found["step"] == at].sort_values(KEYS)
        assert len(mine) == 20
        assert mine["regime"].tolist() == ended["regime"].tolist()
        assert mine["status"].tolist() == ended["status"].tolist()
        # Packs that other cells have left may round otherwise.
        np.testing.assert_allclose(mine[JUDGED].to_numpy(float), ended[JUDGED].to_numpy(float), rtol=1e-9)
        seen |= {*mine["regime"]}
    assert seen == {"lazy", "crossover", "rich", "untrained", "diverged"}
    last = found[found["step"] == found["step"].max()].sort_values(KEYS)
    assert last["catapult"].tolist() == whole.sort_values(KEYS)["catapult"].tolist()


def table(rows, **columns):
    """Cells and their trace: {(gamma, seed): {step: (train_loss, ntk_change, feature_movement)}}."""
    cells = frames([one for gamma, seed in rows for one in grid(gamma=gamma, seed=seed, steps=64)])[0]
    cells = cells.assign(initial_train_loss=1.0, status="ok", **columns)
    trace = [
        {"cell_id": name, "step": step, "train_loss": loss, "ntk_change": change, "feature_movement": moved}
        for name, steps in zip(cells["cell_id"], rows.values(), strict=True)
        for step, (loss, change, moved) in steps.items()
    ]
    return cells, pd.DataFrame(trace).astype(dict.fromkeys(("train_loss", "ntk_change"), "float64"))


INIT = (1.0, 0.0, 0.0)
LIFE = {0: INIT, 1: (0.95, 0.3, 0.0), 4: (0.5, 0.05, 0.01), 16: (0.2, 0.2, 0.01), 64: (0.1, 0.8, 0.1)}
"""Untrained, lazy, crossover, rich."""


def regimes(found):
    return dict(zip(found["step"], found["regime"], strict=True))


def test_each_step_by_hand():
    cells, trace = table({(1.0, 0): LIFE})
    found = at_steps(cells, trace, THRESHOLDS)
    assert regimes(found) == {1: "untrained", 4: "lazy", 16: "crossover", 64: "rich"}
    assert found["train_loss"].tolist() == [0.95, 0.5, 0.2, 0.1]
    assert found["catapult"].isna().tolist() == [False, True, True, False]
    strict = at_steps(cells, trace, THRESHOLDS | {"lazy": 0.01, "rich": 0.04})
    assert regimes(strict) == {1: "untrained", 4: "rich", 16: "rich", 64: "rich"}


def test_who_stopped_stays_who_diverged_is_gone_who_failed_never_was():
    stopped = {0: INIT, 1: (0.5, 0.01, 0.01), 3: (0.1, 0.02, 0.02)}
    diverged = {0: INIT, 1: (0.5, 0.01, 0.01)}
    cells, trace = table({(1.0, 0): LIFE, (2.0, 0): stopped, (3.0, 0): diverged, (4.0, 0): {}})
    cells["stopped_step"] = pd.array([None, 3, None, None], dtype="Int64")
    cells["diverged_step"] = pd.array([None, None, 10, None], dtype="Int64")
    cells["status"] = ["ok", "ok", "diverged", "failed"]
    found = dict(iter(at_steps(cells, trace, THRESHOLDS).groupby("gamma")))
    # Step 3 is no step of the others, which were not measured then.
    assert regimes(found[2.0]) == {1: "lazy", 4: "lazy", 16: "lazy", 64: "lazy"}
    assert found[2.0]["train_loss"].tolist() == [0.5, 0.1, 0.1, 0.1]
    # Between 1 and 10 nothing is known of the third at 4: it was not measured, and had not diverged.
    assert regimes(found[3.0]) == {1: "lazy", 16: "diverged", 64: "diverged"}
    assert found[3.0]["status"].tolist() == ["ok", "diverged", "diverged"]
    assert found[3.0]["train_loss"].isna().tolist() == [False, True, True]
    assert regimes(found[4.0]) == {1: None, 4: None, 16: None, 64: None}
    assert set(found[4.0]["status"]) == {"failed"}


def test_the_last_step_is_shown_where_all_stop_or_diverge():
    early, late = ({0: INIT, 1: (0.5, 0.01, 0.01), end: (0.1, 0.8, 0.02)} for end in (5, 7))
    cells, trace = table({(1.0, 0): early, (2.0, 0): late})
    cells["stopped_step"] = pd.array([5, 7], dtype="Int64")
    found = at_steps(cells, trace, THRESHOLDS)
    assert regimes(found[found["gamma"] == 1.0]) == {1: "lazy", 7: "rich"}
    assert regimes(found[found["gamma"] == 2.0]) == {1: "lazy", 7: "rich"}
    cells, trace = table({(1.0, 0): {0: INIT}})
    cells["status"], cells["diverged_step"] = "diverged", pd.array([3], dtype="Int64")
    assert regimes(at_steps(cells, trace, THRESHOLDS)) == {64: "diverged"}


def test_cells_of_other_schedules_have_their_own_steps():
    cells, trace = table({(1.0, 0): LIFE, (2.0, 0): {0: INIT, 2: LIFE[4], 8: LIFE[64]}})
    cells["steps"] = [64, 8]
    found = at_steps(cells, trace, THRESHOLDS)
    assert found.groupby("gamma")["step"].apply(list).to_dict() == {1.0: [1, 4, 16, 64], 2.0: [2, 8]}


def test_a_measure_that_is_taken_more_rarely_leaves_the_regime_open():
    rare = {
        0: INIT,
        1: (0.95, np.nan, 0.0),
        4: (0.5, np.nan, 0.01),
        16: (0.2, np.nan, 0.7),
        64: (0.1, 0.8, 0.1),
    }
    never = {step: (loss, np.nan, moved) for step, (loss, _, moved) in LIFE.items()}
    cells, trace = table({(1.0, 0): rare, (2.0, 0): never})
    found = at_steps(cells, trace, THRESHOLDS)
    assert regimes(found[found["gamma"] == 1.0]) == {1: "untrained", 4: None, 16: "rich", 64: "rich"}
    assert regimes(found[found["gamma"] == 2.0]) == {1: "untrained", 4: "lazy", 16: "lazy", 64: "crossover"}


def _exits(tmp_path, rows, thresholds=THRESHOLDS, **columns):
    cells, trace = table(rows, **columns)
    store = tmp_path / "exits"
    write_cells(store, grid(gamma=[g for g, _ in rows], seed=0), tables=(cells, *frames(grid())[1:]))
    loaded = runner.load(store)
    vars(loaded)["trace"] = trace
    found = with_derived(loaded, cells, thresholds, ["lazy_exit_step"])
    return (
        found[["lazy_until_step", "lazy_exit_step"]]
        .astype(object)
        .where(lambda x: x.notna(), None)
        .to_numpy()
        .tolist()
    )


def test_the_step_at_which_a_cell_leaves_the_lazy_regime(tmp_path):
    rows = {
        (1.0, 0): LIFE,
        (2.0, 0): {step: LIFE[step] for step in (0, 1, 4)},  # never leaves
        (3.0, 0): {0: INIT, 1: (0.5, 0.9, 0.9)},  # at once
        (4.0, 0): {0: INIT, 2: (0.5, 0.2, 0.2), 8: (0.4, 0.01, 0.01), 64: (0.1, 0.9, 0.9)},  # the first time
        (5.0, 0): {0: INIT, 1: (0.5, np.nan, 0.01), 4: (0.4, 0.9, 0.9)},  # not known at 1
    }
    assert _exits(tmp_path, rows) == [[4, 16], [None, None], [0, 1], [0, 2], [0, 4]]


def test_it_follows_the_thresholds(tmp_path):
    assert _exits(tmp_path, {(1.0, 0): LIFE}, THRESHOLDS | {"lazy": 0.3, "rich": 0.5}) == [[16, 64]]
    assert _exits(tmp_path / "b", {(1.0, 0): LIFE}, THRESHOLDS | {"lazy": 0.01}) == [[1, 4]]


def _power(tmp_path):
    """A store whose cells leave the lazy regime at step 16 / gamma, from 8 / gamma on."""
    gammas = (0.25, 0.5, 1.0, 2.0)
    cells_of = grid(gamma=gammas, seed=(0, 1), steps=128)
    cells, _, layers = frames(cells_of)
    cells = cells.assign(initial_train_loss=1.0, status="ok", regime="rich")
    steps = [0, *(2**power for power in range(8))]
    trace = pd.DataFrame([
        {"cell_id": row.cell_id, "step": step, "train_loss": 0.5 if step else 1.0, "test_loss": 0.1}
        | {"ntk_change": 0.0, "feature_movement": 0.6 if step * row.gamma >= 16 else 0.01}
        for row in cells.itertuples() for step in steps
    ])  # fmt: skip
    store = tmp_path / "power"
    write_cells(store, cells_of, tables=(cells, trace, layers))
    return store


def test_its_slope_is_fitted(tmp_path, capsys):
    store = _power(tmp_path)
    words = ["fit", str(store), "--x", "gamma", "--metric", "lazy_exit_step,lazy_until_step", "--json"]
    assert cli.main(words) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["slope"] for row in rows] == pytest.approx([-1, -1])
    assert [row["cells"] for row in rows] == [8, 8]
    view = runner.load(store).phase(x="gamma", y="width", color="lazy_exit_step")
    assert view.table["value"].tolist() == [64, 32, 16, 8]
    strict = tmp_path / "strict.yaml"
    strict.write_text("{untrained: 0.9, lazy: 0.005, rich: 0.5, catapult: 1.05}")
    assert cli.main([*words, "--regime", str(strict)]) == 0
    assert [row["slope"] for row in json.loads(capsys.readouterr().out)["rows"]] == [0, None]


def test_numbers_and_slopes_over_the_step(tmp_path):
    store = runner.load(_power(tmp_path))
    found = store.phase(x="gamma", y="step", color="feature_movement").table
    assert found["value"].tolist() == [
        0.6 if step * gamma >= 16 else 0.01 for gamma, step in zip(found["gamma"], found["step"], strict=True)
    ]
    slopes = store.phase(x="width", y="step", color="slope:train_loss:gamma").table
    assert slopes["slope"].tolist() == pytest.approx([0] * 8)
    slopes = store.phase(x="width", y="step", color="slope:feature_movement:gamma").table.set_index("step")
    assert slopes.loc[[1, 128], "slope"].tolist() == pytest.approx([0, 0])
    # At step 16 the two largest of four gammas are at 0.6: the slope of a step in the middle.
    places = np.log([0.25, 0.5, 1, 2])
    assert slopes.loc[16, "slope"] == pytest.approx(np.polyfit(places, np.log([0.01, 0.01, 0.6, 0.6]), 1)[0])


def test_the_diagram_in_all_forms(tmp_path, capsys):
    store = _power(tmp_path)
    words = ["phase", str(store), "--x", "gamma", "--y", "step"]
    assert cli.main([*words, "--out", str(tmp_path / "fig.svg")]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["128", "R", "R", "R", "R"] in rows
    assert ["16", "L", "L", "R", "R"] in rows
    caption = (tmp_path / "fig.caption.txt").read_text()
    assert "Regime over gamma and step" in caption
    assert "8 cells, 2 seeds" in caption
    assert "shown as if it had ended there" in caption
    assert cli.main([*words, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert {row["step"] for row in said["rows"]} == {2**power for power in range(8)}
    assert cli.main(["phase", str(store), "--x", "gamma", "--y", "width", "--facet", "step", "--csv"]) == 0
    assert capsys.readouterr().out.startswith("step,gamma,width,regime")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            {"at": "train_loss=0.7"},
            "--at must be left out where the step is an axis or facet, got train_loss=0.7",
        ),
        ({"color": "best_test_loss"}, "--color over the step must be one of .*, got 'best_test_loss'"),
        ({"color": "lazy_exit_step"}, "--color over the step must be one of .*, got 'lazy_exit_step'"),
        (
            {"color": "slope:best_test_loss:gamma", "x": "width"},
            "the METRIC of --color slope over the step must",
        ),
        ({"x": "width"}, r"gamma varies \(0.25, 0.5, 1, 2\)"),
    ],
)
def test_what_has_no_meaning_over_the_step(tmp_path, words, message):
    with pytest.raises(UserError, match=f"^{message}"):
        runner.load(_power(tmp_path)).phase(**{"x": "gamma", "y": "step"} | words)


def test_the_step_is_a_key_of_the_grid():
    cells, trace = table({(1.0, 0): LIFE, (1.0, 1): LIFE})
    found = phase_grid(at_steps(cells, trace, THRESHOLDS), Axes("gamma", "step"))
    assert found["seeds"].tolist() == [2] * 4
