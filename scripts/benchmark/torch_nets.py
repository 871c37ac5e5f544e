"""The networks of the benchmark in plain torch: one cell at a time, and compiled, alone or under `vmap`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.func import grad_and_value, vmap
from torch.nn import functional

from benchmark.problem import Problem
from benchmark.processes import Steps

Weights = dict[str, Tensor]


class Net:
    """A problem's network, of one cell.

    Args:
        problem: What it trains.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.start = {path: torch.tensor(value) for path, value in problem.weights.items()}
        self.inputs = torch.tensor(problem.inputs)
        self.forward = {"mlp": self._mlp, "cnn": self._cnn, "transformer": self._transformer}[problem.net]
        with torch.no_grad():
            self.wanted = self.forward(self.start) + torch.tensor(problem.targets)

    def loss(self, weights: Weights) -> Tensor:
        """Return sum (f - y)^2 / (2 samples)."""
        return (self.forward(weights) - self.wanted).square().sum() / (2 * len(self.inputs))

    def step(self, weights: Weights) -> tuple[Weights, Tensor]:
        """Return the weights after a step, and the loss before it: a pure function."""
        slopes, loss = grad_and_value(self.loss)(weights)
        moved = {
            path: torch.sub(weights[path], slopes[path], alpha=r) for path, r in self.problem.rates.items()
        }
        return moved, loss

    def _mlp(self, weights: Weights) -> Tensor:
        x = self.inputs
        for layer in range(self.problem.depth):
            x = torch.relu(x @ weights[f"hidden.{layer}.weight"])
        return x @ weights["output.weight"]

    def _cnn(self, weights: Weights) -> Tensor:
        x = self.inputs
        for layer in range(self.problem.depth):
            kernel = weights[f"hidden.{layer}.weight"]
            x = torch.relu(functional.conv2d(x, kernel, padding=kernel.shape[-1] // 2))
        return x.mean((2, 3)) @ weights["output.weight"]

    def _transformer(self, weights: Weights) -> Tensor:
        x = self.inputs @ weights["embedding.weight"] + weights["position.weight"]
        for block in range(self.problem.depth):
            part = f"blocks.{block}"
            x = x + self._attend(_norm(x, weights[f"{part}.attention_norm.weight"]), weights, part)
            inner = _norm(x, weights[f"{part}.norm.weight"]) @ weights[f"{part}.up.weight"]
            x = x + functional.gelu(inner) @ weights[f"{part}.down.weight"]
        return _norm(x, weights["norm.weight"]).mean(1) @ weights["output.weight"]

    def _attend(self, x: Tensor, weights: Weights, part: str) -> Tensor:
        query, key, value = (
            (x @ weights[f"{part}.attention.{name}.weight"]).view(*x.shape[:2], self.problem.heads, -1)
            for name in ("query", "key", "value")
        )
        logits = (query * self.problem.logit_factor).transpose(1, 2) @ key.transpose(1, 2).mT
        mixed: Tensor = (logits.softmax(-1) @ value.transpose(1, 2)).transpose(1, 2).flatten(2)
        return mixed @ weights[f"{part}.attention.output.weight"]


def _norm(x: Tensor, gain: Tensor) -> Tensor:
    return functional.layer_norm(x, (x.shape[-1],)) * gain


def plain(problem: Problem) -> Steps:
    """Return what takes a step of one cell by autograd, on one thread."""
    torch.set_num_threads(1)
    net = Net(problem)
    weights = {path: value.requires_grad_() for path, value in net.start.items()}
    pairs = [(weights[path], rate) for path, rate in problem.rates.items()]

    def call() -> int:
        slopes = torch.autograd.grad(net.loss(weights), [weight for weight, _ in pairs])
        with torch.no_grad():
            for (weight, rate), slope in zip(pairs, slopes, strict=True):
                weight.sub_(slope, alpha=rate)
        return 1

    call()
    return call


def compiled(problem: Problem, cells: int) -> Steps:
    """Return what takes a step through `torch.compile`, of one cell or of copies under `vmap`."""
    torch.set_num_threads(1)
    torch.compiler.reset()  # after some networks it would give up compiling anew
    step, state = _stepper(problem, cells, through_compiler=True)

    def call() -> int:
        state[0], _ = step(state[0])
        return cells

    call()
    return call


def losses(problem: Problem, cells: int, count: int) -> list[float]:
    """Return the loss of the last copy before each of some steps, not compiled."""
    step, state = _stepper(problem, cells, through_compiler=False)
    found = []
    for _ in range(count):
        state[0], loss = step(state[0])
        found.append(float(loss.flatten()[-1]))
    return found


def _stepper(problem: Problem, cells: int, *, through_compiler: bool) -> tuple[Any, list[Weights]]:
    net = Net(problem)
    step: Any = net.step if cells == 1 else vmap(net.step)
    start = net.start
    if cells > 1:
        start = {path: value.expand(cells, *value.shape).contiguous() for path, value in start.items()}
    return torch.compile(step) if through_compiler else step, [start]
