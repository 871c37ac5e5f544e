"""When a cell has diverged: beyond what any catapult of its kind reaches, and no sooner."""

import math

import pytest
import torch
from cells import make_cell

from runner.errors import UserError
from runner.grid.rules import check_value
from runner.training.divergence import MARGIN, loss_limits
from runner.training.train import train_pack

CPU = torch.device("cpu")
XOR = {"dim": 10, "linear": 0.0, "standardize": False, "train_size": 24}
QUIET = {"points": 2, "functions": {}}


def catapult(**changes):
    settings = {
        "model": {"activation": "relu", "normalize_input": True},
        "data": XOR,
        "measure": QUIET,
        "dtype": "float32",
    }
    cell = make_cell(**settings | {"depth": 1, "lr": 3.0, "steps": 300, "center_output": True} | changes)
    return train_pack([cell], CPU).cells[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"parameterization": "sp", "width": 4096},
        {"parameterization": "ntk", "width": 1024, "gamma": 0.003},
        {"parameterization": "ntk", "width": 512, "gamma": 0.002},
    ],
)
def test_a_catapult_is_no_divergence(changes):
    row = catapult(**changes)
    assert row["status"] == "ok"
    assert row["peak_loss_ratio"] > 1e6
    assert row["train_loss"] < 0.01 * row["initial_train_loss"]


def test_a_hopeless_cell_is_retired_within_a_few_steps_of_the_limit():
    hopeless = catapult(parameterization="ntk", width=64, lr=20.0)
    assert hopeless["status"] == "diverged"
    assert hopeless["diverged_step"] < 20


def test_the_limit_can_be_set():
    row = catapult(parameterization="ntk", width=256, gamma=0.1, loss_limit=50.0)
    assert (row["status"], row["peak_loss_ratio"] > 50) == ("diverged", True)


@pytest.mark.parametrize(("name", "width_power"), [("ntk", 1), ("mup", 0), ("mean_field", 0), ("sp", 0)])
def test_the_limit_scales_as_derived(name, width_power):
    """As width^p / (lr gamma)^2 over the loss at init, with p = 1 for ntk; sp's width is in its lr."""

    def limit(**changes):
        cell = make_cell(depth=2, parameterization=name, **changes)
        return loss_limits([cell], torch.tensor([0.01]), torch.tensor([0.5])).item()

    small = limit(width=64)
    assert small > MARGIN
    assert limit(width=256) == pytest.approx(small * 4.0**width_power)
    assert limit(width=64, gamma=0.1) == pytest.approx(100 * small)
    assert limit(width=64, loss_limit=7.0) == 7.0


def test_under_adam_and_large_rates_it_is_the_margin():
    cell = make_cell(width=64)
    assert loss_limits([cell], torch.tensor([0.01]), torch.tensor([0.5]), descends=False).item() == MARGIN
    assert loss_limits([cell], torch.tensor([1e3]), torch.tensor([0.5])).item() == MARGIN
    assert loss_limits([cell], torch.tensor([math.nan]), torch.tensor([0.5])).item() == MARGIN


def test_the_kernel_of_two_linear_layers_changes_as_the_derivation_says():
    generator = torch.Generator().manual_seed(0)
    u, v = torch.randn(2, 6, generator=generator, dtype=torch.float64)
    size, gamma, rate_u, rate_v = 1.3, 0.7, 0.02, 0.05

    def kernel(u, v):
        return (size / gamma) ** 2 * (rate_u * v @ v + rate_v * u @ u)

    f = u @ v * size / gamma  # on the target 0 with loss f^2 / 2
    moved = u - rate_u * f * v * size / gamma, v - rate_v * f * u * size / gamma
    before = kernel(u, v)
    change = rate_u * rate_v * (size / gamma) ** 2 * f**2 * (before - 4)
    torch.testing.assert_close(kernel(*moved), before + change, rtol=1e-12, atol=0)


@pytest.mark.parametrize("value", [1.0, 0.5, "many", True])
def test_the_key_must_be_a_multiple(value):
    with pytest.raises(UserError, match="loss_limit must be a finite number > 1, or null"):
        check_value("loss_limit", value)
