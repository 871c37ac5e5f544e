"""Plain torch modules for tests, good ones and bad ones."""

import torch
from torch import nn


class Perceptron(nn.Module):
    """Two hidden layers, the second behind a norm and beside a skip connection."""

    def __init__(self, width, inputs, outputs, slope=1.0):
        super().__init__()
        self.slope = slope
        self.first = nn.Linear(inputs[0], width)
        self.block = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width, bias=False), nn.Tanh())
        self.second = nn.Linear(2 * width, width)
        self.head = nn.Linear(width, outputs)
        self.register_buffer("shift", torch.tensor(0.5))

    def forward(self, x):
        x = torch.tanh(self.slope * self.first(x)) + self.shift
        return self.head(x + self.second(self.block(x)))


class Convolutional(nn.Module):
    """Two convolutions, the second with a stride, and a readout of all positions."""

    def __init__(self, width, depth, inputs, outputs):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(inputs[0], width, 3, padding=1),
            nn.Tanh(),
            nn.Conv2d(width, width, 3, stride=2, bias=False),
            nn.Tanh(),
        )
        self.head = nn.Linear(width, outputs)

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)))


class Tokens(nn.Module):
    """Embeddings of one-hot tokens, mixed by a layer that is called twice."""

    def __init__(self, width, inputs, outputs):
        super().__init__()
        self.embed = nn.Embedding(inputs[1], width)
        self.mix = nn.Linear(width, width)
        self.head = nn.Linear(width, outputs)

    def forward(self, x):
        x = self.embed(x.argmax(-1))
        for _ in range(2):
            x = torch.tanh(self.mix(x))
        return self.head(input=x.sum(1))


class Head(nn.Module):
    """A base for modules that are wrong."""

    def __init__(self, width, inputs, outputs):
        super().__init__()
        self.first = nn.Linear(inputs[0], width)
        self.head = nn.Linear(width, outputs)

    def forward(self, x):
        return self.head(self.first(x).tanh())


class FixedLayer(Head):
    def __init__(self, width, inputs, outputs):
        super().__init__(width, inputs, outputs)
        self.first = nn.Sequential(nn.Linear(inputs[0], 3), nn.Linear(3, width))


class OddLayer(Head):
    def __init__(self, width, inputs, outputs):
        super().__init__(width, inputs, outputs)
        self.first, self.head = nn.Linear(inputs[0], width + 1), nn.Linear(width + 1, outputs)


class Normalized(Head):
    def __init__(self, width, inputs, outputs):
        super().__init__(width, inputs, outputs)
        self.norm = nn.BatchNorm1d(width)


class BatchCentred(Head):
    """Batch norm by hand."""

    def forward(self, x):
        z = self.first(x)
        return self.head((z - z.mean(0)).tanh())


class DroppingByHand(Head):
    def forward(self, x):
        return self.head(nn.functional.dropout(self.first(x).tanh(), 0.2))


class Idle(Head):
    def __init__(self, width, inputs, outputs):
        super().__init__(width, inputs, outputs)
        self.spare = nn.Linear(width, width)


class Frozen(Head):
    def __init__(self, width, inputs, outputs):
        super().__init__(width, inputs, outputs)
        self.first.requires_grad_(False)


class Dropping(Head):
    def __init__(self, width, inputs, outputs):
        super().__init__(width, inputs, outputs)
        self.drop = nn.Dropout(0.1)


class Attending(Head):
    def __init__(self, width, inputs, outputs):
        super().__init__(width, inputs, outputs)
        self.attention = nn.MultiheadAttention(width, 2)


class Sharing(Head):
    def __init__(self, width, inputs, outputs):
        super().__init__(width, inputs, outputs)
        self.middle, self.last = nn.Linear(width, width), nn.Linear(width, width)
        self.last.weight = self.middle.weight


class Grouped(nn.Module):
    def __init__(self, width, inputs, outputs):
        super().__init__()
        self.first = nn.Conv2d(inputs[0], width, 3)
        self.second = nn.Conv2d(width, width, 3, groups=width)

    def forward(self, x):
        return self.second(self.first(x)).mean((2, 3))


class Growing(Head):
    def __init__(self, width, inputs, outputs):
        super().__init__(width, inputs, outputs)
        self.more = nn.Sequential(*(nn.Linear(width, width) for _ in range(width // 8)))


class Bypassed(Head):
    """Uses a weight without calling its layer."""

    def forward(self, x):
        return nn.functional.linear(torch.tanh(self.first(x)), self.head.weight, self.head.bias)


def nothing(width):
    return width


def failing(width):
    raise RuntimeError("no such width")
