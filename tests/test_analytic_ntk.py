"""The analytic infinite-width kernels: by hand, by integration, and against many finite networks."""

import math

import pytest
import torch
from cells import make_cell
from test_engine import CPU, ensemble_of

from runner import layers
from runner.limits.moments import MOMENTS
from runner.measures import Snapshot, empirical_ntk, limit_kernels, ntk_limit_distance
from runner.scaling.parameterization import Scaling
from runner.training.train import train_pack

NAMES = ["sp", "ntk", "mean_field", "mup"]


def close(actual, expected, rel=1e-10):
    torch.testing.assert_close(actual, torch.as_tensor(expected, dtype=torch.float64), rtol=rel, atol=rel)


def quadrature(phi, covariance, points=4001, reach=9.0):
    """E[phi(u) phi(v)] for (u, v) ~ N(0, covariance), by sums over a grid: slow, and without a formula."""
    grid = torch.linspace(-reach, reach, points, dtype=torch.float64)
    weight = torch.exp(-(grid**2) / 2)
    weight = weight / weight.sum()
    root = torch.linalg.cholesky(torch.tensor(covariance, dtype=torch.float64))
    u = root[0, 0] * grid
    v = root[1, 0] * grid[:, None] + root[1, 1] * grid
    return (weight * phi(u) * (phi(v) * weight).sum(1)).sum()


FUNCTIONS = {
    "relu": (lambda x: math.sqrt(2) * x.clamp(min=0), lambda x: math.sqrt(2) * (x > 0).double()),
    "erf": (torch.erf, lambda x: 2 / math.sqrt(math.pi) * torch.exp(-(x**2))),
    "linear": (lambda x: x, torch.ones_like),
}


@pytest.mark.parametrize("activation", MOMENTS)
@pytest.mark.parametrize("covariance", [((1.0, 0.3), (0.3, 2.0)), ((0.5, -0.6), (-0.6, 1.0))])
def test_moments_equal_integrals(activation, covariance):
    values = MOMENTS[activation](torch.tensor([covariance], dtype=torch.float64))
    for value, phi in zip(values, FUNCTIONS[activation], strict=True):
        # Steps of a relu's derivative fall between points of the grid.
        rel = 2e-3 if activation == "relu" else 1e-6
        close(value[0, 0, 1], quadrature(phi, covariance), rel)


def of(x, **changes):
    """The analytic kernels of one cell on given samples."""
    return limit_kernels(ensemble_of([make_cell(**changes)]), torch.tensor([x], dtype=torch.float64))


RIGHT = [[1.0, 0, 0, 0, 0, 0], [0, 1.0, 0, 0, 0, 0], [-1.0, 0, 0, 0, 0, 0]]
"""Angles of 0, 90 and 180 degrees."""


def test_relu_by_hand():
    """One hidden layer at x.x' = cos a: V = (sin a + (pi - a) cos a) / pi and V' = (pi - a) / pi."""
    unit = math.sqrt(6)  # pre-activations of variance 1 where the input weights have variance 1/6
    kernels = of([[unit * v for v in x] for x in RIGHT], depth=1, model={"activation": "relu"})
    expected = torch.tensor([[1, 1 / math.pi, 0], [1 / math.pi, 1, 1 / math.pi], [0, 1 / math.pi, 1]])
    close(kernels.nngp[0], expected.double(), 1e-7)
    # ntk = V + V' x.x': the input layer's gradients carry x as it is.
    first = torch.tensor([[6.0, 0, 0], [0, 6, 0], [0, 0, 6]])
    close(kernels.ntk[0], (expected + first).double(), 1e-7)


def test_erf_by_hand():
    """V = 2/pi asin(2 q / (1 + 2)) and V' = 4 / (pi sqrt(9 - 4 q^2)) for pre-activations of variance 1."""
    unit = math.sqrt(6)
    kernels = of([[unit * v for v in x] for x in RIGHT], depth=1, model={"activation": "erf"})
    value, slope = 2 / math.pi * math.asin(2 / 3), 4 / math.pi / math.sqrt(5)
    expected = torch.tensor([[value, 0, -value], [0, value, 0], [-value, 0, value]])
    close(kernels.nngp[0], expected.double(), 1e-7)
    first = 6 * slope * torch.tensor([[1.0, 0, -1], [0, 1, 0], [-1, 0, 1]])
    close(kernels.ntk[0], (expected + first).double(), 1e-6)


def test_textbook_recursion_of_the_normalized_relu_network():
    """Inputs over sqrt(d) on the sphere: Theta_{l+1} = V_{l+1} + V'_{l+1} Theta_l, Theta_1 = cos / 1."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(5, 6, dtype=torch.float64, generator=generator)
    x = x / x.norm(dim=1, keepdim=True) * math.sqrt(6)
    kernels = of(x.tolist(), depth=4, model={"activation": "relu", "normalize_input": True})
    cosine = (x @ x.T / 6).clamp(-1, 1)
    theta = cosine
    for _ in range(4):
        angle = torch.acos(cosine)
        cosine = (torch.sin(angle) + (math.pi - angle) * cosine) / math.pi
        theta = cosine + (math.pi - angle) / math.pi * theta
    close(kernels.nngp[0], cosine, 1e-6)
    close(kernels.ntk[0], theta, 1e-6)


def test_linear_networks_have_the_product_of_their_covariances():
    """depth + 1 equal terms, for any depth."""
    x = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    kernels = of(x.tolist(), depth=3, model={"activation": "linear", "normalize_input": True})
    close(kernels.ntk[0], 4 * x @ x.T / 6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("base_width", [1, 64])
def test_kernels_of_every_parameterization_are_those_of_wide_networks(name, base_width):
    """The mean over seeds at one width is within Monte Carlo error, or within what is of order 1/width."""
    width = 256
    changes = {
        "parameterization": name, "base_width": base_width, "width": width, "depth": 2,
        "model": {"activation": "erf", "bias": True, "sigma_bias": 0.4, "sigma_weight": 1.3},
    }  # fmt: skip
    ensemble = ensemble_of([make_cell(seed=seed, **changes) for seed in range(60)])
    x = ensemble.inputs["probe"]
    sampled = empirical_ntk(ensemble.model, ensemble.parameters, x)
    limit = limit_kernels(ensemble, x).ntk
    relative = (sampled.mean(0) - limit[0]).norm() / limit[0].norm()
    spread = (sampled.std(0) / math.sqrt(60)).norm() / limit[0].norm()
    assert relative < 4 * spread + 4 / width
    close(limit[1], limit[0])


@pytest.mark.slow
@pytest.mark.parametrize("depth", [1, 2])
def test_limit_is_the_mean_of_two_hundred_wide_networks(depth):
    """200 networks of width 1024: every entry of both kernels' means within Monte Carlo error.

    The kernel's mean differs from its limit by O(1/width), a small part of the spread of a mean over 200,
    which itself is below a hundredth of the kernel: a wrong factor in one layer is many times as large.
    """
    count, samples = 200, 4
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(1, samples, 6, dtype=torch.float64, generator=generator)
    sampled = {"relu": [], "erf": []}
    limits = {}
    ensemble = ensemble_of([make_cell(width=1024, depth=depth, dtype="float32")])
    for _ in range(count):
        # Drawing the weights is most of the work: in float32, and once for both activations.
        for _, spec, parameter, _ in layers.parameters_of(ensemble.model):
            std = Scaling(ensemble.cells).init_std(spec.role, spec.fan_in, spec.sigma).item()
            parameter.data.normal_(0, std, generator=generator)
        for name, kernels in sampled.items():
            ensemble.model.activation = layers.Activation(name)
            kernels.append(empirical_ntk(ensemble.model, ensemble.parameters, x.float())[0].double())
            if name not in limits:
                limits[name] = limit_kernels(ensemble, x).ntk[0]
    for name, kernels in sampled.items():
        mean, spread = torch.stack(kernels).mean(0), torch.stack(kernels).std(0) / math.sqrt(count)
        score = (mean - limits[name]) / spread
        assert score.abs().max() < 4, name
        assert score.square().mean().sqrt() < 2, name
        assert spread.max() < 0.01 * limits[name].diagonal().mean(), name


@pytest.mark.parametrize("activation", ["relu", "erf"])
def test_distance_falls_as_the_root_of_width(activation):
    widths = torch.tensor([32.0, 128.0, 512.0])
    distances = []
    for width in widths.int().tolist():
        cells = [
            make_cell(width=width, depth=1, seed=seed, model={"activation": activation}) for seed in range(24)
        ]
        start = Snapshot(ensemble_of(cells), 0)
        distances.append(ntk_limit_distance(start, start).trace["ntk_limit_distance"].log().mean().item())
    slope = (distances[-1] - distances[0]) / math.log(widths[-1] / widths[0])
    assert slope == pytest.approx(-0.5, abs=0.1)


@pytest.mark.parametrize("model", [{"activation": "tanh"}, {"_target_": "cells.LinearModel"}])
def test_no_limit_is_known_for_other_networks(model):
    functions = {"limit": {"_target_": "runner.measures.ntk_limit_distance", "at": "init"}}
    cell = make_cell(model=model, measure={"points": 2, "functions": functions})
    assert limit_kernels(ensemble_of([cell]), torch.zeros(1, 2, 6)) is None
    assert "ntk_limit_distance" not in train_pack([cell], CPU).cells[0]
