import torch
from torch import nn

import runner


def make_model(width):
    return nn.Sequential(
        nn.Linear(10, width),
        nn.Tanh(),
        nn.Linear(width, width),
        nn.Tanh(),
        nn.Linear(width, 1),
    )


def optimizer(model):
    return torch.optim.Adam(model.parameters(), lr=1e-3)


inputs = torch.randn(64, 10)
targets = inputs[:, :1] * inputs[:, 1:2]
check = runner.coordinate_check(
    make_model, optimizer, [(inputs, targets)], widths=(32, 64, 128, 256)
)
print(check)
check.save("check.svg")
