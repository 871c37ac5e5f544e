"""The benchmark's rivals train what is trained here; how fast they are, is not tested."""

import dataclasses
import importlib.util
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from benchmark import rivals, torch_nets
from benchmark.problem import losses, problem_of, worst_difference
from benchmark.processes import Workers
from benchmark.training import net

STEPS = 3
NETS = {
    "mlp": lambda: net(16),
    "cnn": lambda: rivals.on_digits("cnn", 8, 2),
    "transformer": lambda: rivals.on_digits("transformer", 16, 2),
}


@pytest.fixture(scope="module", params=NETS)
def case(request):
    """A problem, and the losses of this package, which the steps change by more than they may differ."""
    cell = dataclasses.replace(NETS[request.param](), lr=rivals.CHECKED_LR)
    truth = losses(cell, STEPS)
    assert abs(truth[-1] / truth[0] - 1) > 100 * rivals.SAME
    return problem_of(cell), truth


@pytest.mark.parametrize("cells", [1, 2])
def test_plain_torch_trains_the_same(case, cells):
    problem, truth = case
    assert worst_difference(torch_nets.losses(problem, cells, STEPS), truth) < rivals.SAME


def test_jax_trains_the_same(case):
    pytest.importorskip("jax")
    from benchmark import jax_nets

    problem, truth = case
    for form in jax_nets.FORMS[problem.net]:
        assert worst_difference(jax_nets.losses(problem, 2, form, STEPS), truth) < rivals.SAME


def test_another_network_is_noticed(monkeypatch):
    monkeypatch.setattr(rivals, "losses", lambda cell, steps: [1.0] * steps)
    with pytest.raises(RuntimeError, match="torch must train what is trained here"):
        rivals.check(net(16))


def test_without_jax_the_family_is_skipped(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    family = rivals.measure(quick=True)
    assert not family.lines
    assert "JAX is not installed" in family.skipped


def take(cells):
    return lambda: cells


def test_the_fastest_candidate_is_kept():
    with Workers(count=1) as workers:
        assert workers.best({"slow": (take, 1), "fast": (take, 100), "middle": (take, 10)}, 0.05) == "fast"
        assert workers.rate("fast", 0.05).steps > 0
