"""Multiplier, init and learning rate of every role, against numbers written out by hand."""

import dataclasses
import json

import pytest
from cells import make_cell

from runner.errors import UserError
from runner.grid.config import load_exponents
from runner.grid.tables import read_exponents
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
    assert scaling.width.tolist() == [4, 16, 1]
    assert scaling.gamma.tolist() == [1, 2, 3]
    assert scaling.multiplier("hidden").tolist() == [1, 1 / 4, 1]
    alone = [Scaling([cell]).init_std("hidden", 64, 1.0).item() for cell in cells]
    assert scaling.init_std("hidden", 64, 1.0).tolist() == alone


def test_depth_scales_what_is_in_blocks():
    """s^(-e) with s = depth / base_depth, and nothing outside of blocks."""
    for name, branch, sgd, adam, decay in (("depth_mup", 0.5, 0, 0.5, 0.5), ("completep", 1, -1, 0, 0)):
        cell = make_cell(parameterization=name, width=64, base_width=16, depth=8, base_depth=2)
        flat = make_cell(parameterization="mup", width=64, base_width=16, depth=8)
        deep, wide = Scaling([cell]), Scaling([flat])
        assert deep.depth == 4
        assert wide.depth == 1
        assert deep.branch(root=False).item() == pytest.approx(4**-branch)
        assert deep.branch(root=True).item() == pytest.approx(4**-branch / 2**0.5)
        assert wide.branch(root=True).item() == pytest.approx(8**-0.5)
        for role in ("hidden", "vector"):
            for family, power in (("sgd", sgd), ("adam", adam)):
                in_width = wide.lr(role, family)
                assert deep.lr(role, family, in_block=True).item() == pytest.approx(
                    in_width.item() * 4**-power
                )
                assert deep.lr(role, family) == in_width
            # Adam's eps in units of the gradient, which a branch makes s^(-branch) as large.
            eps = deep.gradient(role, in_block=True) / wide.gradient(role)
            assert eps.item() == pytest.approx(4**-branch)
        assert deep.decay(in_block=True).item() == pytest.approx(4**-decay)
        assert deep.decay(in_block=False) == 1
        assert deep.multiplier("hidden") == wide.multiplier("hidden")
        at_base = Scaling([dataclasses.replace(cell, base_depth=8)])
        assert at_base.branch(root=False) == 1
        assert at_base.lr("hidden", "adam", in_block=True) == wide.lr("hidden", "adam")
        textbook = Scaling([dataclasses.replace(cell, base_depth=None)])
        assert textbook.branch(root=False).item() == pytest.approx(8**-branch)


@pytest.mark.parametrize(
    ("depth", "message"),
    [
        (3, "parameterization.depth must be a table of exponents, got 3"),
        ({"branch": 1, "c": {}}, "parameterization.depth.c must be a table per optimizer family"),
        (
            {"branch": 1, "c": {"sgd": {"hidden": 0}}},
            "parameterization.depth.c.sgd must give an exponent for hidden",
        ),
        ({"branch": 1, "brnch": 1}, "parameterization.depth.brnch must be a known config key"),
        ({"c": {"sgd": {"hidden": 0, "vector": 0}}}, "parameterization.depth.branch must be an exponent"),
    ],
)
def test_a_table_of_the_depth_that_is_wrong_is_one_line(depth, message):
    table = json.loads(load_exponents("mup")) | {"depth": depth}
    with pytest.raises(UserError) as caught:
        read_exponents(table)
    assert str(caught.value).startswith(message)


def test_an_optimizer_needs_its_rates_in_depth():
    table = json.loads(load_exponents("completep"))
    del table["depth"]["c"]["adam"]
    cell = dataclasses.replace(make_cell(parameterization="completep"), exponents=json.dumps(table))
    with pytest.raises(UserError, match=r"parameterization\.depth\.c must have a row adam"):
        Scaling([cell]).lr("hidden", "adam", in_block=True)
