r"""Muon: steps of orthogonalized momentum for the matrices between hidden layers, AdamW for the rest.

How a step scales with width. A matrix in force, W = r^(-a) w, maps features whose entries are of order one to
features whose entries are. Those have norms sqrt(fan_in) and sqrt(fan_out), so a change of W whose spectral
norm is lr * sqrt(fan_out / fan_in) moves the entries of its outputs by lr at most; and the largest singular
vectors of a gradient do lie along the features, so that they move by that order at any width. Orthogonalized
momentum O has all its singular values near one, whatever the scale of the gradient. So the change is::

    Delta W = -lr * gamma * k * sqrt(fan_out / fan_in) * O
    Delta w = r^a Delta W

No exponent c is in it: where c speaks of the size of an entry, here the spectral norm is given. Since a
hidden matrix in force starts alike in every table with a + b = 1/2, it also trains alike in all of them, and
tables differ by their input and output weights, which AdamW trains with Adam's c. Under a + t, b - t a raw
weight grows by r^t, and so does its step: ``mup`` and ``mean_field`` are one network.

References:
    Jordan et al. (2024), "Muon: An optimizer for hidden layers in neural networks",
    https://kellerjordan.github.io/posts/muon. Spectral norms: Yang, Simon & Bernstein (2023), "A spectral
    condition for feature learning", arXiv 2310.17813, condition 1.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from runner.errors import unknown
from runner.grid.cell import Cell
from runner.layers import ParameterSpec
from runner.layers.contraction import symmetric_product
from runner.optim.adam import AdamW
from runner.optim.checks import below_one, flag, positive
from runner.optim.slot import Slot
from runner.scaling.parameterization import Factor, Scaling

SCALES: dict[str, Callable[[float, float], float]] = {
    "spectral": lambda fan_in, fan_out: math.sqrt(fan_out / fan_in),
    "max_one": lambda fan_in, fan_out: math.sqrt(max(1.0, fan_out / fan_in)),
    "match_rms": lambda fan_in, fan_out: 0.2 * math.sqrt(max(fan_in, fan_out)),
}
"""Name -> factor of an orthogonalized step, of fan_in and fan_out."""
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of X, (X X^T) X and (X X^T)^2 X in an iteration."""
ITERATIONS = 5


@dataclass(kw_only=True, eq=False)
class Muon(AdamW):
    """Muon for hidden weights: ``w <- w - lr * gamma * r^a * scale * O``, O the orthogonalized momentum.

    Momentum is a running mean of gradients, or after Nesterov (1 - mu) grad + mu times it; O is it with its
    singular values brought near one by :func:`orthogonalize`. A hidden convolution is the matrix of its
    kernels, fan_out x (fan_in k k). All other parameters are AdamW's, whose lr is ``adam_lr`` times lr.

    Args:
        momentum: Weight of the past mu in the running mean, in [0, 1).
        nesterov: Whether to look ahead.
        scale: ``spectral``, sqrt(fan_out / fan_in), moves features as much at any width and any ratio of the
            two; ``max_one``, sqrt(max(1, fan_out / fan_in)), is the same where layers do not narrow;
            ``match_rms``, 0.2 sqrt(max(fan_in, fan_out)), gives full-rank steps the root mean square of
            Adam's, and grows as sqrt(width): features move ever more.
        adam_lr: Learning rate of AdamW's parameters over lr.
        betas: Of AdamW's parameters; so is eps.
        weight_decay: See :class:`runner.optim.Optimizer`, decoupled; AdamW's parameters lose adam_lr times
            the share, but for independent decay. The others are the base class's.

    References:
        Jordan et al. (2024), with their code https://github.com/KellerJordan/Muon; there 1e-7 stands beside
        the norm that a gradient is divided by, which has the gradient's units and is left out. ``spectral``:
        Yang, Simon & Bernstein (2023), arXiv 2310.17813; ``match_rms``: Liu et al. (2025), "Muon is scalable
        for LLM training", arXiv 2502.16982.
    """

    momentum: float = 0.95
    nesterov: bool = True
    scale: str = "spectral"
    adam_lr: float = 1.0
    betas: Sequence[float] = (0.9, 0.95)
    eps: float = 1e-10
    weight_decay: float = 0.0

    def __post_init__(self, model: nn.Module, cells: Sequence[Cell], lr: Float[Tensor, "cell"]) -> None:
        self.momentum = below_one("optimizer.momentum", self.momentum)
        self.nesterov = flag("optimizer.nesterov", self.nesterov)
        if self.scale not in SCALES:
            raise unknown("optimizer.scale", self.scale, SCALES)
        self.adam_lr = positive("optimizer.adam_lr", self.adam_lr, "1 is lr itself")
        super().__post_init__(model, cells, lr)

    def remembered(self, spec: ParameterSpec) -> tuple[str, ...]:
        """Return the momentum of hidden matrices, and Adam's means of the others."""
        return ("momentum",) if is_hidden_matrix(spec) else super().remembered(spec)

    @staticmethod
    def flops(spec: ParameterSpec) -> float:
        """Return the operations of :func:`orthogonalize`: of the three products of each iteration."""
        if not is_hidden_matrix(spec):
            return 0.0
        small, large = sorted((spec.shape[0], math.prod(spec.shape[1:])))
        return ITERATIONS * 2.0 * (2 * small**2 * large + small**3)

    def share(self, spec: ParameterSpec) -> float:
        """Return 1 for hidden matrices, and AdamW's part for the others."""
        return 1.0 if is_hidden_matrix(spec) else self.adam_lr

    def lr_factor(self, scaling: Scaling, spec: ParameterSpec) -> Factor:
        """Return k r^a times the scale for hidden matrices, in blocks as Adam's; Adam's for the others."""
        if not is_hidden_matrix(spec):
            return super().lr_factor(scaling, spec)
        fan_out = math.prod(spec.shape) / spec.fan_in
        scale = SCALES[self.scale](spec.fan_in, fan_out)
        factor = scale * scaling.lr_factor(spec.role) / scaling.multiplier(spec.role)
        # As a step of Adam: neither knows how small a branch makes the gradient.
        return factor * scaling.lr_in_depth(spec.role, "adam") if spec.in_block else factor

    def begin(self) -> None:
        """Begin a step; no bias correction is in the rates of hidden matrices."""
        super().begin()
        for slot in self.slots:
            if is_hidden_matrix(slot):
                torch.mul(slot.minus_lr, self.factors.schedule, out=slot.rate)

    def update(self, slot: Slot, parameter: Tensor, gradient: Tensor) -> None:
        """Update one parameter in place; see :meth:`runner.optim.Optimizer.update`."""
        if not is_hidden_matrix(slot):
            super().update(slot, parameter, gradient)
            return
        past = slot.state["momentum"].lerp_(gradient, 1 - self.momentum)
        ahead = slot.spare(gradient)
        ahead = torch.lerp(gradient, past, self.momentum, out=ahead) if self.nesterov else ahead.copy_(past)
        # The gradient is not needed any more.
        spare = slot.spare(ahead)
        step = orthogonalize(ahead.flatten(2), spare.flatten(2), self._grams[slot.path])
        parameter.addcmul_(step.view_as(parameter), slot.rate)

    def _renew_scratch(self) -> None:
        """Give the Gram matrices of all hidden matrices the same memory, too."""
        super()._renew_scratch()
        self._grams: dict[str, Tensor] = {}
        matrices = [slot for slot in self.slots if is_hidden_matrix(slot)]
        if not matrices:
            return
        count = len(matrices[0].root)
        sizes = [min(slot.shape[0], math.prod(slot.shape[1:])) for slot in matrices]
        room = matrices[0].minus_lr.new_empty(2 * count * max(sizes) ** 2)
        for slot, size in zip(matrices, sizes, strict=True):
            self._grams[slot.path] = room[: 2 * count * size**2].view(2, count, size, size)


def is_hidden_matrix(parameter: ParameterSpec | Slot) -> bool:
    """Whether both sides of a parameter grow with width, and it has sides."""
    return parameter.role == "hidden" and len(parameter.shape) > 1


def orthogonalize(
    matrices: Float[Tensor, "cell row column"],
    spare: Float[Tensor, "cell row column"],
    grams: Float[Tensor, "2 cell side side"],
) -> Float[Tensor, "cell row column"]:
    """Return U S' V^T for the matrices U S V^T, S' near one: five iterations of Newton and Schulz.

    Each maps every singular value s of a matrix of norm one to a s + b s^3 + c s^5. They do not converge: the
    slope a at zero is as large as can be, and values from 0.002 upwards come to lie between 0.68 and 1.21. A
    matrix of zeros stays. The smaller of the two Gram matrices is taken.

    Args:
        matrices: Are overwritten.
        spare: Room, is overwritten; so are the Gram matrices.
        grams: Of the smaller side.

    Returns:
        One of the first two arguments.

    References:
        Jordan et al. (2024), whose a, b and c are :data:`COEFFICIENTS`.
    """
    a, b, c = COEFFICIENTS
    gram, polynomial = grams
    norm = torch.linalg.vector_norm(matrices, dim=(1, 2), keepdim=True)
    # A norm whose square is no normal number is not to be told from zero.
    x = matrices.div_(norm.clamp_(min=torch.finfo(matrices.dtype).tiny ** 0.5))
    wide = x.shape[1] <= x.shape[2]
    for _ in range(ITERATIONS):
        symmetric_product(x if wide else x.mT, out=gram)
        symmetric_product(gram, out=polynomial).mul_(c).add_(gram, alpha=b)
        torch.baddbmm(x, *((polynomial, x) if wide else (x, polynomial)), beta=a, out=spare)
        x, spare = spare, x
    return x
