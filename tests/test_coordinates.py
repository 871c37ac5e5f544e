"""Verdicts of the coordinate check on tables whose slopes are known, and what a planted fault looks like."""

import numpy as np
import pandas as pd
import pytest

from runner.analysis.coordinates import BOUND, COLUMNS, PARTS, judge
from runner.analysis.coordinates.signature import signature
from runner.analysis.coordinates.slopes import part_slopes
from runner.scaling.derivation import Network, derive

WIDTHS = (64, 128, 256, 512, 1024)
MLP = (("first", "input"), ("second", "hidden"), ("third", "hidden"), ("head", "output"))
BLOCK = (
    ("embed", "input"), ("attn.q_proj", "hidden"), ("attn.k_proj", "hidden"), ("attn.v_proj", "hidden"),
    ("attn.logits", None), ("attn.o_proj", "hidden"), ("norm", "vector"), ("head", "output"),
)  # fmt: skip


def world(layers, own, passed=None, size=None, noise=0.05, seeds=3, steps=(1, 2, 3), widths=WIDTHS):
    """Points whose parts are powers of the width, with a factor per seed that narrows as width grows.

    ``own`` and the others: a slope of all layers, or per layer; None is not measured, ``zero`` no change.
    """
    rng = np.random.default_rng(0)
    rows = []
    for place, (layer, role) in enumerate(layers):
        for width in widths:
            for seed in range(seeds):
                factor = np.exp(noise * np.sqrt(64 / width) * rng.standard_normal(3))
                for step in steps:
                    row = {"layer_index": place, "layer": layer, "role": role, "size": width}
                    row |= {"seed": seed, "step": step}
                    for part, slopes, by in zip(PARTS, (own, passed, size), factor, strict=True):
                        slope = slopes.get(layer, 0.0) if isinstance(slopes, dict) else slopes
                        row[part] = (
                            np.nan if slope is None
                            else 0.0 if slope == "zero"
                            else 0.1 * step * by * (width / 64) ** slope
                        )  # fmt: skip
                    rows.append(row)
    return pd.DataFrame(rows).reindex(columns=[*COLUMNS])


def fault(layers, adam, scale=None, rate=None, more=None):
    """The points that a fault gives by theory: s, u and what lies between, by layer."""
    names = [layer for layer, role in layers if not layer.endswith(".logits")]
    arrays = [np.array([(given or {}).get(name, 0.0) for name in names]) for given in (scale, rate, more)]
    own, passed = signature(*arrays, adam=adam)
    passes = {name: "zero" if np.isnan(slope) else slope for name, slope in zip(names, passed, strict=True)}
    return world(layers, dict(zip(names, own, strict=True)), passes)


# -- slopes --------------------------------------------------------------------------------------------


def test_a_slope_is_the_weighted_least_squares_line():
    points = world(MLP[:1], 0.3, noise=0.4)
    row = part_slopes(points).iloc[0]
    at = points[points["step"] == 1]
    logs = np.log(at["update_own"].to_numpy())
    design = np.stack([np.ones(len(at)), np.log(at["size"])], 1)
    weights = np.diag(at["size"].to_numpy(float))
    expected = np.linalg.solve(design.T @ weights @ design, design.T @ weights @ logs)[1]
    assert row["slope"] == pytest.approx(expected, rel=1e-10)
    assert row["low"] < row["slope"] < row["high"]


def test_corrections_of_small_widths_count_less():
    """A correction that halves with the width: the last widths are nearer to the limit."""
    points = world(MLP[:1], 0.0, noise=0.0)
    points["update_own"] *= 1 + 32 / points["size"]
    late = part_slopes(points).iloc[0]["slope"]
    logs, widths = np.log(points["update_own"]), np.log(points["size"])
    assert abs(late) < 0.8 * abs(np.polyfit(widths, logs, 1)[0])


def test_intervals_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(60):
        points = world(MLP[:1], 0.0, noise=0.0, steps=(1,))
        points["update_own"] *= np.exp(0.2 * np.sqrt(64 / points["size"]) * rng.standard_normal(len(points)))
        row = part_slopes(points).iloc[0]
        held += row["low"] <= 0 <= row["high"]
    assert held / 60 >= 0.85


def test_the_first_moment_is_the_first_change():
    """Below a readout that starts at zero nothing changes in the first step."""
    points = world(MLP, 0.0)
    points.loc[(points["step"] == 1) & (points["layer"] != "head"), "update_own"] = 0.0
    own = part_slopes(points).query("part == 'update_own'").set_index(["layer", "moment"])["step"]
    assert own["first", "first"] == 2
    assert own["head", "first"] == 1
    assert own["first", "last"] == own["head", "last"] == 3


# -- verdicts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("adam", [False, True, None])
def test_the_same_change_at_any_width_passes(adam):
    found = judge(world(MLP, 0.0, {"first": "zero"}, 0.0), adam)
    assert found.verdict == "pass"
    assert set(found.layers["verdict"]) == {"pass"}
    assert found.blame is None


@pytest.mark.parametrize(
    ("parts", "verdict"),
    [
        ({"own": {"second": -0.5}}, "fail"),
        ({"own": {"second": 0.5}}, "fail"),
        ({"own": {"second": 0.15}}, "pass"),
        ({"own": 0.0, "passed": {"second": 0.5}}, "fail"),
        ({"own": 0.0, "passed": {"second": -0.5}}, "pass"),
        ({"own": 0.0, "passed": "zero", "size": {"second": -0.5}}, "fail"),
        ({"own": {"second": None}, "passed": {"second": None}}, "pass"),
    ],
)
def test_which_slopes_pass(parts, verdict):
    found = judge(world(MLP, **parts), False)
    assert found.verdict == verdict
    if verdict == "fail":
        assert list(found.layers.query("verdict == 'fail'")["layer"]) == ["second"]
        assert found.blame.layer == "second"


def test_an_interval_that_is_too_wide_says_how_many_seeds_more():
    points = world(MLP[:1], 0.0, noise=3.0)
    few = judge(points, False)
    assert few.verdict == "inconclusive"
    note = few.layers["note"].iloc[0]
    assert note.endswith("seeds more")
    more = int(note.split()[0])
    assert 1 <= more <= 100
    assert judge(world(MLP[:1], 0.0, noise=3.0, seeds=3 + 2 * more), False).verdict == "pass"


def test_two_widths_carry_no_verdict():
    assert judge(world(MLP, 0.0, widths=(64, 128)), False).verdict == "inconclusive"


def test_a_layer_that_does_not_change_is_not_judged():
    found = judge(world(MLP, {"second": "zero"}), False)
    assert found.verdict == "pass"
    assert dict(zip(found.layers["layer"], found.layers["verdict"], strict=True))["second"] == "still"
    assert judge(world(MLP, "zero", "zero", "zero"), False).verdict == "inconclusive"


def test_divergence_of_wide_networks_fails_and_that_of_all_does_not_tell():
    points = world(MLP, 0.0)
    wide = judge(points[(points["step"] < 2) | (points["size"] < 512)], False)
    assert wide.verdict == "fail"
    assert "width 512, 1024" in wide.note
    all_of_them = judge(points[points["step"] < 2], False, steps=3)
    assert all_of_them.verdict == "inconclusive"
    assert "smaller learning rate" in all_of_them.note


def test_queries_and_keys_may_start_slowly_under_sgd_alone():
    slow = {"attn.q_proj": -0.5, "attn.k_proj": -0.5, "attn.logits": None}
    assert judge(world(BLOCK, slow, None, {"attn.logits": -0.5}), False).verdict == "pass"
    assert judge(world(BLOCK, slow, None, {"attn.logits": -0.5}), True).blame.layer == "attn.q_proj"
    value = slow | {"attn.v_proj": -0.5}
    assert judge(world(BLOCK, value), False).blame.layer == "attn.v_proj"


# -- blame ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("adam", [False, True])
@pytest.mark.parametrize("power", [0.5, 1.0])
@pytest.mark.parametrize("layers", [MLP, BLOCK], ids=["mlp", "attention"])
def test_a_readout_without_its_multiplier_is_named(layers, power, adam):
    """Under SGD all layers below it fail, too."""
    found = judge(fault(layers, adam, {"head": power}, {"head": power * (1 if adam else 2)}), adam)
    assert (found.blame.layer, found.blame.kind, found.blame.power) == ("head", "multiplier", power)
    assert "readout without its 1/width multiplier" in found.blame.words
    assert (found.layers["verdict"].iloc[0] == "fail") != adam


@pytest.mark.parametrize("adam", [False, True])
@pytest.mark.parametrize("power", [-1.0, -0.5, 0.5, 1.0])
@pytest.mark.parametrize("layer", [layer for layer, role in MLP])
def test_a_learning_rate_of_the_wrong_power_is_named(layer, power, adam):
    found = judge(fault(MLP, adam, rate={layer: power}), adam)
    assert found.blame.layer == layer
    assert found.blame.power == power
    assert ("grows" if power > 0 else "shrinks") in found.blame.words


def test_an_unknown_optimizer_is_told_by_what_fits():
    points = fault(MLP, False, {"head": 0.5}, {"head": 1.0})
    assert judge(points, None).blame.layer == "head"
    assert judge(fault(MLP, True, rate={"second": 1.0}), None).blame.layer == "second"


def test_a_weight_that_is_too_large_at_init_is_named():
    found = judge(fault(MLP, True, {"third": 0.5}), True)
    assert (found.blame.layer, found.blame.kind) == ("third", "init")
    assert "W_0 is too large" in found.blame.words


def test_logits_that_grow_are_named():
    found = judge(world(BLOCK, {"attn.logits": None}, None, {"attn.logits": 0.5}), True)
    assert (found.blame.layer, found.blame.kind) == ("attn.logits", "logits")
    assert "1/sqrt(d_head)" in found.blame.words


@pytest.mark.parametrize(
    ("slope", "words"), [(0.5, "grow as n^+0.5: 1/sqrt(d_head)"), (0.0, None), (-1.0, "shrink as n^-1")]
)
def test_the_bound_of_logits_tells_what_their_early_change_does_not(slope, words):
    """Few steps at a small learning rate: what has aligned is still less than what is random."""
    points = world(BLOCK, {"attn.logits": None}, None, {"attn.logits": -0.4})
    logits = points["layer"] == "attn.logits"
    noise = points["update_size"] * points["size"] ** 0.4 / points["step"]
    points.loc[logits, BOUND] = noise * points["size"] ** slope
    found = judge(points, True)
    if words is None:
        assert found.verdict == "pass"
        return
    assert (found.blame.layer, found.blame.kind) == ("attn.logits", "logits")
    assert words in found.blame.words


def test_all_hidden_layers_are_named_together():
    found = judge(fault(BLOCK, True, rate={name: 1.0 for name, role in BLOCK if role == "hidden"}), True)
    assert found.blame.layer == "attn.q_proj"
    assert len(found.blame.layers) == 4
    assert "all hidden layers" in found.blame.words


@pytest.mark.parametrize("adam", [False, True])
def test_a_lazy_network_is_called_lazy(adam):
    own = dict.fromkeys(("first", "second", "third"), -0.5)
    found = judge(world(MLP, own, {"first": "zero", "second": -0.5, "third": -0.5}), adam)
    assert found.blame.kind == "table"
    assert "lazy" in found.blame.words


def test_the_standard_parameterization_is_recognised():
    """Of its first step under SGD, by hand: see the table of exponents."""
    own = {"first": -0.5, "second": 0.5, "third": 0.5, "head": 1.0}
    found = judge(world(MLP, own, {"first": "zero", "second": -0.5, "third": 0.5, "head": 1.0}), False)
    assert found.blame.kind == "table"
    assert "unstable" in found.blame.words


@pytest.mark.parametrize("adam", [False, True])
def test_signatures_are_those_of_the_derivation(adam):
    """Of theory's sizes after a step so small that changes do not change each other."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        scale, rate = (rng.integers(-1, 2, 4) / 2 for _ in range(2))
        # Of mup: a + b and c + 2a under SGD, c + a under Adam.
        usual = (
            np.array([0.0, 0.5, 0.5, 1.0]),
            np.array([0.0, 1.0, 1.0, 1.0] if adam else [-1.0, 0.0, 0.0, 1.0]),
        )
        net = Network(
            tuple(usual[0] - scale), tuple(usual[1] - rate), (0.0,) * 4, (0.0,) * 4, adam, homogeneous=True
        )
        small = -40.0
        parts = np.array(derive(net, lr=small).parts) - small
        own, passed = signature(scale, rate, adam=adam)
        assert parts[:, 0] == pytest.approx(own, abs=1e-9)
        assert parts[1:, 1] == pytest.approx(passed[1:], abs=1e-9)
