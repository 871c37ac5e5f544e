"""Plain torch modules that people bring, as they bring them: each must train and be measured.

All take digits (1 x 8 x 8) and build from `width` and `outputs` alone.
"""

import torch
import torch.nn.functional as F
from torch import nn


class GroupNormBlock(nn.Module):
    def __init__(self, channels, out, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.norm1 = nn.GroupNorm(4, out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.norm2 = nn.GroupNorm(4, out)
        changes = channels != out or stride > 1
        self.skip = nn.Conv2d(channels, out, 1, stride, bias=False) if changes else nn.Identity()

    def forward(self, x):
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.skip(x))


class GroupNormResNet(nn.Module):
    """A ResNet with GroupNorm, whose second stage has twice the channels."""

    def __init__(self, width, outputs):
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, 1, 1)
        self.blocks = nn.Sequential(GroupNormBlock(width, width), GroupNormBlock(width, 2 * width, 2))
        self.head = nn.Linear(2 * width, outputs)

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


class TorchTransformer(nn.Module):
    """torch's own encoder: MultiheadAttention keeps its weights as parameters of its own, three in one."""

    def __init__(self, width, outputs):
        super().__init__()
        self.embed = nn.Linear(8, width)
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True)
        self.blocks = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, outputs)

    def forward(self, x):
        return self.head(self.blocks(self.embed(x.reshape(x.shape[0], 8, 8))).mean(1))


class FusedAttention(nn.Module):
    """q, k and v from one matrix, torch's fused attention: its CPU kernel has no second derivative."""

    def __init__(self, width, outputs):
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width)
        self.head = nn.Linear(width, outputs)

    def forward(self, x):
        x = self.embed(x.reshape(x.shape[0], 8, 8))
        batch, tokens, width = x.shape
        q, k, v = (
            part.reshape(batch, tokens, 4, width // 4).transpose(1, 2)
            for part in self.qkv(self.norm(x)).split(width, -1)
        )
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, tokens, width)
        return self.head((x + self.out(y)).mean(1))


class Head(nn.Module):
    def __init__(self, width, size):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(width, size, bias=False) for _ in range(3))
        self.size = size

    def forward(self, x):
        logits = self.q(x) @ self.k(x).transpose(-1, -2) / self.size**0.5
        return torch.softmax(logits, -1) @ self.v(x)


class GrowingHeads(nn.Module):
    """Heads of a fixed size, as many as the width holds: the list of layers grows with width."""

    def __init__(self, width, outputs):
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.heads = nn.ModuleList(Head(width, 8) for _ in range(width // 8))
        self.out = nn.Linear(width, width)
        self.head = nn.Linear(width, outputs)

    def forward(self, x):
        x = self.embed(x.reshape(x.shape[0], 8, 8))
        x = x + self.out(torch.cat([head(x) for head in self.heads], -1))
        return self.head(x.mean(1))


class FixedStem(nn.Module):
    """A stem of a fixed size before layers that grow, and a width that is not a multiple."""

    def __init__(self, width, outputs):
        super().__init__()
        self.stem = nn.Linear(64, 100)
        self.first = nn.Linear(100, width)
        self.second = nn.Linear(width, width + 3)
        self.head = nn.Linear(width + 3, outputs)

    def forward(self, x):
        for layer in (self.stem, self.first, self.second):
            x = torch.relu(layer(x.flatten(1)))
        return self.head(x)


class WeightNorm(nn.Module):
    """A parametrization of torch's own: what is trained is not what multiplies."""

    def __init__(self, width, outputs):
        super().__init__()
        self.first = nn.utils.parametrizations.weight_norm(nn.Linear(64, width))
        self.head = nn.Linear(width, outputs)

    def forward(self, x):
        return self.head(torch.relu(self.first(x.flatten(1))))
