r"""How far a network is from the infinitely wide one of its own parameterization, all along training.

The limit is that of :mod:`runner.limits`: mean-field for ``mup`` and ``mean_field``, lazy for ``ntk``. It is
the same for all widths and seeds, and solved once.
"""

import json
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from runner import data
from runner.grid.cell import Cell
from runner.limits import Limit, Problem, Sampling, limit_of, problem_of
from runner.measures.probe_kernel import probe_ntk
from runner.measures.schedule import measuring_steps, scheduled
from runner.measures.snapshot import Measurement, Snapshot

NAME = "limit_distance"
_ANY_WIDTH = 1024
"""The limit does not depend on it."""


def limit_distance(
    now: Snapshot, start: Snapshot, *, units: int = 4096, replicas: int = 16, error: float = 0.01,
    tolerance: float = 0.02,
) -> Measurement:  # fmt: skip
    r"""Return how far function and kernel on probes are from those of infinite width at the same step.

        limit_function_distance = RMS(f - f_inf) / RMS(f_inf)
        limit_kernel_distance   = norm_F(Theta - Theta_inf) / norm_F(Theta_inf)
        limit_kernel_gap        = <Theta - Theta_inf, Theta_inf> / norm_F(Theta_inf)^2

    Args:
        units: Units of a layer in one sample of the limit; see :class:`runner.limits.Sampling`.
        replicas: Independent samples at most.
        error: Standard error at which no more are drawn.
        tolerance: What may be left out of a field, relative to it.

    Returns:
        These per cell, the last of which has a sign; ``limit_train_loss`` and ``lazy_train_loss``, the
        training losses of infinite width at the cell's richness and without any; ``limit_error``, the
        standard error of the limit. Nothing at a step that the config did not name, where a cell was stopped.

    References:
        Bordelon & Pehlevan (2022), arXiv 2205.09653.
    """
    sampling = Sampling(units, replicas, error, tolerance)
    problems = [problem_for(cell) for cell in now.ensemble.cells]
    if now.step not in problems[0].steps:
        return Measurement()
    place = problems[0].steps.index(now.step)
    limits = [limit_of(problem, sampling) for problem in problems]
    lazy = [limit_of(replace(problem, gamma=0.0), sampling) for problem in problems]
    f = now.outputs("probe").double()[:, :, 0]
    kernel = probe_ntk(now).double().flatten(1)
    train = problems[0].train
    f_inf = torch.stack([limit.mean_outputs[place, train:] for limit in limits]).to(f)
    kernel_inf = torch.stack([limit.mean_kernel[place].flatten() for limit in limits]).to(f)
    size = kernel_inf.norm(dim=1)
    trace = {
        "limit_kernel_distance": (kernel - kernel_inf).norm(dim=1) / size,
        "limit_kernel_gap": ((kernel - kernel_inf) * kernel_inf).sum(1) / size**2,
        "limit_train_loss": _stacked(limits, "loss", place).to(f),
        "lazy_train_loss": _stacked(lazy, "loss", place).to(f),
        "limit_error": _stacked(limits, "errors", place).to(f),
    }
    if now.step:  # at init it is 0 but for rounding
        trace["limit_function_distance"] = (f - f_inf).norm(dim=1) / f_inf.norm(dim=1)
    return Measurement(trace=trace)


def prepare(start: Snapshot, **options: Any) -> None:
    """Compute the kernel on probes at init."""
    probe_ntk(start)


def wanted_limit(cell: Cell) -> tuple[Problem, Sampling] | None:
    """Return the limit that a cell's measures ask for; None if they ask for none."""
    sampling = _sampling(cell.settings)
    return None if sampling is None else (problem_for(cell), sampling)


def problem_for(cell: Cell) -> Problem:
    """Return the limit of a cell at its measured steps."""
    return _problem(replace(cell, width=_ANY_WIDTH, seed=0))


@lru_cache(maxsize=1024)
def _problem(cell: Cell) -> Problem:
    sections = json.loads(cell.settings)
    steps = measuring_steps(cell.steps, sections["measure"])
    return problem_of(cell, data.load(sections["data"]), tuple(steps))


@lru_cache(maxsize=1024)
def _sampling(settings: str) -> Sampling | None:
    for measure in scheduled(json.loads(settings).get("measure", {})).values():
        if measure.declared.name == NAME:
            return Sampling(**measure.options)
    return None


def _stacked(limits: list[Limit], name: str, place: int) -> Float64[Tensor, "cell"]:
    return torch.stack([getattr(limit, name)[place] for limit in limits])
