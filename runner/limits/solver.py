"""The limit of a problem, from as many samples as it takes, and how far it can be trusted."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
from jaxtyping import Float64
from torch import Tensor

from runner.errors import UserError
from runner.limits.lazy import initial_kernel, kernel_descent
from runner.limits.march import March
from runner.limits.problem import Problem

LEAST = 4
"""Replicas of which a standard error is taken."""
_LEAST_UNITS = 64


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a limit is sampled that has no closed form.

    Attributes:
        units: Units of a layer in one replica.
        replicas: Independent replicas at most.
        error: Standard error at which no more are added: of the loss, relative to the loss at init, and of
            the kernel on probes, relative to its norm.
        tolerance: Root mean square of what may be left out of a field, relative to the field.
    """

    units: int = 4096
    replicas: int = 16
    error: float = 0.01
    tolerance: float = 0.02

    def check(self, key: str) -> None:
        """Raise UserError for what cannot be sampled.

        Args:
            key: Where the options stand in the config.
        """
        for name, least in (("units", _LEAST_UNITS), ("replicas", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise UserError(f"{key}.{name} must be an integer >= {least}, got {value!r}")
        for name in ("error", "tolerance"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1:
                raise UserError(f"{key}.{name} must lie between 0 and 1, got {value!r}")


@dataclass(frozen=True, eq=False)
class Limit:
    """A solved limit, replica by replica; a linear network and the lazy limit have one, without an error.

    Attributes:
        problem: What was solved.
        outputs: f of all samples.
        kernel: The lr-weighted kernel on the probes; on the training samples where there are no probes.
        dropped: Largest share of a field that was left out.
    """

    problem: Problem
    outputs: Float64[Tensor, "replica step sample"]
    kernel: Float64[Tensor, "replica step probe probe"]
    dropped: float

    @cached_property
    def mean_outputs(self) -> Float64[Tensor, "step sample"]:
        """Mean of f over the replicas."""
        return self.outputs.mean(0)

    @cached_property
    def mean_kernel(self) -> Float64[Tensor, "step probe probe"]:
        """Mean of the kernel over the replicas."""
        return self.kernel.mean(0)

    @cached_property
    def loss(self) -> Float64[Tensor, "step"]:
        """The training loss, half the mean squared error, of the mean of f."""
        return self._losses(self.mean_outputs)

    @cached_property
    def loss_error(self) -> Float64[Tensor, "step"]:
        """Standard error of the loss; 0 where nothing is sampled."""
        losses = self._losses(self.outputs)
        return _standard_error(losses, self.problem.exact)

    @cached_property
    def kernel_error(self) -> Float64[Tensor, "step"]:
        """Standard error of the kernel, relative to its norm."""
        each = _standard_error(self.kernel, self.problem.exact)
        relative: Tensor = each.flatten(1).norm(dim=1) / self.mean_kernel.flatten(1).norm(dim=1)
        return relative

    @cached_property
    def errors(self) -> Float64[Tensor, "step"]:
        """Standard error at each step, the larger of two: of the loss over that at init, of the kernel."""
        loss = self.loss_error / self._losses(torch.zeros_like(self.mean_outputs[:1]))
        return torch.maximum(loss, self.kernel_error)

    @property
    def error(self) -> float:
        """The largest of them."""
        return float(self.errors.max())

    def suffices(self, sampling: Sampling) -> bool:
        """Return whether no more replicas are asked for."""
        done = len(self.outputs)
        if self.problem.exact or done >= sampling.replicas:
            return True
        # Where it diverges, more replicas do not make it finite.
        return done >= LEAST and not self.error > sampling.error

    def unreached(self, sampling: Sampling) -> str:
        """Return in words what of the limit was not reached, and what to do; nothing where all of it was."""
        finite = self.outputs.isfinite().all(-1).all(0)
        if not bool(finite.all()):
            first = self.problem.steps[int(finite.logical_not().nonzero()[0])]
            return f"it diverges, by step {first}; lower lr"
        found = []
        if not self.problem.exact and not self.error <= sampling.error:
            found.append(
                "no standard error of one sample"
                if len(self.outputs) == 1
                else f"standard error {self.error:.2g} > {sampling.error:g} after {len(self.outputs)} samples"
            )
        if not self.problem.exact and self.dropped > sampling.tolerance:
            found.append(
                f"{self.dropped:.2g} > {sampling.tolerance:g} of a field left out at {sampling.units} units"
            )
        more = "; raise units or replicas of measure.functions.limit_distance"
        return ", ".join(found) + more if found else ""

    def _losses(self, outputs: Float64[Tensor, "*step sample"]) -> Float64[Tensor, "*step"]:
        rest = outputs[..., : self.problem.train] - self.problem.targets
        losses: Tensor = rest.square().mean(-1) / 2
        return losses


def solve(
    problem: Problem, sampling: Sampling | None = None, before: Limit | None = None,
    after_replica: Callable[[Limit], object] = lambda limit: None,
    progress: Callable[[int, int], object] = lambda replica, step: None,
) -> Limit:  # fmt: skip
    """Return the limit of a problem.

    Args:
        sampling: How it is sampled; the defaults by default.
        before: Replicas that there are already: the result is that of an uninterrupted call.
        after_replica: Called with all replicas so far after each of them.
        progress: Called with the number of the replica and the step, before each; what it raises ends it.

    Returns:
        The limit; its ``error`` may exceed ``sampling.error``, and its ``dropped`` ``sampling.tolerance``,
        where the most replicas or vectors did not suffice.
    """
    sampling = sampling or Sampling()
    if problem.gamma == 0:
        kernel = initial_kernel(problem)
        outputs = kernel_descent(problem, kernel)
        kept = _probes(problem, kernel.expand(len(outputs), -1, -1))
        return Limit(problem, outputs[None], kept[None], 0.0)
    found = before
    while found is None or not found.suffices(sampling):
        done = 0 if found is None else len(found.outputs)
        march = March(problem, sampling.units, sampling.tolerance, done)
        one = march.run(partial(progress, done))
        limit = Limit(problem, one.outputs[None], _probes(problem, one.kernel(problem))[None], one.dropped)
        found = limit if found is None else _joined([found, limit])
        after_replica(found)
    return found


def _joined(limits: Sequence[Limit]) -> Limit:
    """Return the replicas of several limits as those of one."""
    return replace(
        limits[0],
        outputs=torch.cat([one.outputs for one in limits]),
        kernel=torch.cat([one.kernel for one in limits]),
        dropped=max(one.dropped for one in limits),
    )


def _probes(
    problem: Problem, kernel: Float64[Tensor, "step sample sample"]
) -> Float64[Tensor, "step probe probe"]:
    first = problem.train if len(problem.gram) > problem.train else 0
    return kernel[:, first:, first:]


def _standard_error(replicas: Float64[Tensor, "replica *rest"], exact: bool) -> Float64[Tensor, "*rest"]:
    """Return the standard error of a mean over replicas: NaN of one, but 0 where nothing is sampled."""
    if exact:
        return torch.zeros_like(replicas[0])
    error: Tensor = replicas.std(0) / len(replicas) ** 0.5
    return error
