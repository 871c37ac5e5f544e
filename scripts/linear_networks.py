"""Mean deviation of finite linear networks from their limit, of thousands of networks of any width.

python scripts/linear_networks.py --depth 2 --gamma 1                 # 4,000 networks of each width
python scripts/linear_networks.py --depth 3 --networks 20000 --widths 64,128,256

Gradient descent on a linear network meets a random matrix only through its products with few vectors. In
orthonormal bases of these, one per layer, the matrix has few entries that are not 0: independent Gaussians,
and a chi variable where a product leaves the basis, the norm of what is left of it (Golub-Kahan
bidiagonalization by blocks). A network of any width is then one of some twenty units. With sqrt(width) for
each chi and 0 for each Gaussian it is the infinitely wide one: a check of `runner.limits`, with whose code
nothing here is shared.

The scatter of single networks is ten to a hundred times their mean deviation. Nearly all of it is taken out,
and no bias comes in: networks are taken in pairs with output weights of opposite sign, as likely, whose gaps
of odd order in gamma are each other's negative; and what the entries of the kernel at init explain is
regressed out, whose mean over networks is exactly that of infinite width.

The task is that of `+experiment=infinite_width`. The learning rate is first the same for all networks, then
in units of each network's own lambda_max, as under `lr_unit=sharpness`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from runner import data
from runner.analysis.limit import QUANTITIES, mean_slope
from runner.limits import Problem, solve
from runner.limits.lazy import initial_kernel

TASK = {
    "_target_": "runner.data.single_index", "seed": 0, "dim": 4, "degree": 1, "inputs": "sphere",
    "train_size": 8, "test_size": 8, "probe_size": 8,
}  # fmt: skip
STEPS = (0, 1, *range(10, 101, 10))
RICH = {1: 0.0022, 2: 0.0015, 3: 0.0012}
"""Learning rates of gamma 10, by depth; that of others is 0.007."""
ROUNDS = 2
"""Times that a random matrix is applied forward and back; more change the limit's loss by 2e-4 at most."""
LEAST_WIDTH = 64
"""Well above the vectors that a basis holds, of which a layer must have room for all."""
LEAST = 100
"""Networks of a width: twice what a regression on some ten entries takes, and some more."""
BATCH = 1000


class Networks(NamedTuple):
    """Linear networks in reduced bases, coordinates over sqrt(width).

    Attributes:
        first: Input weights, [network, unit, input].
        hidden: Hidden weights, [network, unit, unit] each.
        last: Output weights, [network, unit].
    """

    first: Tensor
    hidden: list[Tensor]
    last: Tensor


Entries = dict[tuple[int, ...], np.ndarray]


class _Bases:
    """Orthonormal vectors of each layer, and what Gaussian matrices make of them, network by network."""

    def __init__(self, depth: int, width: float, count: int, rng: np.random.Generator) -> None:
        self.sizes = [0] * depth
        self.width, self.count, self.rng = width, count, rng

    def image(self, layer: int, seen: int) -> dict[int, np.ndarray]:
        """Return a Gaussian vector of a layer by its coordinates from ``seen`` on; the last is a new one."""
        size, infinite = self.sizes[layer], self.width == np.inf
        found = {
            unit: np.zeros(self.count) if infinite else self.rng.standard_normal(self.count) / self.width**0.5
            for unit in range(seen, size)
        }
        if size < self.width:
            square = 1.0 if infinite else self.rng.chisquare(self.width - size, self.count) / self.width
            found[size] = np.full(self.count, square) ** 0.5
            self.sizes[layer] += 1
        return found

    def tensor(self, entries: Entries, *shape: int) -> Tensor:
        """Return entries as a tensor, networks first."""
        found = np.zeros((*shape, self.count))
        for place, values in entries.items():
            found[place] = values
        return torch.from_numpy(np.ascontiguousarray(np.moveaxis(found, -1, 0)))


def networks(
    depth: int, inputs: int, width: float, count: int, rng: np.random.Generator, rounds: int = ROUNDS
) -> Networks:
    """Return networks at init; of infinite width where ``width`` is."""
    bases = _Bases(depth, width, count, rng)
    sizes = bases.sizes
    first: Entries = {}
    hidden: list[Entries] = [{} for _ in range(depth - 1)]
    for column in range(inputs):
        first |= {(row, column): values for row, values in bases.image(0, 0).items()}
    last: Entries = {(row,): values for row, values in bases.image(depth - 1, 0).items()}
    up, down = [0] * (depth - 1), [0] * (depth - 1)
    for _ in range(rounds):
        for layer, entries in enumerate(hidden):
            for column in range(up[layer], sizes[layer]):
                image = bases.image(layer + 1, down[layer])
                entries |= {(row, column): values for row, values in image.items()}
            up[layer] = sizes[layer]
        for layer, entries in reversed([*enumerate(hidden)]):
            for row in range(down[layer], sizes[layer + 1]):
                image = bases.image(layer, up[layer])
                entries |= {(row, column): values for column, values in image.items()}
            down[layer] = sizes[layer + 1]
    pairs = zip(hidden, sizes, sizes[1:], strict=False)
    return Networks(
        bases.tensor(first, sizes[0], inputs),
        [bases.tensor(entries, above, below) for entries, below, above in pairs],
        bases.tensor(last, sizes[-1]),
    )


def train(problem: Problem, inputs: Tensor, nets: Networks, own_unit: bool = False) -> tuple[Tensor, Tensor]:
    """Return losses [step, network] and kernels on the probes [step, network, probe, probe]."""
    x, probes, count = inputs[: problem.train], inputs[problem.train :], problem.train
    first, hidden, last = nets.first.clone(), [each.clone() for each in nets.hidden], nets.last.clone()
    rate = torch.full((len(last), 1), problem.lr, dtype=torch.float64)
    if own_unit:
        theory = torch.linalg.eigvalsh(initial_kernel(problem)[:count, :count])[-1]
        own = x @ _kernel(first, hidden, _gradients(hidden, last)) @ x.mT
        rate = rate * (theory / torch.linalg.eigvalsh(own)[:, -1:])
    losses, kernels = [], []
    start: Tensor | None = None
    for step in range(STEPS[-1] + 1):
        gradients = _gradients(hidden, last)
        slope = torch.einsum("nki,nk->ni", first, gradients[0]) / problem.gamma
        start = slope if start is None else start
        rest = problem.targets - (slope - start) @ x.mT
        if step in STEPS:
            losses.append(rest.square().mean(1) / 2)
            kernels.append(probes @ _kernel(first, hidden, gradients) @ probes.mT)
        change = rate * problem.gamma / count * rest @ x
        features = [torch.einsum("nki,ni->nk", first, change)]
        for each in hidden:
            features.append(torch.einsum("nkj,nj->nk", each, features[-1]))
        first += gradients[0][:, :, None] * change[:, None]
        for layer, each in enumerate(hidden):
            each += gradients[layer + 1][:, :, None] * features[layer][:, None]
        last = last + features[-1]
    return torch.stack(losses), torch.stack(kernels)


def _gradients(hidden: Sequence[Tensor], last: Tensor) -> list[Tensor]:
    """Return the gradients of the output with respect to each layer."""
    gradients = [last]
    for each in reversed(hidden):
        gradients.insert(0, torch.einsum("nkj,nk->nj", each, gradients[0]))
    return gradients


def _kernel(first: Tensor, hidden: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    """Return M [network, input, input]: the kernel is x M x^T."""
    sizes = [each.square().sum(1)[:, None, None] for each in gradients]
    kernel = sizes[0] * torch.eye(first.shape[2], dtype=torch.float64)
    for size, each in zip(sizes[1:], hidden, strict=True):
        kernel = kernel + size * (first.mT @ first)
        first = each @ first
    return kernel + first.mT @ first


def problem_of(depth: int, gamma: float) -> tuple[Problem, Tensor]:
    """Return the limit's problem of the experiment, and the inputs, training samples first."""
    task = data.load(TASK)
    inputs = torch.cat([task.train.inputs, task.probe.inputs]).double() / TASK["dim"] ** 0.5  # type: ignore[operator]
    ones, lr = (1.0,) * (depth + 1), RICH[depth] if gamma == 10 else 0.007
    problem = Problem(
        inputs @ inputs.mT, task.train.targets.double()[:, 0], "linear", 1.0, gamma, ones, ones, STEPS
    )
    kernel = initial_kernel(problem)[: problem.train, : problem.train] / problem.train
    return replace(problem, lr=lr / float(torch.linalg.eigvalsh(kernel)[-1])), inputs


def gaps(
    problem: Problem, inputs: Tensor, width: int, count: int, own_unit: bool, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return the gaps of pairs of networks of a width, and what of the kernel at init has a known mean.

    Args:
        count: Pairs.

    Returns:
        ``loss_gap`` and ``kernel_gap`` of :func:`runner.analysis.limit.gaps`, mean over the pair, [pair, 2];
        and entries of the kernel at init less those of infinite width, [pair, entry].
    """
    size = inputs.shape[1]
    infinite = networks(problem.depth, size, np.inf, 1, rng)
    limit, theta = train(problem, inputs, infinite)
    upper = torch.triu_indices(size, size).unbind()
    found, controls = [], []
    for done in range(0, count, BATCH):
        nets = networks(problem.depth, size, width, min(BATCH, count - done), rng)
        pair = []
        for one in (nets, nets._replace(last=-nets.last)):
            losses, kernels = train(problem, inputs, one, own_unit)
            along = ((kernels - theta) * theta).sum((-1, -2)) / theta.square().sum((-1, -2))
            pair.append(torch.stack([losses[1:].sum(0) / limit[1:].sum() - 1, along[1:].mean(0)], 1))
        found.append((pair[0] + pair[1]) / 2)
        controls.append((initial(nets) - initial(infinite))[:, upper[0], upper[1]])
    return torch.cat(found).numpy(), torch.cat(controls).numpy()


def initial(nets: Networks) -> Tensor:
    """Return M of networks as they are, [network, input, input]: the kernel is x M x^T."""
    return _kernel(nets.first, nets.hidden, _gradients(nets.hidden, nets.last))


def without(controls: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return means of values, less what controls of mean 0 explain, and their standard errors."""
    rows = np.column_stack([np.ones(len(controls)), controls])
    found, *_ = np.linalg.lstsq(rows, values, rcond=None)
    rest = values - rows @ found
    return found[0], (rest**2).sum(0) ** 0.5 / (len(rows) * (len(rows) - rows.shape[1])) ** 0.5


def orders(width: np.ndarray, mean: np.ndarray, error: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Return a and b of mean = a / width + b / width^2, their standard errors, and chi^2 per free width."""
    rows = np.stack([1 / width, 1 / width**2], 1) / error[:, None]
    found, *_ = np.linalg.lstsq(rows, mean / error, rcond=None)
    rest = mean / error - rows @ found
    errors = np.linalg.inv(rows.T @ rows).diagonal() ** 0.5
    return found, errors, float(rest @ rest) / max(1, len(width) - 2)


def numbers(text: str) -> list[float]:
    """Return what commas separate."""
    return [float(part) for part in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--depth", type=numbers, default="1,2,3", help="of hidden layers: %(default)s")
    parser.add_argument("--gamma", type=numbers, default="0.1,1,10", help="%(default)s")
    parser.add_argument("--widths", type=numbers, default="64,128,256,512,1024", help="%(default)s")
    parser.add_argument("--networks", type=int, default=4000, help="of each width (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if unknown := sorted({*options.depth} - {*RICH}):
        parser.error(f"--depth must be of {', '.join(map(str, RICH))}, got {unknown[0]:g}")
    if len(options.widths) < 2 or min(options.widths) < LEAST_WIDTH or options.networks < LEAST:
        parser.error(
            f"--widths must be two or more of at least {LEAST_WIDTH}, and --networks at least {LEAST}"
        )
    torch.set_num_threads(1)
    widths = [int(width) for width in options.widths]
    print("width * mean deviation, +- its standard error; slope, 95 % interval; a / width + b / width^2")
    for depth in map(int, options.depth):
        for gamma in options.gamma:
            problem, inputs = problem_of(depth, gamma)
            rng = np.random.default_rng(options.seed)
            losses, _ = train(problem, inputs, networks(depth, inputs.shape[1], np.inf, 1, rng, ROUNDS + 1))
            apart = float((losses[:, 0] / solve(problem).loss - 1).abs().max())
            print(f"depth {depth}, gamma {gamma:g}; the limit's loss is the solver's within {apart:.0e}")
            for unit in ("absolute", "sharpness"):
                own = unit == "sharpness"
                pairs = (gaps(problem, inputs, width, options.networks // 2, own, rng) for width in widths)
                tell(unit, np.array(widths, float), [without(controls, each) for each, controls in pairs])


def tell(unit: str, width: np.ndarray, found: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
    """Print the means and their slopes, of means and errors by width."""
    for place, quantity in enumerate(QUANTITIES):
        mean, error = (np.array([each[of][place] for each in found]) for of in (0, 1))
        slope, low, high = mean_slope(width, mean, error)
        law = f"{slope:.2f} [{low:.2f}, {high:.2f}]" if high - low < 2 else "none"
        each = "  ".join(_with_error(*pair) for pair in zip(width * mean, width * error, strict=True))
        (a, b), (of_a, of_b), chi = orders(width, mean, error)
        print(f"  lr_unit={unit:9} {quantity:6}  {each}", flush=True)
        print(f"    slope {law}; a {_with_error(a, of_a)}, b {_with_error(b, of_b)}, chi^2 {chi:.1f} a width")


def _with_error(value: float, error: float) -> str:
    digits = max(0, 1 - int(np.floor(np.log10(error))))  # two of the error
    return f"{value:+.{digits}f} +- {error:.{digits}f}"


if __name__ == "__main__":
    main()
