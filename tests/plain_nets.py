"""Plain torch networks in the maximal update parameterization, with faults to plant; learning rates, too."""

import torch
from torch import nn

BASE = 16


class Attention(nn.Module):
    """Two heads; logits over d_head^exponent, at the base width the same for any exponent."""

    def __init__(self, width, exponent):
        super().__init__()
        self.exponent = exponent
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (hidden(width) for _ in range(4))

    def forward(self, x):
        query, key, value = (
            layer(x).unflatten(-1, (2, -1)).transpose(1, 2)
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        base = BASE / 2
        scale = base ** (self.exponent - 0.5) / query.shape[-1] ** self.exponent
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, scale=scale)
        return self.o_proj(mixed.transpose(1, 2).flatten(2))


class Transformer(nn.Module):
    """One pre-norm block; the readout's multiplier is written outside of it."""

    def __init__(self, width, exponent=1.0, multiplier=True):
        super().__init__()
        self.embed = nn.Linear(6, width, bias=False)
        self.attention_norm, self.norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, exponent)
        self.up, self.down = hidden(width), hidden(width)
        self.head = nn.Linear(width, 1, bias=False)
        self.factor = BASE / width if multiplier else 1.0
        nn.init.normal_(self.embed.weight, std=6**-0.5)
        nn.init.normal_(self.head.weight, std=BASE**-0.5 if multiplier else width**-0.5)

    def forward(self, x):
        x = self.embed(x)
        x = x + self.attention(self.attention_norm(x))
        x = x + self.down(nn.functional.gelu(self.up(self.norm(x))))
        return self.factor * self.head(x.mean(1))


def hidden(width):
    """A hidden weight with the init of fan-in."""
    layer = nn.Linear(width, width, bias=False)
    nn.init.normal_(layer.weight, std=width**-0.5)
    return layer


def optimizer(kind, fault=""):
    """Return the optimizer of maximal update, the weight of this name taken for an input weight."""

    def make(model):
        width = model.head.in_features
        groups = []
        for name, parameter in model.named_parameters():
            as_hidden = parameter.shape == (width, width) and name != fault
            ratio = (BASE / width if as_hidden else 1.0) * (1.0 if kind is torch.optim.Adam else width / BASE)
            groups.append({"params": [parameter], "lr": ratio * (3e-3 if kind is torch.optim.Adam else 0.03)})
        return kind(groups)

    return make


def sequences():
    """Return sequences of eight tokens and numbers that depend on the order of their tokens."""
    x = torch.randn(32, 8, 6, generator=torch.Generator().manual_seed(0))
    return x, x.mean(1)[:, :1].sign() * x[:, 0, :1]
