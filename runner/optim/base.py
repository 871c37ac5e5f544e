r"""What all optimizers share: learning rates, decay, clipping and schedule, for every cell at once.

Every quantity is placed so that the symmetry of abc parameterizations holds (a + t, b - t with c - 2t under
SGD or c - t under Adam leaves a network's trajectory unchanged; Yang & Hu, arXiv 2011.14522, and Yang &
Littwin, arXiv 2308.01814): ``mup`` and ``mean_field`` stay the same network with momentum, decay, clipping
and Adam's eps. At ``width == base_width`` and gamma 1 each optimizer is torch.optim's own. With
r = width / base_width, for the parameters of a role:

=============  =====================================  ====================================================
quantity       value                                  why
=============  =====================================  ====================================================
learning rate  lr gamma^2 k r^(-c), c of SGD          the lr-weighted kernel is that of gamma = 1
..             lr gamma k r^(-c), c of Adam           so is the first change of f = h / gamma
weight decay   shrinks by lr gamma^2 weight_decay a   the width factor r^(-c) is left out: a weight forgets
               step (gamma once under Adam), at any   its start at the same rate at every width
               width
Adam's eps     eps r^(c_sgd - c_adam) / gamma         how raw gradients scale: the same share at any width
clip           norm gamma sqrt(sum k r^(-c) |g|^2)    see :func:`runner.optim.clipping.clip_factor`
=============  =====================================  ====================================================

The factor k is a role's own, ``lr_input``, ``lr_hidden`` or ``lr_output``. It is treated as r^(-c) is: a
weight with the factor k learns as one of which sqrt(k) is split off into the multiplier does under SGD.

*Coupled* decay (SGD, Adam) adds the gradient of weight_decay / 2 * sum_l |w_l|^2 / (k_l r^(-c_l)), with SGD's
c, to that of the loss: a ridge on raw weights where c = 0 and, under ``mean_field``, the average over neurons
that its limit asks for (Mei et al., arXiv 1804.06561). *Decoupled* decay (AdamW, signSGD) leaves the gradient
alone; Wang & Aitchison, arXiv 2405.13698, find that lr * weight_decay should not depend on width. If it is
*independent*, a step shrinks weights by weight_decay times the schedule, whatever lr and gamma (Wortsman et
al., arXiv 2309.14322): then the lr can be swept without changing the decay.
"""

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, InitVar, dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor, nn

from runner.errors import UserError
from runner.grid.cell import Cell
from runner.layers import ParameterSpec, Product, parameters_of
from runner.numerics.operations import Blend, Operation, Step
from runner.numerics.precision import add_product_
from runner.optim.checks import flag, not_negative, positive
from runner.optim.clipping import clip_factor
from runner.optim.schedule import Schedule
from runner.optim.slot import SCHEDULE, Factors, Slot
from runner.scaling.parameterization import Factor, OptimizerFamily, Scaling

_GAMMA_POWER: dict[OptimizerFamily, int] = {"sgd": 2, "adam": 1}


@dataclass(eq=False)
class Optimizer:
    """Updates the parameters of an ensemble in place; a subclass says how, parameter by parameter.

    Built with a model without layers, it checks its settings and does nothing else.

    Args:
        lr: Base learning rate of every cell, absolute.
        weight_decay: Share of a weight lost per step and unit of learning rate.
        clip: Largest lr-weighted norm of a cell's gradient; None for no limit.
        warmup: Steps, or a fraction of the run below 1, over which the learning rate rises linearly.
        schedule: ``constant``, ``cosine`` or ``linear``: what the learning rate does after that.
        lr_input: Factor of the learning rate of input weights, and of biases and gains of hidden layers.
        lr_hidden: The same of hidden weights.
        lr_output: The same of output weights and their bias.

    Attributes:
        family: Which row of the abc table's c it reads.
        remembers: Names of the state kept for every parameter, unless :meth:`remembered` says otherwise.
        decoupled: Whether decay bypasses the gradient.
        evaluations: Gradients that a step takes, for the planner.
        independent_decay: Whether decoupled decay leaves lr out; a key of those that have it.
        taken: Steps done.
        factors: What the step at hand multiplies by.

    Raises:
        UserError: If a setting breaks its rule or does not fit a cell.
    """

    family: ClassVar[OptimizerFamily] = "sgd"
    decoupled: ClassVar[bool] = False
    evaluations: ClassVar[float] = 1.0
    remembers: tuple[str, ...] = field(default=(), init=False)
    eps: float = field(default=0.0, init=False)
    independent_decay: bool = field(default=False, init=False)

    model: InitVar[nn.Module]
    cells: InitVar[Sequence[Cell]]
    lr: InitVar[Float[Tensor, "cell"]]
    _: KW_ONLY
    weight_decay: float = 0.0
    clip: float | None = None
    warmup: float = 0
    schedule: str = "constant"
    lr_input: float = 1.0
    lr_hidden: float = 1.0
    lr_output: float = 1.0

    def __post_init__(self, model: nn.Module, cells: Sequence[Cell], lr: Float[Tensor, "cell"]) -> None:
        taken = list(inspect.signature(self.update).parameters)
        if len(taken) != 3:
            raise UserError(
                "optimizer._target_ must name an optimizer with update(slot, parameter, gradient), got "
                f"update({', '.join(taken)}); the learning rate of a step is slot.rate"
            )
        self.weight_decay = not_negative("optimizer.weight_decay", self.weight_decay)
        self.independent_decay = flag("optimizer.independent_decay", self.independent_decay)
        if self.independent_decay and self.weight_decay >= 1:
            raise UserError(
                "optimizer.weight_decay must be below 1 with optimizer.independent_decay=true, the share "
                f"lost in a step, got {self.weight_decay:g}; e.g. 1e-4"
            )
        if self.clip is not None:
            self.clip = positive("optimizer.clip", self.clip, "null is no limit")
        for key in ("lr_input", "lr_hidden", "lr_output"):
            # What the factors do is in Scaling, which reads them from the cells: kernels need them, too.
            positive(f"optimizer.{key}", getattr(self, key), "1 is the learning rate of the others")
        self._schedule = Schedule(self.schedule, self.warmup, cells[0].steps)
        for family in dict.fromkeys((self.family, "sgd")):  # that of SGD weighs the kernel
            Scaling(cells).lr("hidden", family)  # raises where the table has no row for it
        if self.family != "sgd" and any(cell.lr_unit == "sharpness" for cell in cells):
            raise UserError(
                f"lr_unit must be absolute for {type(self).__name__}, got sharpness; lambda_max is a scale "
                "for gradient descent only, so sweep lr itself"
            )
        self.taken, self.factors = 0, Factors()
        self.slots = self._slots(model, cells, lr)
        self._renew_scratch()

    def step(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        """Update the parameters in place.

        Args:
            parameters: In the order of :func:`runner.layers.parameters_of`.
            gradients: Of each cell's own loss, likewise; left as they are.
        """
        self.begin()
        self.descend(parameters, gradients)

    def begin(self) -> None:
        """Begin a step: everything that differs between steps is brought up to date, in place."""
        before, self.factors = self.factors, self.factors_of(self.taken)
        self.taken += 1
        if self.factors != before:
            for slot in self.slots:
                torch.mul(slot.minus_lr, self.factors.rate, out=slot.rate)
                torch.mul(slot.minus_decay, self.factors.schedule, out=slot.shrink)
                torch.mul(slot.eps, self.factors.eps, out=slot.eps_now)

    def factors_of(self, step: int) -> Factors:
        """Return what a step multiplies by, counted from 0."""
        factor = self._schedule.factor(step)
        return Factors(factor, factor)

    def ahead(self, steps: int) -> Float64[Tensor, "step 3"]:
        """Begin steps that :meth:`compiled` takes; returns the factors of each."""
        table = [self.factors_of(self.taken + n) for n in range(steps)]
        self.taken += steps
        return torch.tensor(table, dtype=torch.float64)

    @torch.no_grad()
    def descend(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        """Update all parameters, after :meth:`begin`; arguments as of :meth:`step`."""
        scale = None
        if self.clip is not None:
            scale = clip_factor(gradients, [slot.root for slot in self.slots], self.clip)
        for slot, parameter, gradient in zip(self.slots, parameters, gradients, strict=True):
            if scale is not None:
                gradient = torch.mul(gradient, scale.view_as(slot.minus_lr), out=slot.scratch)
            self.apply(slot, parameter, gradient)

    @torch.no_grad()
    def apply(self, slot: Slot, parameter: Tensor, gradient: Tensor) -> None:
        """Decay and update one parameter in place, after :meth:`begin`; without clipping.

        Args:
            gradient: Of each cell's own loss; left as it is.
        """
        if self.weight_decay and self.decoupled:
            parameter.addcmul_(parameter, slot.shrink)
        elif self.weight_decay:
            gradient = torch.addcmul(gradient, parameter, slot.ridge, out=slot.scratch)
        self.update(slot, parameter, gradient)

    @torch.no_grad()
    def apply_product(self, slot: Slot, parameter: Tensor, gradient: Product) -> None:
        """Do as :meth:`apply` with a gradient that is given as a product."""
        left, right, factor = gradient
        self.apply(slot, parameter, add_product_(slot.product, left, right, beta=0, alpha=factor))

    def compiled(self, slot: Slot, parameter: Tensor, gradient: Tensor) -> list[Step]:
        """Return what a compiled step does with one parameter, as :meth:`apply` does.

        It multiplies by a row of the table that :meth:`ahead` returns. Whoever overrides :meth:`update` has
        to override this as well, or has no compiled steps; see :func:`has_compiled_steps`.

        Args:
            gradient: In memory of its own for one cell, which may be overwritten.
        """
        if not self.weight_decay:
            return []
        if self.decoupled:
            return [Blend("itself", parameter, parameter, each=slot.minus_decay, now=SCHEDULE)]
        return [Blend("itself", gradient, parameter, each=slot.ridge)]

    def compiled_product(self, slot: Slot, parameter: Tensor, gradient: Operation) -> list[Step]:
        """Do as :meth:`compiled` with a gradient that an operation has to write first."""
        return [gradient, *self.compiled(slot, parameter, gradient.out)]

    def update(self, slot: Slot, parameter: Tensor, gradient: Tensor) -> None:
        """Update one parameter in place.

        Args:
            gradient: Clipped, coupled decay added; may lie in ``slot.scratch``.
        """
        raise NotImplementedError

    def remembered(self, spec: ParameterSpec) -> tuple[str, ...]:
        """Return the names of the state kept for a parameter."""
        return self.remembers

    @staticmethod
    def flops(spec: ParameterSpec) -> float:
        """Return the operations of a parameter's products of matrices in a step, for the planner: none."""
        return 0.0

    def reported(self) -> Mapping[str, Float[Tensor, "cell"]]:
        """Return what it knows of its own steps so far, by column of ``trace`` and ``cells``: nothing."""
        return {}

    def share(self, spec: ParameterSpec) -> float:
        """Return the part of lr that a parameter learns and decays with, at any width."""
        return 1.0

    def lr_factor(self, scaling: Scaling, spec: ParameterSpec) -> Factor:
        """Return the factor of a parameter's learning rate that depends on width and role, k r^(-c)."""
        return scaling.lr(spec.role, self.family, in_block=spec.in_block)

    def select(self, index: Int[Tensor, "kept"]) -> None:
        """Keep the cells at ``index``, in that order."""
        for slot in self.slots:
            slot.select(index)
        self._renew_scratch()

    def state_dict(self) -> dict[str, Tensor]:
        """Return what a later run needs to go on from here.

        Returns:
            ``step``, the number of steps done, and ``NAME/PATH``, each state of each parameter, with a
            leading ``cell`` axis. Learning rates are not in it: they follow from the cells.
        """
        state = {
            f"{name}/{slot.path}": value.clone() for slot in self.slots for name, value in slot.state.items()
        }
        return {"step": torch.tensor(self.taken)} | state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what :meth:`state_dict` returned, for the same cells in the same order.

        Raises:
            ValueError: If it is of another optimizer, model or number of cells.
        """
        held = {f"{name}/{slot.path}": value for slot in self.slots for name, value in slot.state.items()}
        given = {name: tuple(value.shape) for name, value in state.items() if name != "step"}
        if "step" not in state or given != {name: tuple(value.shape) for name, value in held.items()}:
            raise ValueError(f"state of another optimizer, model or pack: {given}")
        for name, value in held.items():
            value.copy_(state[name])
        self.taken = int(state["step"])

    def _slots(self, model: nn.Module, cells: Sequence[Cell], lr: Float[Tensor, "cell"]) -> list[Slot]:
        scaling = Scaling(cells)
        gamma = scaling.gamma
        base = lr.double().cpu() * gamma ** _GAMMA_POWER[self.family]
        slots = []
        for path, spec, parameter, _ in parameters_of(model):
            weighted = scaling.kernel_weight(spec.role, in_block=spec.in_block)
            per_weight = (-1, *(1,) * len(spec.shape))
            own = base * self.share(spec)
            lr_of_role = own * self.lr_factor(scaling, spec)
            shrinking = own * scaling.decay(in_block=spec.in_block)
            lost = self.weight_decay * (torch.ones_like(own) if self.independent_decay else shrinking)
            # Only what has an eps asks for both families' exponents.
            eps = torch.zeros_like(base)
            if self.eps:
                eps = self.eps * scaling.gradient(spec.role, in_block=spec.in_block)
            numbers = {
                "minus_lr": -lr_of_role,
                "rate": -lr_of_role,
                "ridge": self.weight_decay / weighted,
                "minus_decay": -lost,
                "shrink": -lost,
                "eps": eps,
                "eps_now": eps.clone(),  # in float64 nothing else would part the two
            }
            slots.append(
                Slot(
                    path,
                    spec.role,
                    spec.shape,
                    root=(gamma * weighted.sqrt()).to(parameter),
                    state={name: torch.zeros_like(parameter.detach()) for name in self.remembered(spec)},
                    **{name: value.to(parameter).view(per_weight) for name, value in numbers.items()},
                )
            )
        return slots

    def _renew_scratch(self) -> None:
        """Give all slots two pieces of memory, each as large as the largest parameter."""
        if not self.slots:
            return
        count = len(self.slots[0].root)
        sizes = [count * math.prod(slot.shape) for slot in self.slots]
        scratch, product = self.slots[0].minus_lr.new_empty(2, max(sizes))
        for slot, size in zip(self.slots, sizes, strict=True):
            slot.scratch = scratch[:size].view(count, *slot.shape)
            slot.product = product[:size].view(count, *slot.shape)


def has_compiled_steps(optimizer: object, settings: Mapping[str, Any]) -> bool:
    """Say whether an optimizer says for compiled code what it does, in a class no older than its update.

    Clipping needs all gradients before it changes any parameter.

    Args:
        optimizer: The class.
        settings: Its keys.
    """
    if not (isinstance(optimizer, type) and issubclass(optimizer, Optimizer)) or settings.get("clip"):
        return False
    ours, update, begin, apply = (
        next(one for one in optimizer.__mro__ if name in vars(one))
        for name in ("compiled", "update", "begin", "apply")
    )
    return ours is not Optimizer and all(issubclass(ours, one) for one in (update, begin, apply))
