"""Multiplier, init and learning rate of every role, against numbers written out by hand."""

import pytest
from cells import make_cell

from runner.scaling.parameterization import gradient_scale, init_std, lr_factor, multiplier

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
    cells = [make_cell(parameterization=name, width=64, base_width=16)]
    fan_in = 10 if role == "input" else 64
    fan_in_base = 10 if role == "input" else 16
    expected_multiplier, expected_std, expected_lr = EXPECTED[name, role]
    assert multiplier(cells, role).item() == pytest.approx(expected_multiplier)
    assert init_std(cells, role, fan_in, 3.0).item() == pytest.approx(3 * expected_std / fan_in_base**0.5)
    assert lr_factor(cells, role).item() == pytest.approx(expected_lr)


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
    cells = [make_cell(parameterization=name, width=64, base_width=16, gamma=2.0)]
    expected_lr, expected_scale = EXPECTED_OF_ADAM[name, role]
    assert lr_factor(cells, role, "adam").item() == pytest.approx(expected_lr)
    assert gradient_scale(cells, role).item() == pytest.approx(expected_scale)


@pytest.mark.parametrize("name", ["sp", "ntk", "mean_field", "mup"])
def test_vector_is_an_input_weight_of_fan_in_one_and_scalar_is_not_scaled(name):
    cells = [make_cell(parameterization=name, width=64, base_width=16)]
    assert multiplier(cells, "vector") == multiplier(cells, "input")
    assert lr_factor(cells, "vector") == lr_factor(cells, "input")
    assert init_std(cells, "vector", 1, 1.0) == init_std(cells, "input", 1, 1.0)
    assert (multiplier(cells, "scalar"), init_std(cells, "scalar", 1, 1.0), lr_factor(cells, "scalar")) == (
        1,
        1,
        1,
    )
