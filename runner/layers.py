"""Ensemble layers: many networks of one shape, trained as one.

Every parameter has a leading ``cell`` axis, and so has every activation: ``[cell, sample, feature]``.
An input shared by all cells has a ``cell`` axis of length 1. A model is an ordinary ``nn.Module`` built
from these layers; it knows nothing of parameterization, learning rates, movement or kernels, which follow
from each layer's parameters and their roles.

A model is built without cells (so that building it costs no memory) and filled by :func:`initialize`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from runner.cell import Cell
from runner.errors import unknown
from runner.parameterization import Role, init_std, lr_factor, multiplier


@dataclass(frozen=True)
class ParameterSpec:
    """What a parameter is, whatever the cells: enough to size, draw, scale and train it.

    Attributes:
        shape: Shape within one cell.
        role: Which of its dimensions grow with width.
        fan_in: Inputs summed over; 1 for biases and gains.
        sigma: Init standard deviation times sqrt(fan_in), at base width.
    """

    shape: tuple[int, ...]
    role: Role
    fan_in: int
    sigma: float


@dataclass
class Call:
    """One call of a layer in a recorded forward pass.

    Attributes:
        layer: The layer.
        inputs: What it received, ``[cell or 1, sample, fan_in]``.
        outputs: What it returned before any activation function, ``[cell, sample, fan_out]``.
        features: What the activation function made of it, if one followed.
    """

    layer: Layer
    inputs: Float[Tensor, "#cell sample fan_in"]
    outputs: Float[Tensor, "cell sample fan_out"]
    features: Float[Tensor, "cell sample fan_out"] | None = field(default=None)


_tape: list[Call] | None = None


@contextmanager
def record() -> Iterator[list[Call]]:
    """Record every layer call of the forward passes run inside, in order."""
    global _tape
    outer, _tape = _tape, []
    try:
        yield _tape
    finally:
        _tape = outer


class Layer(nn.Module):
    """A layer whose parameters are ``[cell, ...]``.

    A subclass declares its parameters with :meth:`declare`, multiplies by them through :meth:`scale`, and
    says how its block of the neural tangent kernel follows from a recorded call.

    Attributes:
        specs: Name of a parameter to its description.
        name: Path of the layer in the model, set by :func:`initialize`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.specs: dict[str, ParameterSpec] = {}
        self.name = ""

    def declare(self, name: str, spec: ParameterSpec) -> None:
        """Add a parameter, without cells as yet."""
        self.specs[name] = spec
        self.register_parameter(name, nn.Parameter(torch.empty(0, *spec.shape)))
        for factor in ("multiplier", "lr_factor"):
            self.register_buffer(f"{name}_{factor}", torch.empty(0), persistent=False)

    @property
    def role(self) -> Role:
        """Role of the layer's weight."""
        return self.specs["weight"].role

    def scale(self, name: str, value: Float[Tensor, "cell ..."]) -> Float[Tensor, "cell ..."]:
        """Multiply by the parameterization's factor r^(-a) of a parameter."""
        return value * _per_cell(getattr(self, f"{name}_multiplier"), value.dim())

    def kernel_factor(self, name: str) -> Float[Tensor, "cell"]:
        """Return r^(-c) r^(-2a): SGD's learning rate factor times the square of the multiplier."""
        factor: Tensor = getattr(self, f"{name}_lr_factor") * getattr(self, f"{name}_multiplier") ** 2
        return factor

    def ntk_block(
        self,
        inputs_gram: Float[Tensor, "#cell *#pair"],
        output_gram: Float[Tensor, "cell *pair"],
    ) -> Float[Tensor, "cell *pair"]:
        """Return this layer's summand of the lr-weighted empirical NTK; see :class:`Linear`."""
        raise NotImplementedError


class Linear(Layer):
    """An affine map, ``z = r^(-a) x w + r^(-a_bias) b``.

    Args:
        fan_in: Input features.
        fan_out: Output features.
        role: ``input``, ``hidden`` or ``output``: which of the two grow with width.
        bias: Whether to add a bias.
        sigma_weight: Init standard deviation of the weight times sqrt(fan_in), at base width.
        sigma_bias: Init standard deviation of the bias.
    """

    weight: nn.Parameter
    bias: nn.Parameter

    def __init__(
        self,
        fan_in: int,
        fan_out: int,
        role: Role,
        *,
        bias: bool = False,
        sigma_weight: float = 1.0,
        sigma_bias: float = 0.0,
    ) -> None:
        super().__init__()
        if role not in ("input", "hidden", "output"):
            raise unknown("role of a Linear layer", role, ("input", "hidden", "output"))
        self.declare("weight", ParameterSpec((fan_in, fan_out), role, fan_in, sigma_weight))
        self.has_bias = bias
        if bias:
            bias_role: Role = "scalar" if role == "output" else "vector"
            self.declare("bias", ParameterSpec((fan_out,), bias_role, 1, sigma_bias))

    def forward(self, x: Float[Tensor, "#cell sample fan_in"]) -> Float[Tensor, "cell sample fan_out"]:
        """Apply every cell's map to its samples."""
        outputs = self.scale("weight", x @ self.weight)
        if self.has_bias:
            outputs = outputs + self.scale("bias", self.bias).unsqueeze(1)
        if _tape is not None:
            _tape.append(Call(self, x, outputs))
        return outputs

    def ntk_block(
        self,
        inputs_gram: Float[Tensor, "#cell *#pair"],
        output_gram: Float[Tensor, "cell *pair"],
    ) -> Float[Tensor, "cell *pair"]:
        r"""Return the layer's block, ``(A A^T) * (G G^T)`` with the factors of weight and bias.

        Since dz/dw = r^(-a) x, the gradient of an output with respect to the weight is the outer product
        of the layer's input A and of G = df/dz, and its Gram matrix a Hadamard product.

        Args:
            inputs_gram: A A^T over pairs of samples; axes of length 1 are broadcast (an input shared by all
                cells, or by all pairs of outputs).
            output_gram: G G^T over pairs of samples, summed over outputs or with axes for their pairs.

        Returns:
            Sum over the layer's parameters of r^(-c) <df/dp, df/dp>.
        """
        kernel = inputs_gram * _per_cell(self.kernel_factor("weight"), inputs_gram.dim())
        if self.has_bias:
            kernel = kernel + _per_cell(self.kernel_factor("bias"), inputs_gram.dim())
        return kernel * output_gram


class Activation(nn.Module):
    """An elementwise nonlinearity; what it returns are the features of the layer before it.

    Args:
        name: ``relu`` (times sqrt 2, so that it keeps the second moment), ``tanh``, ``erf`` or ``linear``.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        if name not in ACTIVATIONS:
            raise unknown("model.activation", name, ACTIVATIONS)
        self.name = name
        self.function = ACTIVATIONS[name]

    def forward(self, x: Float[Tensor, "cell sample feature"]) -> Float[Tensor, "cell sample feature"]:
        """Apply the function."""
        features = self.function(x)
        if _tape:
            _tape[-1].features = features
        return features


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": lambda x: torch.relu(x) * math.sqrt(2),
    "tanh": torch.tanh,
    "erf": torch.erf,
    "linear": lambda x: x,
}


def layers_of(model: nn.Module) -> list[Layer]:
    """Return the model's layers in the order of its definition."""
    return [module for module in model.modules() if isinstance(module, Layer)]


def parameters_of(model: nn.Module) -> Iterator[tuple[str, ParameterSpec, nn.Parameter, Layer]]:
    """Yield (path, description, parameter, layer) of every parameter of every layer."""
    for path, module in model.named_modules():
        if isinstance(module, Layer):
            for name, spec in module.specs.items():
                yield f"{path}.{name}", spec, getattr(module, name), module


def kernel_weights(model: nn.Module) -> dict[str, Float[Tensor, "cell ..."]]:
    """Return every parameter's weight r^(-c) in the lr-weighted kernel, shaped to multiply its gradient."""
    return {
        path: _per_cell(getattr(layer, f"{path.rpartition('.')[2]}_lr_factor"), parameter.dim())
        for path, _, parameter, layer in parameters_of(model)
    }


def parameter_count(model: nn.Module) -> int:
    """Return the number of trainable parameters of one cell."""
    return sum(math.prod(spec.shape) for _, spec, _, _ in parameters_of(model))


def initialize(model: nn.Module, cells: Sequence[Cell], dtype: torch.dtype, device: torch.device) -> None:
    """Give every layer its cells: parameters drawn from the cell's seed, factors from its parameterization.

    A parameter is drawn in float64 on the CPU from a stream named by the seed and the parameter's path, so
    that a cell starts the same in any pack, dtype and device, and in every parameterization up to scale.

    Args:
        model: A model built without cells.
        cells: One entry per cell of the pack.
        dtype: Of the parameters.
        device: Of the parameters.
    """
    for path, module in model.named_modules():
        if isinstance(module, Layer):
            module.name = path
    for path, spec, _, layer in parameters_of(model):
        name = path.rpartition(".")[2]
        std = init_std(cells, spec.role, spec.fan_in, spec.sigma)
        draws = {cell.seed: _draw(cell.seed, path, spec.shape) for cell in cells}
        value = torch.stack([draws[cell.seed] * s for cell, s in zip(cells, std, strict=True)])
        setattr(layer, name, nn.Parameter(value.to(device, dtype)))
        setattr(layer, f"{name}_multiplier", multiplier(cells, spec.role).to(device, dtype))
        setattr(layer, f"{name}_lr_factor", lr_factor(cells, spec.role).to(device, dtype))


def select(model: nn.Module, index: Int[Tensor, "kept"]) -> None:
    """Keep only the cells at ``index``, in that order; parameters become new leaves."""
    for layer in layers_of(model):
        for name, parameter in list(layer.named_parameters(recurse=False)):
            setattr(layer, name, nn.Parameter(parameter.detach()[index]))
        for name, buffer in list(layer.named_buffers(recurse=False)):
            setattr(layer, name, buffer[index])


def _draw(seed: int, path: str, shape: tuple[int, ...]) -> Tensor:
    """Standard normal draws of the stream (seed, path)."""
    return torch.randn(shape, generator=generator(seed, path), dtype=torch.float64)


def generator(seed: int, purpose: str) -> torch.Generator:
    """Return a CPU generator whose stream is named by a seed and a purpose."""
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def _per_cell(factor: Float[Tensor, "cell"], dim: int) -> Tensor:
    """View a per-cell factor so that it broadcasts against a tensor of ``dim`` dimensions."""
    return factor.view(-1, *(1,) * (dim - 1))
