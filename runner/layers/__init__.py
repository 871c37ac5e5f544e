"""Ensemble layers: many networks of one shape, trained as one.

Every parameter has a leading ``cell`` axis, and so has every activation: ``[cell, sample, feature]``,
``[cell, sample, position, feature]`` for tokens, ``[cell, sample, channel, height, width]`` for images. An
input shared by all cells has a ``cell`` axis of length 1. A model is an ordinary ``nn.Module`` built from
these layers; it knows nothing of parameterization, learning rates, movement or kernels, which follow from
each layer's parameters and their roles.

A model is built without cells (so that building it costs no memory) and filled by :func:`initialize`.
"""

from runner.layers.activation import ACTIVATIONS, Activation
from runner.layers.attention import Attention
from runner.layers.base import Again, Call, Layer, hidden, per_cell, record
from runner.layers.branch import Branch
from runner.layers.chain import DenseChain, Product
from runner.layers.compiled_steps import BLOCK_BYTES, CompiledSteps, Task, of_one_sample
from runner.layers.contraction import Pairing
from runner.layers.convolution import Conv2d
from runner.layers.dense import Embedding, Linear
from runner.layers.derivatives import ChainDerivatives, Direction, is_chain
from runner.layers.elementwise import LayerNorm, Position
from runner.layers.factors import factors, factors_by_output
from runner.layers.gains import gains_in_weights
from runner.layers.lowered import CannotLower, Update, Value
from runner.layers.lowering import Lowerable, Lowering, lower_all
from runner.layers.memory import kernel_bytes, kernel_memory
from runner.layers.opaque import Mark, Opaque
from runner.layers.population import (
    allocate,
    followed,
    initialize,
    kernel_weights,
    layers_of,
    parameter_count,
    parameters_of,
    select,
    some,
)
from runner.layers.specs import Origin, ParameterSpec
from runner.numerics.generators import generator

__all__ = [
    "ACTIVATIONS",
    "BLOCK_BYTES",
    "Activation",
    "Again",
    "Attention",
    "Branch",
    "Call",
    "CannotLower",
    "ChainDerivatives",
    "CompiledSteps",
    "Conv2d",
    "DenseChain",
    "Direction",
    "Embedding",
    "Layer",
    "LayerNorm",
    "Linear",
    "Lowerable",
    "Lowering",
    "Mark",
    "Opaque",
    "Origin",
    "Pairing",
    "ParameterSpec",
    "Position",
    "Product",
    "Task",
    "Update",
    "Value",
    "allocate",
    "factors",
    "factors_by_output",
    "followed",
    "gains_in_weights",
    "generator",
    "hidden",
    "initialize",
    "is_chain",
    "kernel_bytes",
    "kernel_memory",
    "kernel_weights",
    "layers_of",
    "lower_all",
    "of_one_sample",
    "parameter_count",
    "parameters_of",
    "per_cell",
    "record",
    "select",
    "some",
]
