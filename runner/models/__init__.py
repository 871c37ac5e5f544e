"""Architectures, each a module built from ensemble layers."""

from runner.models.build import build
from runner.models.mlp import MLP

__all__ = ["MLP", "build"]
