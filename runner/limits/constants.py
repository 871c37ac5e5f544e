r"""Which limit a cell has, and the constants in it.

Of an MLP of L hidden layers, with W_l = r^(-a) w_l the weights in force and n the width, the numbers that the
limit takes are, under gradient descent with the rates eta r^(-c),

    s       = standard deviation of an output weight in force, at sigma 1
    gamma'  = gamma / (n s)
    k_0     = n s^2 r^(-c - 2a)         input weights
    k_l     = n^2 s^2 r^(-c - 2a)       hidden weights
    k_L     = n r^(-c - 2a)             output weights

each times the role's own factor of the learning rate. The limit exists if none of the k_l depends on n: then
it is the mean-field limit where gamma' does not either (``mup``, ``mean_field``), and the lazy one, of gamma'
= 0, where gamma' falls (``ntk``). With ``base_width`` 1 and ``mup`` all k_l are 1 and gamma' is gamma.

References:
    Bordelon & Pehlevan (2022), arXiv 2205.09653, section 2 and appendix D; Yang & Hu (2021),
    arXiv 2011.14522, section 5.
"""

import json
import math
from dataclasses import replace

import torch

from runner.data import Dataset
from runner.errors import UserError
from runner.grid.cell import Cell
from runner.limits.lazy import initial_kernel
from runner.limits.problem import Problem
from runner.numerics.threads import threads
from runner.scaling.parameterization import Role, Scaling


class _Law:
    """The constants of a network of a cell's width."""

    def __init__(self, cell: Cell) -> None:
        scaling, n = Scaling([cell]), float(cell.width)
        output = float(scaling.multiplier("output") * scaling.init_size("output", cell.width, 1.0))
        hidden = float(scaling.multiplier("hidden") * scaling.init_size("hidden", cell.width, 1.0))
        first = float(scaling.multiplier("input") * scaling.init_size("input", 1, 1.0))
        self.gamma = cell.gamma / (n * output)
        sizes: dict[Role, float] = {"input": n * output**2, "hidden": (n * output) ** 2, "output": n}
        self.rates: dict[Role, float] = {
            role: size * float(scaling.lr(role, "sgd") * scaling.multiplier(role) ** 2)
            for role, size in sizes.items()
        }
        self.sizes: dict[Role, float] = {"input": first, "hidden": hidden * math.sqrt(n), "output": 1.0}
        self.sigmas: dict[Role, float] = {role: float(scaling.sigma(role)) for role in sizes}

    def same(self, other: "_Law") -> bool:
        """Return whether all but gamma is that of another width."""
        both = ((self.rates, other.rates), (self.sizes, other.sizes))
        return all(math.isclose(one[role], two[role], rel_tol=1e-9) for one, two in both for role in one)


def require_limit(name: str, cell: Cell) -> None:
    """Raise UserError unless networks of a cell have a limit that is not random.

    Args:
        name: Of the measure that asks.
    """
    here, wider = _Law(cell), _Law(replace(cell, width=4 * cell.width))
    if not here.same(wider) or wider.gamma > here.gamma * (1 + 1e-9):
        raise UserError(
            f"parameterization must have an infinite-width limit at a fixed lr for the measure {name}, got "
            f"{cell.parameterization}; use mup, mean_field or ntk, or leave {name} out of measure"
        )
    if wider.gamma < here.gamma * (1 - 1e-9) and not (cell.center_output or cell.symmetric_init):
        raise UserError(
            f"center_output must be true for the measure {name} under {cell.parameterization}, whose outputs "
            f"at init stay random at any width, got false; set it, or leave {name} out of measure"
        )


@threads(1)  # of as many the last bits are others, and with them the name under which a limit is kept
def problem_of(cell: Cell, dataset: Dataset, steps: tuple[int, ...]) -> Problem:
    """Return the limit that a cell's networks go to as their width grows.

    Args:
        cell: Of an MLP with one output; its width does not matter, nor its seed.
        dataset: What it trains on.
        steps: Steps whose results are wanted.

    Raises:
        UserError: If its networks have no such limit.
    """
    require_limit("limit_distance", cell)
    model = json.loads(cell.settings)["model"]
    law, wider = _Law(cell), _Law(replace(cell, width=4 * cell.width))
    inputs = torch.cat([dataset.train.inputs, dataset.probe.inputs]).double().flatten(1)
    scale = 1 / math.sqrt(inputs.shape[1]) if model.get("normalize_input") else 1.0
    roles: list[Role] = ["input", *["hidden"] * (cell.depth - 1), "output"]  # type: ignore[list-item]
    sigma = float(model.get("sigma_weight", 1.0))
    sigmas = [sigma * law.sizes[role] * law.sigmas[role] for role in roles]
    # What the first layer is given is multiplied by the scale; its weights are drawn larger by the inverse.
    sigmas[0] /= scale * math.sqrt(inputs.shape[1])
    problem = Problem(
        gram=scale**2 * (inputs @ inputs.mT),
        targets=dataset.train.targets.double()[:, 0],
        activation=str(model.get("activation", "relu")),
        lr=cell.lr,
        gamma=law.gamma if math.isclose(law.gamma, wider.gamma, rel_tol=1e-9) else 0.0,
        rates=tuple(law.rates[role] for role in roles),
        sigmas=tuple(sigmas),
        steps=tuple(sorted(steps)),
    )
    if cell.lr_unit == "sharpness":
        train = initial_kernel(problem)[: problem.train, : problem.train] / problem.train
        return replace(problem, lr=cell.lr / float(torch.linalg.eigvalsh(train)[-1]))
    return problem
