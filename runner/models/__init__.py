"""Architectures, each a module built from ensemble layers.

Keys that models share: ``activation``, ``relu`` (times sqrt 2), ``gelu``, ``tanh``, ``erf`` or ``linear``;
``bias``, whether layers have one; ``sigma_weight`` and ``sigma_bias``, the standard deviations at init, of a
weight times sqrt(fan_in) at base width; ``normalize_input``, which divides inputs by the square root of what
a first-layer unit sums over, and draws its weights as much larger.
"""

from runner.models.build import build, has_compiled_form, is_built_in
from runner.models.check import check
from runner.models.cnn import CNN
from runner.models.mlp import MLP
from runner.models.residual_mlp import ResidualMLP
from runner.models.resnet import ResNet
from runner.models.torch_module import TorchModule
from runner.models.transformer import Transformer

__all__ = [
    "CNN",
    "MLP",
    "ResNet",
    "ResidualMLP",
    "TorchModule",
    "Transformer",
    "build",
    "check",
    "has_compiled_form",
    "is_built_in",
]
