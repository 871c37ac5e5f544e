"""What a limit is solved for: a task, and the constants of an infinitely wide network."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from jaxtyping import Float64
from torch import Tensor

from runner.grid.cell import canonical_json

VERSION = 1
"""Changes whenever the same problem would get other numbers; limits solved before are then solved again."""


@dataclass(frozen=True, eq=False)
class Problem:
    """A task and the constants of an infinitely wide network that trains on it.

    Attributes:
        gram: x . x' of inputs as the first layer is given them, of the training samples and then the probes.
        targets: Of the training samples.
        activation: Its name.
        lr: Learning rate eta.
        gamma: Richness gamma'; 0 is the lazy limit.
        rates: k_0 ... k_L, the factors of the layers' learning rates.
        sigmas: Standard deviations of the weights at init, times the root of fan-in: of input weights as the
            factor of x . x' in the covariance of what they give.
        steps: Steps whose results are wanted, sorted.
    """

    gram: Float64[Tensor, "sample sample"]
    targets: Float64[Tensor, "train"]
    activation: str
    lr: float
    gamma: float
    rates: tuple[float, ...]
    sigmas: tuple[float, ...]
    steps: tuple[int, ...]

    @property
    def depth(self) -> int:
        """Hidden layers."""
        return len(self.rates) - 1

    @property
    def train(self) -> int:
        """Training samples; the others are probes."""
        return len(self.targets)

    @property
    def exact(self) -> bool:
        """Whether the limit needs no sampling: all fields of a linear network are Gaussian."""
        return self.activation == "linear" or self.gamma == 0

    def key(self, more: Mapping[str, Any] | None = None) -> str:
        """Return a name for the numbers of this limit.

        Args:
            more: What else they depend on: how they are sampled.
        """
        named = ((field.name, getattr(self, field.name)) for field in fields(self))
        numbers = {name: value for name, value in named if not isinstance(value, Tensor)}
        digest = hashlib.sha256(canonical_json({"version": VERSION, **numbers, **(more or {})}).encode())
        for tensor in (self.gram, self.targets):
            digest.update(tensor.numpy().tobytes())
        return digest.hexdigest()[:20]
