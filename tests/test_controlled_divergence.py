"""Controlled divergence: logits and margins against loops, its flag by hand and on real cells, its edges."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from cells import DIGITS, make_cell
from stores import write_cells
from sweeping import TINY
from synthetic import frames, grid
from torch import Tensor

import runner
from runner.analysis.boundary.properties import property_of, required_columns
from runner.analysis.boundary.scaling import predicted
from runner.analysis.phase import Axes, phase_grid
from runner.analysis.regime import classify, regime_texts
from runner.analysis.steps import at_steps
from runner.cli import main
from runner.commands import sweep
from runner.data import load
from runner.grid.config import load_thresholds
from runner.numerics.losses import margins, wrong_margin
from runner.training.train import train_pack

CPU = torch.device("cpu")
DEFAULT = load_thresholds("default")
KEPT = {
    "points": 5,
    "functions": {
        "feature_movement": {"_target_": "runner.measures.feature_movement"},
        "predictions": {"_target_": "runner.measures.predictions", "splits": ["train"]},
    },
}


def margins_by_loops(f, label):
    """Output of the class minus the largest of the others, for rows of outputs and their classes."""
    return [
        row[right] - max(value for k, value in enumerate(row) if k != right)
        for row, right in zip(f.tolist(), label, strict=True)
    ]


def mean_of_wrong(found):
    wrong = [value for value in found if value < 0]
    return sum(wrong) / len(wrong) if wrong else 0.0


def draw(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_margins_equal_the_loops():
    f, scores = draw(2, 6, 4), draw(1, 6, 4).flip(1)
    expected = [margins_by_loops(cell, scores[0].argmax(1).tolist()) for cell in f]
    torch.testing.assert_close(margins(f, scores), Tensor(expected).double(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(
        wrong_margin(margins(f, scores)), torch.tensor([mean_of_wrong(row) for row in expected]).double()
    )


def test_of_one_output_the_margin_is_y_f():
    f, y = draw(2, 5, 1), torch.tensor([1.0, -1, 1, 1, -1], dtype=torch.float64)[None, :, None]
    torch.testing.assert_close(margins(f, y), (f * y)[:, :, 0])


def test_every_position_of_a_text_counts_as_a_sample():
    f, symbols = draw(1, 3, 2 * 4), torch.tensor([[[0, 3], [1, 1], [2, 0]]])
    expected = margins_by_loops(f.view(6, 4), symbols.flatten().tolist())
    torch.testing.assert_close(margins(f, symbols)[0], torch.tensor(expected, dtype=torch.float64))


def test_no_misclassified_sample_has_a_margin_of_zero():
    assert wrong_margin(torch.tensor([[1.0, 0.0, 2.0]])).tolist() == [0.0]


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize("binary", [None, "parity"])
def test_columns_are_those_of_the_outputs_that_were_kept(loss, binary):
    """Of every measured step, from the table of outputs; the extremes in `cells` are those of the trace."""
    settings = DIGITS | ({"binary": binary} if binary else {})
    cell = make_cell(data=settings, loss=loss, measure=KEPT, lr=2.0, parameterization="sp")
    made = train_pack([cell], CPU)
    trace, kept = pd.DataFrame(made.trace).set_index("step"), pd.DataFrame(made.outputs)
    targets = load(settings).train.targets
    for step, part in kept.groupby("step"):
        f = part.pivot(index="sample", columns="output", values="value").to_numpy()
        if binary:
            found = [float(value * y) for value, y in zip(f[:, 0], targets[:, 0].tolist(), strict=True)]
        else:
            found = margins_by_loops(f, targets.argmax(1).tolist())
        assert trace["max_logit"][step] == pytest.approx(max(abs(value) for value in f.flatten()), abs=1e-12)
        assert trace["margin"][step] == pytest.approx(min(found), abs=1e-12)
        assert trace["wrong_margin"][step] == pytest.approx(mean_of_wrong(found), abs=1e-12)
    row = made.cells[0]
    assert row["peak_logit"] == trace["max_logit"].max()
    assert row["worst_wrong_margin"] == trace["wrong_margin"].min()
    assert row["peak_feature_movement"] == trace["feature_movement"].max()
    assert row["max_logit"] == trace["max_logit"].iloc[-1]


def test_regression_has_outputs_and_no_margin():
    made = train_pack([make_cell()], CPU)
    assert made.cells[0]["max_logit"] > 0
    assert "margin" not in made.cells[0]


# -- the flag --------------------------------------------------------------------------------------------

SATURATED = {
    "status": "ok", "loss": "cross_entropy", "train_loss": 0.1, "initial_train_loss": 2.3, "ntk_change": 2.0,
    "feature_movement": 1.0, "peak_loss_ratio": 9.0, "worst_wrong_margin": -30.0, "wrong_margin": -0.5,
    "peak_feature_movement": 2.0,
}  # fmt: skip
CASES = {
    "trained after logits had saturated": ({}, "rich", True),
    "still saturated": ({"train_loss": 8.0, "wrong_margin": -20.0}, "untrained", True),
    "units died": ({"train_loss": 3.0, "wrong_margin": -2.0}, "untrained", False),
    "logits of order one": ({"worst_wrong_margin": -3.0}, "rich", False),
    "at the threshold": ({"worst_wrong_margin": -16.0}, "rich", True),
    "features blew up": ({"peak_feature_movement": 40.0}, "rich", False),
    "mse": ({"loss": "mse"}, "rich", False),
    "diverged": ({"status": "diverged", "train_loss": None}, "diverged", False),
    "failed": ({"status": "failed", "train_loss": None}, None, None),
    "margins not measured": ({"worst_wrong_margin": None}, "rich", None),
    "features not measured": ({"peak_feature_movement": None}, "rich", None),
    "features not measured, logits of order one": (
        {"peak_feature_movement": None, "worst_wrong_margin": -3.0}, "rich", False
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_each_rule(case):
    changes, regime, flag = CASES[case]
    found = classify(pd.DataFrame([SATURATED | changes]), DEFAULT)
    assert found["regime"].tolist() == [regime]
    value = found["controlled_divergence"][0]
    assert value is pd.NA if flag is None else bool(value) is flag


def test_a_store_from_before_says_nothing():
    old = pd.DataFrame([SATURATED]).drop(columns=["worst_wrong_margin", "wrong_margin"])
    assert classify(old, DEFAULT)["controlled_divergence"].isna().all()


def test_thresholds_of_ones_own_may_lack_the_later_ones():
    older = {name: DEFAULT[name] for name in ("untrained", "lazy", "rich", "catapult")}
    cells = pd.DataFrame([SATURATED, SATURATED | {"worst_wrong_margin": -15.0}])
    assert classify(cells, older)["controlled_divergence"].tolist() == [True, False]
    assert classify(cells, older | {"saturated": 10})["controlled_divergence"].tolist() == [True, True]
    assert regime_texts(older) == regime_texts(DEFAULT)


def test_the_softmax_is_saturated_at_what_float32_resolves():
    assert -math.log(np.finfo(np.float32).eps) == pytest.approx(DEFAULT["saturated"], abs=0.1)


@pytest.fixture(scope="module")
def trained():
    """Wide nets of digits at a rate below, inside and above the regime, under both losses."""
    measure = KEPT | {"functions": {"feature_movement": KEPT["functions"]["feature_movement"]}, "points": 8}
    cells = [
        make_cell(
            data=DIGITS, loss=loss, lr=lr, lr_unit="absolute", width=256, steps=40, parameterization="sp",
            measure=measure, model={"activation": "relu", "normalize_input": True}, center_output=True,
            dtype="float32",
        )
        for lr in (0.005, 1.0, 10.0) for loss in ("mse", "cross_entropy")
    ]  # fmt: skip
    rows, traces = [], []
    for loss in ("mse", "cross_entropy"):
        pack = [cell for cell in cells if cell.loss == loss]
        made = train_pack(pack, CPU)
        rows += [
            cell.row() | {"cell_id": cell.cell_id} | row for cell, row in zip(pack, made.cells, strict=True)
        ]
        traces.append(pd.DataFrame(made.trace))
    found = pd.DataFrame(rows)
    return found.join(classify(found, DEFAULT)), pd.concat(traces, ignore_index=True)


def test_real_cells_are_told_apart(trained):
    """Where the MSE diverges already the cross-entropy trains; far above it diverges, too."""
    cells, _ = trained
    told = cells.pivot(index="lr", columns="loss", values="controlled_divergence")
    status = cells.pivot(index="lr", columns="loss", values="status")
    assert told["cross_entropy"].tolist() == [False, True, False]
    assert told["mse"].tolist() == [False, False, False]
    assert status["cross_entropy"].tolist() == ["ok", "ok", "diverged"]
    assert status["mse"].tolist() == ["ok", "diverged", "diverged"]


def test_each_step_is_judged_by_what_was_met_until_then(trained):
    cells, trace = trained
    steps = at_steps(cells.assign(stopped_step=None), trace, DEFAULT)
    inside = steps[(steps["lr"] == 1.0) & (steps["loss"] == "cross_entropy")].sort_values("step")
    rows = trace[trace["cell_id"] == inside["cell_id"].iloc[0]]
    worst = [rows.loc[rows["step"] <= step, "wrong_margin"].min() for step in inside["step"]]
    last = rows.set_index("step")
    start = cells.set_index("cell_id").loc[inside["cell_id"].iloc[0], "initial_train_loss"]
    expected = [
        low <= -16 and (last["train_loss"][step] <= 0.9 * start or last["wrong_margin"][step] <= -16)
        for step, low in zip(inside["step"], worst, strict=True)
    ]
    assert inside["controlled_divergence"].tolist() == expected
    assert expected[-1]
    above = steps[(steps["lr"] == 10.0)]
    assert not above.loc[above["status"] == "diverged", "controlled_divergence"].any()


# -- edges and pictures ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Logits diverge at 8 / width, training there under MSE and at 8 / sqrt(width) under cross-entropy."""
    planned = grid(
        parameterization=["sp"], width=[64, 256, 1024], lr=list(np.geomspace(1e-3, 10, 25)),
        loss=["mse", "cross_entropy"], seed=[0, 1],
    )  # fmt: skip
    path = tmp_path_factory.mktemp("controlled")
    cells, trace, layers = frames(planned)
    width, lr, loss = cells["width"], cells["lr"], cells["loss"].astype(str)
    logits, edge = 8 / width, (8 / width**0.5).where(loss == "cross_entropy", 8 / width)
    cells["status"] = np.where(lr > edge, "diverged", "ok")
    cells["regime"] = np.where(lr > edge, "diverged", "rich")
    cells["controlled_divergence"] = ((lr > logits) & (lr < edge)).astype("boolean")
    write_cells(path, planned, tables=(cells, trace, layers))
    return runner.load(path)


@pytest.mark.parametrize(
    ("of", "change", "loss", "slope"),
    [
        ("controlled_divergence", "begins", "cross_entropy", -1.0),
        ("controlled_divergence", "ends", "cross_entropy", -0.5),
        ("diverged", "begins", "cross_entropy", -0.5),
        ("diverged", "begins", "mse", -1.0),
        ("trained", "ends", "cross_entropy", -0.5),
        ("trained", "ends", "mse", -1.0),
    ],
)
def test_edges_under_both_losses_stand_beside_theory(store, of, change, loss, slope):
    view = store.boundary(of=of, along="lr", facet="loss")
    laws = view.more["exponents"]
    row = laws[(laws["loss"] == loss) & (laws["change"] == change)].iloc[0]
    assert row["slope"] == pytest.approx(slope, abs=0.1)
    assert row["theory"] == slope
    if of == "controlled_divergence":
        assert not ((laws["loss"] == "mse") & laws["slope"].notna()).any()


def test_theory_of_logits_and_of_the_edge():
    cell = make_cell(parameterization="sp", loss="cross_entropy", lr_unit="absolute").row()
    said = {
        end: predicted(cell, "controlled_divergence", "lr", "width", change=end) for end in ("begins", "ends")
    }
    assert said == {"begins": -1.0, "ends": -0.5}
    assert predicted(cell, "controlled_divergence", "lr_sharpness", "width", change="ends") == 0.5
    assert predicted(cell, "trained", "lr", "width") is None  # where it begins is a matter of steps
    assert required_columns("controlled_divergence") == ("feature_movement",)


def test_trained_is_every_regime_but_two(store):
    cells = store.cells.assign(
        regime=[*["lazy", "crossover", "untrained", None]] + ["rich"] * (len(store.cells) - 4)
    )
    score = property_of(store, cells, "trained").score
    assert score[:4].tolist()[:3] == [1, 1, 0]
    assert np.isnan(score[3])


def test_the_diagram_marks_it_and_says_what_the_mark_is(store, capsys):
    points = phase_grid(store.cells, Axes("width", "lr", ("loss",)))
    flagged = points[points["controlled_divergence"] == 1]
    assert {*flagged["loss"]} == {"cross_entropy"}
    assert main(["phase", str(store.path), "--facet", "loss"]) == 0
    text = capsys.readouterr().out
    assert "R*" in text
    assert "* controlled divergence" in text
    view = store.phase(facet="loss")
    assert "* controlled divergence" in view.caption
    assert "R*" in str(view.chart.to_dict())


def test_a_diagram_without_it_has_no_mark(store, capsys):
    assert main(["phase", str(store.path), "--facet", "none", "--where", "loss=mse"]) == 0
    assert "*" not in capsys.readouterr().out


def test_a_stored_flag_is_the_one_that_is_judged_anew(tmp_path, monkeypatch, capsys):
    """The loss and the optimizer of a cell decide, which its results do not name."""
    monkeypatch.chdir(tmp_path)
    axes = [
        "optimizer=momentum",
        "width=64",
        "lr=0.1,2.5,3.5,5",
        "lr_unit=sharpness",
        "loss=mse,cross_entropy",
    ]
    assert sweep.main([*TINY, *axes, "steps=30", "measure.points=3", "workers=1", "store=out"]) == 0
    cells = runner.load("out").cells
    anew = classify(cells, DEFAULT)
    for flag in ("catapult", "controlled_divergence"):
        assert cells[flag].tolist() == anew[flag].tolist()
    assert not cells["controlled_divergence"].any()
    unaware = classify(cells.drop(columns="settings"), DEFAULT)["catapult"]
    assert unaware.sum() > anew["catapult"].sum()  # at the critical lr of plain descent
