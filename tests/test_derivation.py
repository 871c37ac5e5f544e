"""Exponents derived from an abc table: against the published ones, symmetries, and trained networks."""

import itertools
import json
import math

import numpy as np
import pytest
import yaml
from synthetic import exponents

from runner import cli
from runner.analysis.theory import predicted_crossover, predicted_edge, predicted_slope, r_exponent
from runner.scaling.boundaries import crossover_gamma, stable_lr
from runner.scaling.derivation import Limit, derive, network
from runner.scaling.root import Silent, root

NAMES = ("ntk", "mup", "mean_field", "sp")


def table(name="ntk", **changes):
    """A table, with ``a_output=0.7`` changed."""
    content = json.loads(exponents(name))
    for key, value in changes.items():
        quantity, role = key.split("_")
        content[quantity][role] = value
    return content


def shifted(content, role, shift):
    """The same trajectories: a + t, b - t with c - 2t under SGD, c - t under Adam."""
    content = json.loads(json.dumps(content))
    content["a"][role] += shift
    content["b"][role] -= shift
    content["c"]["sgd"][role] -= 2 * shift
    content["c"]["adam"][role] -= shift
    return content


# T1 to T4 of the claims: lambda_max, kernel, last hidden features, Frobenius movement of the three matrices
TABLE = {
    ("ntk", 2): (0, -1, -0.5, (-0.5, -1, -0.5)),
    ("mup", 2): (0, 0, 0, (0, -0.5, 0)),
    ("mean_field", 2): (0, 0, 0, (0, -0.5, 0)),
    ("sp", 2): (1, -1, -0.5, (-1.5, -1, -0.5)),
    ("sp", 1): (1, -2, -1.5, (-1.5, -0.5)),
    ("ntk", 1): (0, -1, -0.5, (-0.5, -0.5)),
}


@pytest.mark.parametrize("key", TABLE, ids=str)
def test_published_slopes_at_fixed_lr_times_lambda(key):
    sizes = derive(network(table(key[0]), key[1]))
    assert (sizes.lambda_max, sizes.kernel_change, sizes.feature_change[-1], sizes.frobenius) == TABLE[key]


def test_spectral_movement_of_hidden_weights():
    assert derive(network(table("ntk"), 2)).spectral[1] == -0.5
    assert derive(network(table("mup"), 2)).spectral[1] == 0
    assert derive(network(table("mup"), 2)).movement == -0.5  # the trap: falls although features are learned


@pytest.mark.parametrize("depth", [1, 2, 5])
@pytest.mark.parametrize(("name", "hidden"), [("ntk", -0.5), ("mup", 0), ("mean_field", 0)])
def test_first_updates_of_sgd_and_adam(name, hidden, depth):
    for adam in (False, True):
        assert derive(network(table(name), depth, adam=adam), lr=0.0).updates == (*[hidden] * depth, 0)


def test_standard_parameterization_has_no_stable_limit():
    assert derive(network(table("sp"), 2), lr=0.0).updates[-1] > 0
    assert stable_lr(network(table("sp"), 2)) == -1
    assert stable_lr(network(table("sp"), 2, adam=True)) == -1.5
    assert r_exponent(exponents("sp")) == -1


@pytest.mark.parametrize("adam", [False, True])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shift", [-0.5, 0.3, 1.0])
@pytest.mark.parametrize("role", ["input", "hidden", "output"])
def test_the_symmetry_changes_no_trajectory(name, role, shift, adam):
    for depth in (1, 3):
        one = derive(network(table(name), depth, adam=adam), lr=0.0)
        other = derive(network(shifted(table(name), role, shift), depth, adam=adam), lr=0.0)
        assert other.updates == pytest.approx(one.updates)
        assert np.array(other.parts) == pytest.approx(np.array(one.parts))
        assert other.frobenius == pytest.approx(one.frobenius)
        assert other.kernel_change == pytest.approx(one.kernel_change)


@pytest.mark.parametrize("name", NAMES)
def test_r_is_yang_and_hus(name):
    """Definition 3.2 with one c: r = min(a_o + b_o, 2 a_o + c) + c - 1 + min(2 a_h, 2 a_i + 1)."""
    for c in (0.0, 0.5, 1.0, 2.0):
        content = table(name)
        content["c"]["sgd"] = dict.fromkeys(content["c"]["sgd"], c)
        a, b = content["a"], content["b"]
        features = min(2 * a["hidden"], 2 * a["input"] + 1)
        expected = min(a["output"] + b["output"], 2 * a["output"] + c) + c - 1 + features
        assert r_exponent(json.dumps(content)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("gamma", "prime"), list(itertools.product([0.5, 0.75, 1, 1.25, 1.5, 1.75], [0, 0.25, 0.5]))
)
def test_luos_plane(gamma, prime):
    """Figure 1 of arXiv 2007.07497: linear below gamma = 1 or above gamma' = gamma - 1, condensed between."""
    slope = derive(network(table(a_output=gamma - prime, b_output=prime), 1)).frobenius[0]
    if prime == 0:
        assert slope == pytest.approx(gamma - 1 if gamma <= 1 else (gamma - 1) / 2)
    border = max(0.0, gamma - 1)
    if gamma < 1 or prime > border:
        assert slope < 0
    elif gamma > 1 and prime < border:
        assert slope > 0
    else:
        assert slope == pytest.approx(0)


@pytest.mark.parametrize("depth", [1, 2, 3, 6])
@pytest.mark.parametrize("name", ["mup", "ntk"])
def test_largest_stable_lr_against_gamma(name, depth):
    """Atanasov et al.: eta ~ gamma^2 (lazy), gamma^(2/L) (rich), L weight matrices; lr = eta / gamma^2."""
    net = network(table(name), depth)
    assert -stable_lr(net, Limit(0, -1)) == pytest.approx(0)
    assert stable_lr(net, Limit(0, 1)) == pytest.approx(2 / (depth + 1) - 2, abs=1e-5)


def test_largest_stable_lr_against_width():
    assert [stable_lr(network(table(name), 2)) for name in NAMES] == [0, 0, 0, -1]
    # Haas et al.: under the cross-entropy only the features must not grow.
    assert stable_lr(network(table("sp"), 2), bounded_gradient=True) == pytest.approx(-0.5)
    assert stable_lr(network(table("mup"), 2), bounded_gradient=True) == pytest.approx(0)


def test_crossover_against_width():
    assert [crossover_gamma(network(table(name), 1)) for name in ("ntk", "mup")] == pytest.approx([0.5, 0])
    cell = {"exponents": exponents("ntk"), "depth": 1, "optimizer": "sgd", "lr_unit": "sharpness"}
    assert predicted_crossover(cell) == pytest.approx(0.5)
    assert predicted_crossover(cell | {"optimizer": "adam"}) is None


def test_edges_of_cells():
    cell = {"exponents": exponents("sp"), "depth": 2, "optimizer": "sgd", "model.activation": "relu"}
    assert predicted_edge(cell | {"lr_unit": "absolute"}, "width") == -1
    assert predicted_edge(cell | {"lr_unit": "sharpness"}, "width") == 0
    assert predicted_edge(cell | {"lr_unit": "absolute", "loss": "cross_entropy"}, "width") == pytest.approx(
        -0.5
    )
    mup = cell | {"exponents": exponents("mup"), "lr_unit": "absolute"}
    assert predicted_edge(mup, "gamma") == 0
    assert predicted_edge(mup, "gamma", rich=True) == pytest.approx(2 / 3 - 2, abs=1e-5)
    assert predicted_edge(mup | {"model.activation": "tanh"}, "gamma", rich=True) is None  # it saturates
    assert predicted_edge(mup, "depth") is None
    assert predicted_edge(mup | {"optimizer": "own"}, "width") is None


GAMMA = {
    # metric, role, depth -> slope against gamma, lazy and rich, where each weight grows to gamma^(1/(L+1))
    ("lambda_max_init", None, 2): (0, 0),
    ("ntk_change", None, 1): (1, 1),
    ("ntk_change", None, 2): (1, 4 / 3),
    ("kernel_distance", None, 2): (2, 0),
    ("linearization_error", None, 2): (1, 0),
    ("feature_movement", None, 1): (1, 1 / 2),
    ("feature_movement", None, 2): (1, 2 / 3),
    ("movement_frobenius", "input", 2): (1, 1 / 3),
    ("movement_spectral", "output", 2): (1, 1 / 3),
    ("param_movement", None, 2): (1, 1 / 3),
    ("sharpness", None, 2): (None, None),
}


@pytest.mark.parametrize("name", ["mup", "ntk"])
@pytest.mark.parametrize("key", GAMMA, ids=str)
def test_slopes_against_gamma(key, name):
    """Chizat et al.: changes go as 1 / alpha; beyond the crossover each weight has an equal part of gamma."""
    metric, role, depth = key
    cell = {
        "exponents": exponents(name), "depth": depth, "optimizer": "sgd", "lr_unit": "absolute",
        "model.activation": "linear", "center_output": True,
    }  # fmt: skip
    found = [predicted_slope(metric, role, cell, "gamma", rich=rich) for rich in (False, True)]
    assert found == [slope if slope is None else pytest.approx(slope, abs=1e-5) for slope in GAMMA[key]]
    assert predicted_slope(metric, role, cell, "steps") is None


def test_few_kinks_are_crossed_in_the_lazy_limit():
    cell = {
        "exponents": exponents("mup"), "depth": 2, "optimizer": "sgd", "lr_unit": "absolute",
        "model.activation": "relu", "center_output": True,
    }  # fmt: skip
    assert predicted_slope("ntk_change", None, cell, "gamma") is None
    assert predicted_slope("ntk_change", None, cell, "gamma", rich=True) == pytest.approx(4 / 3, abs=1e-5)
    assert predicted_slope("feature_movement", None, cell, "gamma") == 1


def test_outputs_that_grow_at_init_are_not_lazy():
    cell = {
        "exponents": exponents("mup"), "depth": 2, "optimizer": "sgd", "lr_unit": "absolute",
        "model.activation": "linear", "center_output": False,
    }  # fmt: skip
    assert predicted_slope("ntk_change", None, cell, "gamma") is None
    assert predicted_slope("ntk_change", None, cell, "gamma", rich=True) == pytest.approx(4 / 3, abs=1e-5)
    assert (
        predicted_slope("ntk_change", None, cell | {"model.activation": "tanh"}, "gamma", rich=True) is None
    )


def test_where_theory_is_silent():
    with pytest.raises(Silent, match="has no"):
        network({"a": {}, "b": {}, "c": {}}, 2)
    with pytest.raises(Silent, match="saturate"):
        derive(network(table(a_input=-1), 2, homogeneous=False))
    with pytest.raises(Silent, match="outgrow"):
        derive(network(table(a_output=1.5), 1, homogeneous=False))
    with pytest.raises(Silent, match="Adam"):
        derive(network(table(), 2, adam=True))
    with pytest.raises(Silent, match="no such size"):
        root(lambda size: -1.0)


def test_sizes_of_a_step_by_hand():
    """One step of gradient descent on one sample, in float64, against the derived sizes."""
    rng = np.random.default_rng(0)

    def changes(width):
        u, v = rng.normal(size=(width, 3)), rng.normal(size=(width, width)) / math.sqrt(width)
        w, x = rng.normal(size=width) / math.sqrt(width), np.ones(3)
        h1, h2 = np.tanh(u @ x), np.tanh(v @ np.tanh(u @ x))
        back2 = w * (1 - h2**2)
        back1 = (v.T @ back2) * (1 - h1**2)
        # ntk: every effective weight's rate is r^(-2a): 1, 1/n, 1/n.
        new = np.tanh((v + np.outer(back2, h1) / width) @ np.tanh((u + np.outer(back1, x)) @ x))
        return np.sqrt(np.mean((new - h2) ** 2))

    widths = np.array([64, 256, 1024])
    found = [np.mean([changes(width) for _ in range(4)]) for width in widths]
    slope = np.polyfit(np.log(widths), np.log(found), 1)[0]
    assert slope == pytest.approx(derive(network(table("ntk"), 2)).feature_change[-1], abs=0.1)


def test_the_command_says_it_of_any_table(capsys, tmp_path):
    assert cli.main(["theory", "ntk", "--activation", "tanh"]) == 0
    said = capsys.readouterr().out
    assert "kernel regime" in said
    assert "largest stable lr" in said
    assert cli.main(["theory", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert set(answer["verdicts"]) == {*NAMES, "completep", "depth_mup"}
    in_depth = [row for row in answer["rows"] if row["against"] == "depth"]
    assert {row["parameterization"] for row in in_depth} == {"completep", "depth_mup"}
    assert cli.main(["theory", "completep", "--optimizer", "adam"]) == 0
    assert "every block learns features at any depth" in " ".join(capsys.readouterr().out.split())
    assert "feature learning" in answer["verdicts"]["mup"]
    assert "no stable limit" in answer["verdicts"]["sp"]
    (edge,) = (
        row["slope"]
        for row in answer["rows"]
        if (row["parameterization"], row["quantity"], row["against"]) == ("sp", "largest stable lr", "width")
    )
    assert edge == -1
    own = tmp_path / "own.yaml"
    own.write_text(yaml.safe_dump(table(a_output=1.5) | {"name": "own"}))
    assert cli.main(["theory", str(own), "--depth", "1"]) == 0
    assert "weights outgrow their init" in capsys.readouterr().out
    assert cli.main(["theory", str(own), "--depth", "1", "--activation", "tanh"]) == 0
    assert "saturate" in capsys.readouterr().out
    own.write_text(yaml.safe_dump({key: part for key, part in table().items() if key != "b"}))
    for words, message in {
        ("nkt",): "did you mean 'ntk'?",
        (str(own),): "parameterization.b must give an exponent",
        ("ntk", "--depth", "0"): "--depth must be at least 1, got 0",
        ("ntk", "--optimizer", "adm"): "did you mean 'adam'?",
        ("ntk", "--loss", "mes"): "did you mean 'mse'?",
    }.items():
        assert cli.main(["theory", *words]) == 2
        assert message in capsys.readouterr().err
