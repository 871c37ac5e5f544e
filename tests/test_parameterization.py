"""Multiplier, init and learning rate of every role, against numbers written out by hand."""

import dataclasses
import json

import pytest
from cells import make_cell

from runner.scaling.parameterization import Scaling

# At r = 4: (multiplier, init std * sqrt(fan_in at base), lr factor), as theory.md's table gives them.
EXPECTED = {
    ("sp", "input"): (1, 1, 1),
    ("sp", "hidden"): (1, 1 / 2, 1),
    ("sp", "output"): (1, 1 / 2, 1),
    ("ntk", "input"): (1, 1, 1),
    ("ntk", "hidden"): (1 / 2, 1, 1),
    ("ntk", "output"): (1 / 2, 1, 1),
    ("mean_field", "input"): (1, 1, 4),
    ("mean_field", "hidden"): (1 / 2, 1, 4),
    ("mean_field", "output"): (1 / 4, 1, 4),
    ("mup", "input"): (2, 1 / 2, 1),
    ("mup", "hidden"): (1, 1 / 2, 1),
    ("mup", "output"): (1 / 2, 1 / 2, 1),
}


@pytest.mark.parametrize(("name", "role"), EXPECTED)
def test_factors(name, role):
    scaling = Scaling([make_cell(parameterization=name, width=64, base_width=16)])
    fan_in = 10 if role == "input" else 64
    fan_in_base = 10 if role == "input" else 16
    expected_multiplier, expected_std, expected_lr = EXPECTED[name, role]
    assert scaling.multiplier(role).item() == pytest.approx(expected_multiplier)
    assert scaling.init_std(role, fan_in, 3.0).item() == pytest.approx(3 * expected_std / fan_in_base**0.5)
    assert scaling.kernel_weight(role).item() == pytest.approx(expected_lr)


# At r = 4: (lr factor under Adam, how gradients scale at gamma = 2).
EXPECTED_OF_ADAM = {
    ("sp", "input"): (1, 1 / 2),
    ("sp", "hidden"): (1, 1 / 2),
    ("sp", "output"): (1, 1 / 2),
    ("ntk", "input"): (1 / 2, 1 / 4),
    ("ntk", "hidden"): (1 / 4, 1 / 8),
    ("ntk", "output"): (1 / 2, 1 / 4),
    ("mean_field", "input"): (1, 1 / 8),
    ("mean_field", "hidden"): (1 / 2, 1 / 16),
    ("mean_field", "output"): (1, 1 / 8),
    ("mup", "input"): (1 / 2, 1 / 4),
    ("mup", "hidden"): (1 / 4, 1 / 8),
    ("mup", "output"): (1 / 2, 1 / 4),
}


@pytest.mark.parametrize(("name", "role"), EXPECTED_OF_ADAM)
def test_factors_of_adam(name, role):
    scaling = Scaling([make_cell(parameterization=name, width=64, base_width=16, gamma=2.0)])
    expected_lr, expected_scale = EXPECTED_OF_ADAM[name, role]
    assert scaling.lr(role, "adam").item() == pytest.approx(expected_lr)
    assert scaling.gradient(role).item() == pytest.approx(expected_scale)


@pytest.mark.parametrize("name", ["sp", "ntk", "mean_field", "mup"])
def test_vector_is_an_input_weight_of_fan_in_one_and_scalar_is_not_scaled(name):
    scaling = Scaling([make_cell(parameterization=name, width=64, base_width=16)])
    assert scaling.multiplier("vector") == scaling.multiplier("input")
    assert scaling.kernel_weight("vector") == scaling.kernel_weight("input")
    assert scaling.init_std("vector", 1, 1.0) == scaling.init_std("input", 1, 1.0)
    assert (
        scaling.multiplier("scalar"),
        scaling.init_std("scalar", 1, 1.0),
        scaling.kernel_weight("scalar"),
    ) == (
        1,
        1,
        1,
    )


def test_a_pack_of_several_parameterizations_widths_and_gammas():
    cells = [
        make_cell(parameterization=name, width=64, base_width=base, gamma=gamma)
        for name, base, gamma in (("mup", 16, 1.0), ("ntk", 4, 2.0), ("sp", 64, 3.0))
    ]
    scaling = Scaling(cells)
    assert scaling.ratios["width"].tolist() == [4, 16, 1]
    assert scaling.gamma.tolist() == [1, 2, 3]
    assert scaling.multiplier("hidden").tolist() == [1, 1 / 4, 1]
    alone = [Scaling([cell]).init_std("hidden", 64, 1.0).item() for cell in cells]
    assert scaling.init_std("hidden", 64, 1.0).tolist() == alone


def test_depth_is_a_second_ratio():
    """Of a table with exponents of depth, which no parameterization has yet: r_width^(-a) r_depth^(-a')."""
    cell = make_cell(parameterization="ntk", width=64, base_width=16, depth=8)
    zero = {"input": 0, "hidden": 0, "output": 0}
    table = json.loads(cell.exponents)
    table["depth"] = {"a": zero | {"hidden": 0.5}, "b": zero, "c": {"sgd": zero | {"hidden": 1}}}
    deep = dataclasses.replace(cell, exponents=json.dumps(table), base_depth=2)
    assert Scaling([cell]).ratios["depth"] == 1
    assert Scaling([deep]).ratios["depth"] == 4
    assert Scaling([deep]).multiplier("hidden").item() == pytest.approx(1 / 2 * 1 / 2)
    assert Scaling([deep]).multiplier("output").item() == pytest.approx(1 / 2)
    assert Scaling([deep]).lr("hidden", "sgd").item() == pytest.approx(1 / 4)
    # At its base a depth changes nothing.
    same = dataclasses.replace(deep, base_depth=8)
    assert Scaling([same]).multiplier("hidden") == Scaling([cell]).multiplier("hidden")
