"""What a layer is: parameters with roles, a tape of its calls, and its share of the tangent kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from runner.errors import UserError
from runner.grid.cell import Cell
from runner.layers.contraction import Pairing
from runner.layers.gains import gains_are_in_weights
from runner.layers.specs import Origin, ParameterSpec
from runner.layers.symmetry import symmetric
from runner.numerics.generators import generator
from runner.numerics.logits import Logits
from runner.scaling.parameterization import Scaling


@dataclass(frozen=True)
class Again:
    """How to run the module that a call was of once more, with other parameters or on other inputs.

    Attributes:
        given: What it was given, ``[cell, sample, ...]`` each.
        run: From raw parameters by path, and what it is given, to what it returns.
        own: Paths of the parameters that are the layer's.
    """

    given: tuple[Tensor, ...]
    run: Callable[[Mapping[str, Tensor], Sequence[Tensor]], Float[Tensor, "cell sample ..."]]
    own: tuple[str, ...]


@dataclass
class Call:
    """One call of a layer in a recorded forward pass.

    Attributes:
        layer: The layer.
        inputs: What its weight multiplied, in the layer's own layout; see :meth:`Layer.columns`.
        outputs: What it returned before any activation function.
        features: The hidden representation that followed, if any: see :func:`hidden`.
        elementwise: Whether the features are a function of the outputs, number by number.
        slopes: Gives the derivative of that function at the outputs, where it is known without autograd.
        again: How to run it once more, of a layer that cannot say what a weight makes of its inputs.
        logits: Those of the attention that it is of, or that came before it, of a plain module,
            ``[cell, sample, logit]``.
    """

    layer: Layer
    inputs: Float[Tensor, "#cell sample *inputs"]
    outputs: Float[Tensor, "cell sample *outputs"]
    features: Float[Tensor, "cell sample *features"] | None = field(default=None)
    elementwise: bool = field(default=False)
    slopes: Callable[[], Tensor] | None = field(default=None)
    again: Again | None = field(default=None)
    logits: Logits | None = field(default=None)


_tape: list[Call] | None = None
_factored = True


@contextmanager
def record(*, factored: bool = True) -> Iterator[list[Call]]:
    """Record every layer call of the forward passes run inside, in order.

    Args:
        factored: Whether gradients with respect to what layers return will be asked for, sample by sample.
    """
    global _tape, _factored
    outer = _tape, _factored
    _tape, _factored = [], factored
    try:
        yield _tape
    finally:
        _tape, _factored = outer


def recording() -> bool:
    """Say whether the present forward pass is recorded."""
    return _tape is not None


def factoring() -> bool:
    """Say whether gradients of the present pass will be asked for, sample by sample."""
    return _factored and torch.is_grad_enabled()


def put(calls: Iterable[Call]) -> None:
    """Put calls on the tape, for a model that cannot while it runs."""
    if _tape is not None:
        _tape.extend(calls)


def hidden(
    x: Float[Tensor, "cell sample *features"], elementwise_of: Tensor | None = None,
    slopes: Callable[[], Tensor] | None = None,
) -> Float[Tensor, "cell sample *features"]:  # fmt: skip
    """Declare ``x`` a hidden representation, and return it.

    It becomes the features of the layer called last, whose movement, alignment and transfer are measured; a
    later declaration before the next layer replaces it. The last one of a network is what its readout sees.

    Args:
        elementwise_of: What every number of it is a function of, if of one number at the same place alone.
        slopes: Returns the derivative of that function, where it is known.
    """
    if _tape:
        _tape[-1].features = x
        _tape[-1].elementwise = elementwise_of is _tape[-1].outputs
        _tape[-1].slopes = slopes if _tape[-1].elementwise else None
    return x


class Layer(nn.Module):
    """A layer whose parameters are ``[cell, ...]``.

    A subclass declares its parameters with :meth:`declare`, multiplies by them through :meth:`scale`, puts
    its calls on the tape with :meth:`remember`, and says in :meth:`jacobians` how its parameters' gradients
    follow from those of its outputs, or in :meth:`kernel` how to do without forming them: then it is trained,
    measured and linearized as any other. With :meth:`multiply` its changes can be split, see
    :func:`runner.measures.update_parts`.

    Attributes:
        specs: Name of a parameter to its description. The one that decides the layer's role and whose
            movement is reported is called ``weight``.
        name: Path of the layer in the model, set when it is filled.
        origins: Where those parameters start that are not drawn from ``specs``.
        gain: Of the activation that feeds its weight, see :meth:`runner.layers.Activation.feeds`.
    """

    gain = 1.0
    _in_force: set[str]
    """Parameters that are the weights in force themselves: their multiplier is 1 in every cell."""

    def __init__(self) -> None:
        super().__init__()
        self.specs: dict[str, ParameterSpec] = {}
        self._in_force = set()
        self.name = ""
        self.origins: dict[str, Origin] = {}

    def declare(self, name: str, spec: ParameterSpec) -> None:
        """Add a parameter, without cells as yet."""
        self.specs[name] = spec
        self.register_parameter(name, nn.Parameter(torch.empty(0, *spec.shape)))
        for factor in ("multiplier", "kernel_weight"):
            self.register_buffer(f"{name}_{factor}", torch.empty(0), persistent=False)

    def belong_to_block(self) -> None:
        """Count the parameters to the block of a residual branch."""
        self.specs = {name: replace(spec, in_block=True) for name, spec in self.specs.items()}

    @property
    def role(self) -> str:
        """Role of the layer's weight, as tables have it."""
        return self.specs["weight"].role

    @property
    def has_bias(self) -> bool:
        """Whether there is a bias."""
        return "bias" in self.specs

    def populate(self, cells: Sequence[Cell], like: Tensor) -> None:
        """Draw the parameters of these cells and set the factors of their parameterizations.

        Args:
            cells: One entry per cell of the pack.
            like: Has the dtype and the device of the parameters.
        """
        scaling = Scaling(cells)
        self._in_force.clear()
        for name, spec in self.specs.items():
            value = self._started(name, spec, cells, scaling)
            self.register_parameter(name, nn.Parameter(value.to(like)))
            factors = {
                "multiplier": scaling.multiplier(spec.role),
                "kernel_weight": scaling.kernel_weight(spec.role, in_block=spec.in_block),
            }
            for factor, value in factors.items():
                self.register_buffer(f"{name}_{factor}", value.to(like), persistent=False)
            if bool((factors["multiplier"] == 1).all()):
                self._in_force.add(name)

    def _started(
        self, name: str, spec: ParameterSpec, cells: Sequence[Cell], scaling: Scaling
    ) -> Float[Tensor, "cell ..."]:
        """A raw parameter of every cell at init, in float64."""
        origin = self.origins.get(name)
        if origin:
            draws = {cell.seed: origin.draw(cell.seed).double() for cell in cells}
            std = scaling.width**origin.exponent * scaling.init(spec.role)
            std = std * scaling.sigma(spec.role)
        else:
            path = f"{self.name}.{name}"
            draws = {cell.seed: _draw(cell.seed, path, spec.shape) for cell in cells}
            std = scaling.init_std(spec.role, spec.fan_in, spec.sigma)
        pairs = {cell.seed: self.paired(name, draws[cell.seed]) for cell in cells if cell.symmetric_init}
        value = torch.stack(
            [
                (pairs if cell.symmetric_init else draws)[cell.seed] * s
                for cell, s in zip(cells, std, strict=True)
            ]
        )
        if spec.mean and not origin:
            mean = scaling.init_size(spec.role, spec.fan_in, spec.mean)
            value += per_cell(mean, value.dim())
        return value

    def paired(self, name: str, draw: Tensor) -> Tensor:
        """Return a draw of one cell's parameter with the symmetry of ``symmetric_init``."""
        spec = self.specs[name]
        return symmetric(draw, spec.role, spec.axes, spec.fan_in)

    def scale(self, name: str, value: Float[Tensor, "cell ..."]) -> Float[Tensor, "cell ..."]:
        """Multiply by the parameterization's factor r^(-a) of a parameter."""
        factor: Tensor | float = 1.0
        if name not in self._in_force:
            factor = per_cell(getattr(self, f"{name}_multiplier"), value.dim())
        if name == "weight" and gains_are_in_weights():
            factor = factor * self.gain
        # Times 1 is a pass over memory that changes nothing.
        return value if isinstance(factor, float) and factor == 1.0 else value * factor

    def kernel_factor(self, name: str) -> Float[Tensor, "cell"]:
        """Return k r^(-c) r^(-2a): the weight in the kernel times the square of the multiplier."""
        factor: Tensor = getattr(self, f"{name}_kernel_weight") * getattr(self, f"{name}_multiplier") ** 2
        return factor

    def remember(
        self,
        inputs: Float[Tensor, "#cell sample ..."],
        outputs: Float[Tensor, "cell sample ..."],
    ) -> None:
        """Put this call on the tape, if there is one."""
        put([Call(self, inputs, outputs)])

    def cost(self, call: Call) -> tuple[int, int]:
        """Return the numbers that a call returned, and the multiplications by a matrix that it took."""
        return call.outputs.numel(), 0

    def multiply(
        self, inputs: Float[Tensor, "#cell sample ..."], weight: Float[Tensor, "cell ..."]
    ) -> Float[Tensor, "cell sample ..."]:
        """Return what the layer makes of recorded inputs with this raw weight, r^(-a) included, biases aside.

        It is linear in either: a change of the weight or of the inputs may take its place.

        Args:
            inputs: What the weight multiplies, as on the tape.
            weight: Of the shape of the layer's own.

        Raises:
            UserError: If the layer is of a kind that does not say it.
        """
        raise UserError(
            f"measure=update_parts must have layers that say what a weight makes of their inputs, got "
            f"{type(self).__name__} at {self.name}; give it a method multiply, or leave the measure out"
        )

    def columns(self, inputs: Float[Tensor, "#cell sample ..."]) -> Float[Tensor, "#cell sample position _"]:
        """Bring recorded inputs to the form ``[cell, sample, position, fan_in]``; tokens are so already."""
        return inputs.unsqueeze(2) if inputs.dim() == 3 else inputs.flatten(2, -2)

    def rows(
        self, gradients: Float[Tensor, "cell output sample ..."]
    ) -> Float[Tensor, "cell output sample position _"]:
        """Bring ``[cell, output, sample, ...]`` to ``[cell, output, sample, position, fan_out]``."""
        return gradients.unsqueeze(3) if gradients.dim() == 4 else gradients.flatten(3, -2)

    def jacobians(
        self,
        columns: Float[Tensor, "#cell sample position fan_in"],
        rows: Float[Tensor, "cell output sample position fan_out"],
    ) -> Iterator[tuple[str, Float[Tensor, "cell output sample parameter"]]]:
        """Yield every parameter's name and its gradients per sample and output, without the multiplier.

        Args:
            columns: What the layer was given, as :meth:`columns` returns it.
            rows: Gradients of the network's outputs with respect to what it returned, as :meth:`rows` does.
        """
        raise NotImplementedError

    def kernel(
        self,
        columns: Float[Tensor, "#cell sample position fan_in"],
        rows: Float[Tensor, "cell output sample position fan_out"],
        pairing: Pairing,
    ) -> Float[Tensor, "cell *pair"]:
        """Return this layer's summand of the lr-weighted empirical NTK, sum_p r^(-c_p) <df/dp, df/dp>.

        Args:
            columns: As for :meth:`jacobians`.
            rows: As for :meth:`jacobians`.
        """
        blocks = [
            self.weigh(name, pairing.gram(jacobian)) for name, jacobian in self.jacobians(columns, rows)
        ]
        return torch.stack(blocks).sum(0) if len(blocks) > 1 else blocks[0]

    def weigh(self, name: str, block: Float[Tensor, "cell *pair"]) -> Float[Tensor, "cell *pair"]:
        """Multiply a parameter's block of the kernel by its :meth:`kernel_factor`."""
        return block * per_cell(self.kernel_factor(name), block.dim())


def per_cell(factor: Float[Tensor, "cell"], dim: int) -> Tensor:
    """View a per-cell factor so that it broadcasts against a tensor of ``dim`` dimensions."""
    return factor.view(-1, *(1,) * (dim - 1))


def _draw(seed: int, path: str, shape: tuple[int, ...]) -> Tensor:
    """Standard normal draws of the stream (seed, path)."""
    return torch.randn(shape, generator=generator(seed, path), dtype=torch.float64)
