"""Plain torch modules for tests, good ones and bad ones."""

from functools import partial

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


class Biased(nn.Module):
    """An MLP as torch begins it, biases and all."""

    def __init__(self, width, outputs):
        super().__init__()
        self.first, self.hidden = nn.Linear(64, width), nn.Linear(width, width)
        self.head = nn.Linear(width, outputs)

    def forward(self, x):
        return self.head(torch.relu(self.hidden(torch.relu(self.first(x.flatten(1))))))


class Constant(Biased):
    """The same with weights of one size at every width."""

    def __init__(self, width, outputs):
        super().__init__(width, outputs)
        for layer in (self.first, self.hidden, self.head):
            nn.init.normal_(layer.weight, std=0.02)


class Recurrent(nn.Module):
    """Rows of an image, one after the other."""

    def __init__(self, width, outputs, kind):
        super().__init__()
        make = partial(nn.LSTM, bias=False) if kind == "Unbiased" else getattr(nn, kind)
        self.rows = make(8, width, batch_first=True)
        self.head = nn.LazyLinear(outputs)
        with torch.no_grad():
            self.forward(torch.zeros(1, 8, 8))

    def forward(self, x):
        return self.head(self.rows(x.reshape(x.shape[0], 8, 8))[0].mean(1))


class Convolutions(nn.Module):
    """In one and three dimensions, transposed, grouped and of each channel alone, behind norms."""

    def __init__(self, width, outputs):
        super().__init__()
        self.volume = nn.Conv3d(1, width, (1, 3, 3), padding=(0, 1, 1))
        self.first = nn.Conv1d(width, width, 3, padding=1, groups=4)
        self.norm = nn.InstanceNorm1d(width, affine=True)
        self.each = nn.Conv1d(width, width, 3, padding=1, groups=width)
        self.up = nn.ConvTranspose1d(width, width, 4, stride=2)
        self.last = nn.RMSNorm(width)
        self.head = nn.Linear(width, outputs)

    def forward(self, x):
        x = self.volume(x.unsqueeze(2)).mean((2, 3))
        x = self.each(self.norm(torch.tanh(self.first(x))))
        return self.head(self.last(torch.tanh(self.up(x)).mean(-1)))


class Pairs(nn.Module):
    """A bilinear layer, an orthogonal matrix, and parameters of its own."""

    def __init__(self, width, outputs):
        super().__init__()
        self.first = nn.Linear(64, width)
        self.pair = nn.Bilinear(width, 64, width)
        self.turn = nn.utils.parametrizations.orthogonal(nn.Linear(width, width, bias=False))
        self.gain = nn.Parameter(torch.full((width,), 0.5))
        self.mix = nn.Parameter(torch.randn(2, width, width) / width**0.5)
        self.readout = nn.Parameter(torch.zeros(width, outputs))

    def forward(self, x):
        x = x.flatten(1)
        y = torch.tanh(self.first(x))
        y = y + self.gain * torch.tanh(self.turn(self.pair(y, x)))
        return torch.einsum("bi,kij->bkj", y, self.mix).tanh().sum(1) @ self.readout


class TiedTokens(nn.Module):
    """An embedding that is the readout, too, and positions that are a parameter of the whole."""

    def __init__(self, width, outputs):
        super().__init__()
        self.embed = nn.Embedding(outputs, width)
        self.positions = nn.Parameter(torch.randn(64, width))
        self.mix = nn.Linear(width, width)
        self.head = nn.Linear(width, outputs, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x):
        x = self.embed((3 * x.flatten(1).abs()).long().clamp(0, 9)) + self.positions
        return self.head(torch.tanh(self.mix(x)).mean(1))


class ByHand(TiedTokens):
    """The table is used twice under one name."""

    def __init__(self, width, outputs):
        super().__init__(width, outputs)
        del self.head

    def forward(self, x):
        x = self.embed((3 * x.flatten(1).abs()).long().clamp(0, 9)) + self.positions
        return torch.tanh(self.mix(x)).mean(1) @ self.embed.weight.mT


class Remembered(nn.Module):
    """A parameter that is called for, and given nothing."""

    def __init__(self, width):
        super().__init__()
        self.table = nn.Parameter(torch.randn(8, width))

    def forward(self):
        return self.table


class Placed(nn.Module):
    """Positions from a module of their own, which is given nothing; outputs in a dict."""

    def __init__(self, width, outputs):
        super().__init__()
        self.embed, self.positions = nn.Linear(8, width), Remembered(width)
        self.head = nn.Linear(width, outputs)

    def forward(self, x):
        x = torch.tanh(self.embed(x.reshape(x.shape[0], 8, 8)) + self.positions())
        return {"logits": self.head(x.mean(1))}


class Counting(Head):
    """Its output depends on how often it was called."""

    def __init__(self, width, inputs, outputs):
        super().__init__(width, inputs, outputs)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls.add_(1)
        return super().forward(x) + self.calls


class Sprouting(Head):
    """Has another parameter after each call."""

    def forward(self, x):
        self.register_parameter(f"more{len(list(self.parameters()))}", nn.Parameter(torch.zeros(3)))
        return super().forward(x)


class Lazy(Head):
    def __init__(self, width, inputs, outputs):
        super().__init__(width, inputs, outputs)
        self.first = nn.LazyLinear(width)


class Complex(Head):
    def __init__(self, width, inputs, outputs):
        super().__init__(width, inputs, outputs)
        self.phase = nn.Parameter(torch.ones(width, dtype=torch.complex64))

    def forward(self, x):
        return self.head((self.first(x) * self.phase).real)


class Misshapen(Head):
    def forward(self, x):
        return self.head(self.first(x) @ x)


class Once(torch.autograd.Function):
    """Can be differentiated once."""

    @staticmethod
    def forward(context, x):
        context.save_for_backward(x)
        return x.sin()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context, gradient):
        return gradient * context.saved_tensors[0].cos()


class OnceOnly(Head):
    def forward(self, x):
        return self.head(Once.apply(self.first(x)))


class Cube(Head):
    """Three of the dimensions of a parameter grow."""

    def __init__(self, width, inputs, outputs):
        super().__init__(width, inputs, outputs)
        self.pair = nn.Bilinear(width, width, width)

    def forward(self, x):
        y = self.first(x).tanh()
        return self.head(self.pair(y, y))


class Branching(Head):
    """Asks for a value: torch cannot run several cells at once."""

    def forward(self, x):
        y = self.first(x)
        return self.head(y.tanh() if float(y.detach().sum()) < 1e30 else y)


class Harmless(Head):
    """Dropout that drops nothing, and a batch norm that no longer looks at its batch."""

    def __init__(self, width, inputs, outputs):
        super().__init__(width, inputs, outputs)
        self.drop, self.norm = nn.Dropout(0.0), nn.BatchNorm1d(width).eval()

    def forward(self, x):
        return self.head(self.drop(self.norm(self.first(x))).tanh())


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


class Blocks(nn.Module):
    """Residual blocks of a norm and two layers."""

    def __init__(self, width, depth, inputs, outputs):
        super().__init__()
        self.first = nn.Linear(inputs[0], width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.head = nn.Linear(width, outputs)

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = x + block.mix(block.norm(x))
        return self.head(x)


class Block(nn.Module):
    """Its branch; what is added is what ``mix`` returns."""

    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mix = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, width))
