"""Parameters that a module of another kind uses in its own way."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from runner.errors import UserError
from runner.grid.cell import Cell
from runner.layers.base import Call, Layer
from runner.layers.specs import ParameterSpec
from runner.scaling.parameterization import Role, Scaling


class Opaque(Layer):
    """Parameters whose gradients are known only as autograd gives them, one sample at a time.

    On the tape its outputs are the raw parameters themselves, once for every sample: then the gradients with
    respect to its outputs are those of each sample with respect to the parameters.

    Args:
        specs: Description of each parameter; one is called ``weight``.
        ties: Another name under which a parameter is used, to that parameter and the role that it has there.

    Attributes:
        activations: Numbers that its uses return for one sample.
        multiplications: Multiplications by a matrix that they take.
    """

    def __init__(
        self, specs: Mapping[str, ParameterSpec], ties: Mapping[str, tuple[str, Role]] | None = None
    ) -> None:
        super().__init__()
        for name, spec in specs.items():
            self.declare(name, spec)
        self.activations = self.multiplications = 0
        self.ties = dict(ties or {})
        for name in self.ties:
            self.register_buffer(f"{name}_multiplier", torch.empty(0), persistent=False)

    @property
    def sizes(self) -> list[int]:
        """Numbers in each parameter of a cell."""
        return [math.prod(spec.shape) for spec in self.specs.values()]

    def populate(self, cells: Sequence[Cell], like: Tensor) -> None:
        """Draw the parameters, and set the multipliers of both roles of those that are tied."""
        super().populate(cells, like)
        scaling = Scaling(cells)
        for name, (_, role) in self.ties.items():
            value = scaling.multiplier(role).to(like)
            self.register_buffer(f"{name}_multiplier", value, persistent=False)

    def paired(self, name: str, draw: Tensor) -> Tensor:
        """Refuse: which of its numbers belong to which unit is not known."""
        raise UserError(
            f"symmetric_init must be false where layers are not Linear, Conv2d, Embedding or LayerNorm, got "
            f"{name} at {self.name}; leave it out, or use center_output=true"
        )

    def kernel_factor(self, name: str) -> Float[Tensor, "cell"]:
        """Return k r^(-c) alone: the gradients are those with respect to raw parameters."""
        factor: Tensor = getattr(self, f"{name}_kernel_weight")
        return factor

    def cost(self, call: Call) -> tuple[int, int]:
        """Return what the uses of the parameters cost for one sample."""
        return self.activations, self.multiplications

    def jacobians(
        self,
        columns: Float[Tensor, "#cell sample position 1"],
        rows: Float[Tensor, "cell output sample position parameter"],
    ) -> Iterator[tuple[str, Float[Tensor, "cell output sample parameter"]]]:
        """Yield the gradients, which are the rows themselves."""
        yield from zip(self.specs, torch.split(rows.sum(3), self.sizes, 3), strict=True)


class Mark(Layer):
    """A place in a network without parameters of its own, whose representation is followed.

    Args:
        role: What a table says of it: the role that a parameter of another layer has here, or ``activation``.
    """

    def __init__(self, role: Role | Literal["activation"]) -> None:
        super().__init__()
        self._role = role

    @property
    def role(self) -> str:
        """What was given."""
        return self._role
