"""What intervals decide: a slope beside theory's, whether a rate stays put; and which tables are one."""

import json

import pytest

from runner.analysis.agreement import beside_theory, one_curve, rivals_of, same_networks, stays_put
from runner.analysis.theory import predicted_edge, predicted_slope
from runner.analysis.trend import trend
from runner.grid.config import load_exponents


def row(slope, low, high, theory):
    return {"slope": slope, "low": low, "high": high, "theory": theory}


@pytest.mark.parametrize(
    ("slope", "verdict"),
    [
        (row(-0.5, -0.6, -0.4, -0.5), "agrees"),
        (row(-0.41, -0.44, -0.2, -0.5), "within 0.1"),  # as near as finite widths are
        (row(-0.3, -0.42, -0.2, -0.5), "disagrees"),  # its end comes near, it does not
        (row(-0.45, -0.49, -0.41, -0.5), "within 0.1"),
        (row(-0.45, -0.497, -0.41, -0.5), "agrees"),  # -0.50 in print
        (row(-0.3, -0.39, -0.2, -0.5), "disagrees"),
        (row(-0.3, -0.7, 0.1, -0.5), "cannot tell"),  # zero is in it, too
        (row(-0.3, -1.0, 0.3, -0.5), "cannot tell"),
        (row(-0.5, None, None, -0.5), "cannot tell"),
        (row(-0.5, -0.6, -0.4, None), None),
        (row(None, None, None, -0.5), None),
    ],
)
def test_an_interval_decides_beside_theory(slope, verdict):
    assert beside_theory(slope, (0.0,)).verdict == verdict


def test_a_doubt_decides_only_what_is_not_near():
    assert beside_theory(row(-0.45, -0.47, -0.43, -0.5), (0.0,), "bent").verdict == "within 0.1"
    assert beside_theory(row(-0.3, -0.35, -0.25, -0.5), (0.0,), "bent") == ("cannot tell", "bent")


def test_a_disagreement_says_what_is_nearest():
    because = "off by 0.2, no other regime nearer"
    assert beside_theory(row(-0.3, -0.35, -0.25, -0.5), (0.0,)).because == because
    assert beside_theory(row(-0.1, -0.15, -0.05, -0.5), (0.0,)).because == "off by 0.4, nearer to 0"


def network(name, **keys):
    return {
        "exponents": load_exponents(name), "depth": 2, "optimizer": "sgd", "lr_unit": "absolute",
        "loss": "mse", "model.activation": "tanh", **keys,
    }  # fmt: skip


def test_rivals_are_what_other_regimes_have():
    def rivals(name, metric, role=None):
        found = predicted_slope(metric, role, network(name))
        return rivals_of(found, network(name), lambda cell: predicted_slope(metric, role, cell))

    assert rivals("ntk", "ntk_change") == (0.0,)
    assert rivals("mup", "ntk_change") == (-1.0,)
    assert rivals("mup", "movement_frobenius", "hidden") == (-1.0, 0.0)
    assert rivals("sp", "lambda_max_init") == (0.0,)
    assert rivals_of(0.0, network("mup"), lambda cell: predicted_edge(cell, "width")) == (-1.0,)
    assert rivals_of(0.0, network("mup"), lambda cell: None) == (-0.5, 0.5)
    assert rivals_of(None, network("mup"), lambda cell: None) == ()


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (-0.2, 0.2, "yes"),
        (0.1, 0.3, "cannot tell"),
        (-0.3, 0.3, "cannot tell"),
        (0.3, 0.5, "no"),
        (-1.1, -0.9, "no"),
    ],
)
def test_a_rate_stays_put_within_a_factor_of_two_over_the_range(low, high, verdict):
    drift = {"drift": (low + high) / 2, "drift_low": low, "drift_high": high}
    assert stays_put(drift, 4).verdict == verdict
    assert stays_put(drift | {"drift_low": None}, 4).because == "no interval"
    assert stays_put(drift | {"drift": float("nan")}, 4).because == "fewer than three values"


@pytest.mark.parametrize(
    ("low", "high", "noise", "loose", "verdict"),
    [
        (0.4, 0.6, 0.1, False, "yes"),
        (0.4, 0.6, 0.1, True, "no"),
        (-1.0, 2.0, 0.1, False, "cannot tell"),
        (None, None, None, False, "cannot tell"),
    ],
)
def test_curves_are_one_where_their_exponent_is_known(low, high, noise, loose, verdict):
    found = {"exponent": 0.5, "low": low, "high": high, "noise": noise}
    assert one_curve(found, loose).verdict == verdict


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
def test_mup_and_mean_field_are_the_same_networks(optimizer):
    names = ("mean_field", "mup", "ntk", "sp")
    cells = [network(name, parameterization=name, optimizer=optimizer) for name in names]
    assert same_networks(cells) == [("mean_field", "mup")]


@pytest.mark.parametrize("shift", [0.25, -1.0])
def test_a_shift_of_a_layer_is_seen_and_another_is_not(shift):
    table = json.loads(load_exponents("ntk"))
    table["a"]["hidden"] += shift
    table["b"]["hidden"] -= shift
    table["c"]["sgd"]["hidden"] -= 2 * shift
    own = network("ntk", parameterization="ntk")
    shifted = own | {"parameterization": "own", "exponents": json.dumps(table)}
    assert same_networks([own, shifted]) == [("ntk", "own")]
    table["c"]["sgd"]["hidden"] += 0.5
    assert same_networks([own, shifted | {"exponents": json.dumps(table)}]) == []


@pytest.mark.parametrize(
    ("slope", "low", "high", "word"),
    [
        (-0.4, -0.45, -0.36, "falls"),
        (0.09, 0.04, 0.15, "stays"),
        (0.05, -0.08, 0.3, "stays"),
        (0.64, 0.58, 0.71, "rises"),
        (-0.4, -0.9, 0.1, "cannot tell"),
        (-0.05, -0.3, 0.2, "cannot tell"),
        (0.3, -0.1, 0.7, "cannot tell"),
    ],
)
def test_a_trend_is_told_by_the_interval(slope, low, high, word):
    row = {"slope": slope, "low": low, "high": high, "verdict": None, "because": None}
    assert trend(row).verdict == word
    assert trend(row | {"verdict": "cannot tell", "because": "why"}) == ("cannot tell", "why")
    assert trend(row | {"residual": 1.0, "noise": 0.1}).because == "no straight line describes the points"
    assert trend(row | {"low": None}).because == "no interval"
    assert trend(row | {"slope": float("nan")}).verdict == "cannot tell"
