import math

from torch import nn
from runner.layers import Activation, LayerNorm, Linear, hidden


class GatedMLP(nn.Module):
    """Residual blocks in which one linear map gates another."""

    def __init__(self, width, depth, inputs, outputs, activation="gelu"):
        super().__init__()
        self.activation = Activation(activation)
        self.embed = Linear(math.prod(inputs), width, "input")
        self.norms = nn.ModuleList(LayerNorm(width) for _ in range(depth))
        self.gates = nn.ModuleList(Linear(width, width, "hidden") for _ in range(depth))
        self.values = nn.ModuleList(
            Linear(width, width, "hidden") for _ in range(depth)
        )
        self.output = Linear(width, outputs, "output")

    def forward(self, x):  # [cell, sample, *inputs]
        x = self.embed(x.flatten(2))
        for norm, gate, value in zip(self.norms, self.gates, self.values):
            z = norm(x)
            x = hidden(x + self.activation(gate(z)) * value(z))
        return self.output(x)
