"""Infinitely wide networks in training: by hand, from the equations written out, and beside finite ones."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from cells import make_cell
from test_engine import CPU, ensemble_of

from runner import data
from runner.errors import UserError
from runner.limits import Problem, Sampling, problem_of, solve
from runner.limits.lazy import initial_kernel, kernel_descent
from runner.limits.march import March
from runner.limits.moments import MOMENTS, quadrature
from runner.measures import limit_kernels
from runner.numerics.threads import threads
from runner.training.train import train_pack

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

import linear_networks

EVERY = tuple(range(21))


def close(actual, expected, rel=1e-10):
    torch.testing.assert_close(actual, torch.as_tensor(expected, dtype=torch.float64), rtol=rel, atol=rel)


def draws(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def problem(activation="linear", depth=1, gamma=1.0, lr=0.2, steps=EVERY, train=6, probes=3, **changes):
    x = draws(train + probes, 4) / 2
    given = {"rates": (1.0,) * (depth + 1), "sigmas": (1.0,) * (depth + 1)} | changes
    return Problem(x @ x.mT, draws(train, seed=1), activation, lr, gamma, steps=steps, **given)


def cell_and_data(**changes):
    small = {"data": {"dim": 4, "train_size": 8, "probe_size": 4, "test_size": 4}}
    cell = make_cell(**{"parameterization": "mup", "center_output": True, **small, **changes})
    return cell, data.load(json.loads(cell.settings)["data"])


@pytest.mark.parametrize("gamma", [0.1, 1.0, 10.0])
def test_one_sample_in_a_linear_network_of_depth_one_by_hand(gamma):
    """h = p u + q xi and z = r u + s xi with <u u> = K and <xi xi> = 1: four numbers a step."""
    gram, y, lr = 0.7, 1.3, 0.05
    p, q, r, s = 1.0, 0.0, 0.0, 1.0
    expected = []
    for _ in range(51):
        f = (p * r * gram + q * s) / gamma
        theta = (p * p * gram + q * q) + gram * (r * r * gram + s * s)
        expected.append((f, theta))
        step = lr * gamma * (y - f)
        p, q, r, s = p + step * gram * r, q + step * gram * s, r + step * p, s + step * q
    one = Problem(
        torch.full((1, 1), gram, dtype=torch.float64), torch.tensor([y], dtype=torch.float64), "linear", lr,
        gamma, (1.0, 1.0), (1.0, 1.0), tuple(range(51)),
    )  # fmt: skip
    found = solve(one)
    close(torch.stack([found.mean_outputs[:, 0], found.mean_kernel[:, 0, 0]], 1), expected)


def written_out(case, steps):
    """A linear network of depth 2 from the equations of the paper, with its responses A and B.

    A field is the numbers that the Gaussians u_1, r_1(s), u_2(s) and xi are multiplied by in it.

    Rows of a field are samples; Gaussians are named (kind, sample, step), their covariances are looked up.
    """
    count, train = len(case.gram), case.train
    names, covariance = [], {}

    def cov(a, b):
        return covariance.get((a, b), covariance.get((b, a), 0.0))

    def mean(one, two):
        return sum(x * y * cov(a, b) for a, x in one.items() for b, y in two.items())

    def add(*terms):
        total = {}
        for factor, field in terms:
            for name, value in field.items():
                total[name] = total.get(name, 0.0) + factor * value
        return total

    for a in range(count):
        names.append(("u1", a, 0))
        for b in range(count):
            covariance["u1", a, 0], covariance[("u1", a, 0), ("u1", b, 0)] = 0.0, float(case.gram[a, b])
    covariance[("xi", 0, 0), ("xi", 0, 0)] = 1.0
    h1, h2, g1, g2, rests, outputs = [], [], [], [], [], []
    for t in range(steps):
        past = [(s, a) for s in range(t) for a in range(train)]
        rate = {(s, a): case.lr * case.gamma * rests[s][a] / train for s, a in past}
        h1.append([
            add((1.0, {("u1", m, 0): 1.0}),
                *((rate[s, a] * float(case.gram[m, a]), g1[s][a]) for s, a in past))
            for m in range(count)
        ])  # fmt: skip
        for m in range(count):
            for s in range(t + 1):
                for a in range(count):
                    covariance[("u2", m, t), ("u2", a, s)] = mean(h1[t][m], h1[s][a])
        h2.append([
            add((1.0, {("u2", m, t): 1.0}),
                *((h1[t][m].get(("r1", a, s), 0.0), g2[s][a]) for s in range(t) for a in range(count)),
                *((rate[s, a] * mean(h1[s][a], h1[t][m]), g2[s][a]) for s, a in past))
            for m in range(count)
        ])  # fmt: skip
        z2 = add((1.0, {("xi", 0, 0): 1.0}), *((rate[s, a], h2[s][a]) for s, a in past))
        outputs.append([mean(z2, h2[t][m]) / case.gamma for m in range(count)])
        g2.append([z2] * count)
        for m in range(count):
            for s in range(t + 1):
                for a in range(count):
                    covariance[("r1", m, t), ("r1", a, s)] = mean(g2[t][m], g2[s][a])
        g1.append([
            add((1.0, {("r1", m, t): 1.0}),
                *((z2.get(("u2", a, s), 0.0), h1[s][a]) for s in range(t + 1) for a in range(count)),
                *((rate[s, a] * mean(g2[s][a], z2), h1[s][a]) for s, a in past))
            for m in range(count)
        ])  # fmt: skip
        rests.append([float(case.targets[a]) - outputs[t][a] for a in range(train)])
    last = [[mean(g1[-1][m], g1[-1][a]) for a in range(count)] for m in range(count)]
    return outputs, last


def test_a_linear_network_of_depth_two_from_the_equations_written_out():
    case = problem(depth=2, gamma=1.5, lr=0.8, steps=tuple(range(5)), train=2, probes=1)
    outputs, gradients = written_out(case, 5)
    found = March(case, 0, 0.1, 0).run()
    close(found.outputs, outputs, 1e-9)
    close(found.gradients[-1, 0], gradients, 1e-9)
    assert float((found.outputs[-1] - found.outputs[0]).abs().max()) > 0.3, "it should have moved"


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_linear_networks_of_few_units_per_layer_have_it(depth):
    """Random matrices in bases of what they are applied to: another way to the same limit, at any depth."""
    case, inputs = linear_networks.problem_of(depth, 1.0)
    rng = np.random.default_rng(0)
    losses, kernels = linear_networks.train(
        case, inputs, linear_networks.networks(depth, 4, np.inf, 1, rng, rounds=3)
    )
    found = solve(case)
    close(losses[:, 0], found.loss, 1e-8)
    close(kernels[:, 0], found.mean_kernel, 1e-8)
    _, start = linear_networks.gaps(case, inputs, 8, 1000, False, rng)
    off = start.mean(0) / (start.std(0) / len(start) ** 0.5)
    assert (abs(off) < 4).all(), "at init the mean kernel is that of infinite width"


@pytest.mark.parametrize("depth", [1, 3])
def test_the_mean_deviation_of_a_kernel_vanishes_as_the_square_of_gamma(depth):
    """Output weights of either sign are as likely: no odd order. Lazy networks keep the kernel of init."""
    kernels = []
    for gamma in (0.05, 0.1):
        rng = np.random.default_rng(0)
        values, start = linear_networks.gaps(*linear_networks.problem_of(depth, gamma), 64, 100, False, rng)
        kernels.append(linear_networks.without(start, values)[0][1])
    assert kernels[1] / kernels[0] == pytest.approx(4, rel=0.05)


def test_means_without_controls_and_their_two_orders():
    rng = np.random.default_rng(0)
    controls = rng.standard_normal((4000, 3))
    values = 0.25 + controls @ [[2.0], [0.0], [-1.0]] + 0.1 * rng.standard_normal((4000, 1))
    mean, error = linear_networks.without(controls, values)
    assert error[0] == pytest.approx(0.1 / 4000**0.5, rel=0.1)
    assert abs(mean[0] - 0.25) < 4 * error[0]
    width = np.array([64.0, 128, 256])
    (a, b), errors, chi = linear_networks.orders(width, 0.3 / width - 5 / width**2, 0.01 / width)
    assert (a, b, chi) == pytest.approx((0.3, -5, 0), abs=1e-9)
    assert (errors > 0).all()


@pytest.mark.parametrize(("activation", "depth"), [("linear", 3), ("tanh", 2), ("relu", 1), ("erf", 2)])
def test_wide_networks_come_to_it(activation, depth):
    """The loss of 8 networks: their mean is off by their scatter, the sampling error and some 1 / width."""
    common = {"depth": depth, "width": 256, "gamma": 2.0, "lr": 0.1, "steps": 20}
    common |= {"model": {"activation": activation}, "measure": {"every": 1, "functions": {}}}
    one, dataset = cell_and_data(**common)
    cells = [cell_and_data(**common, seed=seed)[0] for seed in range(8)]
    tables = train_pack(cells, CPU)
    loss = torch.tensor(tables.trace["train_loss"], dtype=torch.float64).view(-1, 8)
    found = solve(problem_of(one, dataset, EVERY), Sampling(units=1024, replicas=4, error=0.001))
    error = (loss.var(1) / 8 + found.loss_error**2).sqrt() / loss[0].mean()
    gap = (loss.mean(1) - found.loss) / loss[0].mean()
    assert float((gap.abs() - 3 * error).max()) < 0.01
    assert float(found.loss[-1] / found.loss[0]) < 0.7, "it should have learned"
    assert found.dropped <= 0.02


@pytest.mark.parametrize("activation", ["linear", "relu", "erf"])
@pytest.mark.parametrize("changes", [
    {}, {"parameterization": "mean_field"}, {"parameterization": "ntk"}, {"base_width": 4},
    {"sigma": '{"hidden":1.5,"input":0.5,"output":2}'}, {"depth": 3},
    {"model": {"normalize_input": True, "sigma_weight": 1.3}},
    {"optimizer": {"lr_input": 0.5, "lr_hidden": 2.0, "lr_output": 3.0}},
])  # fmt: skip
def test_the_kernel_at_init_is_that_of_the_cells(activation, changes):
    """Constants of the limit: derived here in the width, there in the layers of a network."""
    model = {"activation": activation, **changes.get("model", {})}
    cell, dataset = cell_and_data(**{"width": 64, **changes, "model": model})
    expected = limit_kernels(ensemble_of([cell]), dataset.probe.inputs[None])
    found = problem_of(cell, dataset, (0,))
    close(initial_kernel(found)[found.train :, found.train :], expected.ntk[0])
    assert (found.gamma == 0) == (cell.parameterization == "ntk")


def test_base_width_divides_gamma():
    cell, dataset = cell_and_data(base_width=16, gamma=2.0)
    assert problem_of(cell, dataset, (0,)).gamma == pytest.approx(0.5)


def test_a_rate_in_units_of_the_sharpness():
    cell, dataset = cell_and_data(lr=0.5, lr_unit="sharpness", model={"activation": "erf"})
    found = problem_of(cell, dataset, (0,))
    top = torch.linalg.eigvalsh(initial_kernel(found)[:8, :8] / 8)[-1]
    assert found.lr == pytest.approx(0.5 / float(top))


def test_quadrature_equals_closed_forms():
    covariance = torch.tensor([[1.0, 0.3, -0.9], [0.3, 2.0, 0.1], [-0.9, 0.1, 1.0]], dtype=torch.float64)
    for actual, expected in zip(quadrature("erf", covariance), MOMENTS["erf"](covariance), strict=True):
        close(actual, expected, 1e-9)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_without_richness_it_is_kernel_descent(depth):
    lazy = problem(depth=depth, gamma=0.0)
    close(solve(lazy).mean_outputs, kernel_descent(lazy, initial_kernel(lazy)))
    nearly = solve(problem(depth=depth, gamma=1e-5))
    close(nearly.mean_outputs, solve(lazy).mean_outputs, 1e-6)
    close(nearly.mean_kernel, solve(lazy).mean_kernel, 1e-6)


def test_without_richness_a_sampled_limit_is_kernel_descent_to_its_error():
    found = solve(problem("tanh", 2, 1e-4), Sampling(units=4096, replicas=6, error=1e-9))
    lazy = solve(problem("tanh", 2, 0.0))
    assert float((found.loss - lazy.loss).abs().max()) < 4 * float(found.loss_error.max())
    apart = (found.mean_kernel - lazy.mean_kernel).flatten(1).norm(dim=1) / lazy.mean_kernel[0].norm()
    assert float(apart.max()) < 4 * found.error < 0.05


def test_a_linear_network_has_no_sampling_error():
    """Fresh draws have no part in what was there, so that averages of second order are exact."""
    one, other = (March(problem(depth=2), 0, 0.1, seed).run() for seed in (0, 5))
    close(one.outputs, other.outputs, 1e-9)
    assert one.dropped < 1e-8


def test_the_sampling_error_falls_as_the_root_of_the_units():
    case = problem("tanh", 2, steps=(0, 10))
    small, large = (solve(case, Sampling(units=units, replicas=12, error=1e-9)) for units in (256, 4096))
    for name in ("loss_error", "kernel_error"):
        ratio = float(getattr(small, name)[-1] / getattr(large, name)[-1])
        assert 4 / 1.8 < ratio < 4 * 1.8, name


def test_replicas_that_are_there_are_not_sampled_again():
    case, kept = problem("tanh", 1), []
    sampling = Sampling(units=128, replicas=3, error=1e-9)
    whole = solve(case, sampling, after_replica=kept.append)
    seen = set()
    again = solve(case, sampling, before=kept[0], progress=lambda replica, step: seen.add(replica))
    assert seen == {1, 2}
    assert torch.equal(again.outputs, whole.outputs)


def test_it_stops_at_an_error():
    case = problem("tanh", 1)
    assert len(solve(case, Sampling(units=128, replicas=8, error=0.5)).outputs) == 4
    assert len(solve(case, Sampling(units=128, replicas=5, error=1e-9)).outputs) == 5


def test_a_limit_that_diverges_is_data():
    found = solve(problem("relu", 1, gamma=1.0, lr=1e3, steps=(0, 100)), Sampling(units=128, replicas=9))
    assert found.loss[0].isfinite()
    assert not found.loss[-1].isfinite()
    assert len(found.outputs) == 4


@pytest.mark.parametrize(("activation", "depth"), [("linear", 2), ("relu", 3)])
def test_fields_beyond_what_floats_hold_end_it(activation, depth):
    sampling = Sampling(units=64, replicas=1)
    found = solve(problem(activation, depth, gamma=1e6, steps=(0, 1, 50)), sampling)
    assert found.loss[0].isfinite()
    assert found.loss[-1].isnan()
    assert found.mean_kernel[-1].isnan().all()
    assert found.unreached(sampling) == "it diverges, by step 50; lower lr"


def test_what_is_left_out_is_said():
    found = March(problem("relu", 2, steps=(0, 20)), 64, 0.01, 0).run()
    assert found.dropped > 0.01


@pytest.mark.parametrize(("changes", "message"), [
    ({"parameterization": "sp"}, "parameterization must have an infinite-width limit"),
    ({"parameterization": "ntk", "center_output": False}, "center_output must be true"),
])  # fmt: skip
def test_what_has_no_limit(changes, message):
    with pytest.raises(UserError, match=message):
        problem_of(*cell_and_data(**changes), (0,))


def test_keys_do_not_depend_on_the_number_of_threads():
    """Workers, which have one, look for what a process with many has solved."""
    cell, dataset = cell_and_data(
        lr_unit="sharpness", model={"activation": "erf"},
        data={"dim": 30, "train_size": 128, "probe_size": 64, "test_size": 4},
    )  # fmt: skip
    keys = set()
    for count in (1, 2):
        with threads(count):
            keys.add(problem_of(cell, dataset, (0, 10)).key())
    assert len(keys) == 1


def test_keys_name_all_that_numbers_depend_on():
    keys = {one.key() for one in (
        problem(), problem(gamma=2.0), problem(lr=0.3), problem(depth=2), problem("tanh"), problem(train=5),
        problem(steps=(0, 1)), problem(sigmas=(1.0, 2.0)), problem(rates=(1.0, 2.0)),
    )}  # fmt: skip
    assert len(keys) == 9
    assert problem().key() == problem().key() != problem().key({"units": 1})
    assert math.isfinite(int(problem().key(), 16))
