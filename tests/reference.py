"""The naive truth: one cell, plain weights, loops and full Jacobians, all in float64.

Nothing here comes from ``runner``: the abc table is written out from the papers, the network is a chain of
matrix products, the kernel is the product of two Jacobians.
"""

import math

import torch
from torch.func import jacrev

ABC = {  # role order: input, hidden, output
    "sp": {"a": (0, 0, 0), "b": (0, 0.5, 0.5), "c": (0, 0, 0)},
    "ntk": {"a": (0, 0.5, 0.5), "b": (0, 0, 0), "c": (0, 0, 0)},
    "mean_field": {"a": (0, 0.5, 1), "b": (0, 0, 0), "c": (-1, -1, -1)},
    "mup": {"a": (-0.5, 0, 0.5), "b": (0.5, 0.5, 0.5), "c": (0, 0, 0)},
}
ROLES = ("input", "hidden", "output")

ACTIVATIONS = {
    "relu": lambda x: math.sqrt(2) * torch.clamp(x, min=0),
    "tanh": torch.tanh,
    "erf": torch.erf,
    "linear": lambda x: x,
}


def roles_of(depth):
    return ["input"] + ["hidden"] * (depth - 1) + ["output"]


def factor(name, letter, role, ratio):
    """r^(-exponent) of a weight of a role."""
    return ratio ** -ABC[name][letter][ROLES.index(role)]


def bias_role(role):
    """A bias of a hidden layer scales like an input weight; that of the output not at all."""
    return None if role == "output" else "input"


class Network:
    """One MLP cell: raw weights, and how they enter the function and the update."""

    def __init__(self, name, ratio, activation, weights, biases=None, gamma=1.0):
        self.name, self.ratio, self.gamma = name, ratio, gamma
        self.activation = ACTIVATIONS[activation]
        self.roles = roles_of(len(weights) - 1)
        self.raw = [w.clone().double() for w in weights] + [b.clone().double() for b in biases or []]
        self.start = [p.clone() for p in self.raw]

    def scales(self, letter):
        """r^(-exponent) for every raw parameter, weights then biases."""
        scales = [factor(self.name, letter, role, self.ratio) for role in self.roles]
        if len(self.raw) > len(self.roles):
            scales += [
                1.0 if bias_role(r) is None else factor(self.name, letter, bias_role(r), self.ratio)
                for r in self.roles
            ]
        return scales

    def hidden(self, raw, x):
        """Activations after every hidden layer, and the raw outputs."""
        scaled = [s * p for s, p in zip(self.scales("a"), raw, strict=True)]
        count = len(self.roles)
        activations = []
        for layer in range(count):
            x = x @ scaled[layer]
            if len(scaled) > count:
                x = x + scaled[count + layer]
            if layer < count - 1:
                x = self.activation(x)
                activations.append(x)
        return activations, x

    def raw_outputs(self, x, raw=None):
        return self.hidden(self.raw if raw is None else raw, x)[1]

    def f(self, x, centered=False):
        h = self.raw_outputs(x)
        if centered:
            h = h - self.raw_outputs(x, self.start)
        return h / self.gamma

    def jacobian(self, x):
        """[sample * output, parameter], each parameter's column times sqrt(r^(-c))."""
        blocks = jacrev(lambda raw: self.raw_outputs(x, raw).flatten())(self.raw)
        return torch.cat(
            [b.flatten(1) * math.sqrt(s) for b, s in zip(blocks, self.scales("c"), strict=True)], dim=1
        )

    def full_ntk(self, x):
        """[sample, output, sample, output]."""
        j = self.jacobian(x)
        n = x.shape[0]
        return (j @ j.T).reshape(n, j.shape[0] // n, n, j.shape[0] // n)

    def trace_ntk(self, x):
        theta = self.full_ntk(x)
        outputs = theta.shape[1]
        return sum(theta[:, k, :, k] for k in range(outputs)) / outputs

    def lambda_max(self, x):
        j = self.jacobian(x)
        return torch.linalg.eigvalsh(j @ j.T)[-1] / x.shape[0]

    def train(self, x, y, lr, steps, loss="mse", centered=False, batches=None):
        """Gradient descent with the layer's learning rate lr * gamma^2 * r^(-c)."""
        for step in range(steps):
            rows = slice(None) if batches is None else batches[step]
            raw = [p.clone().requires_grad_() for p in self.raw]
            h = self.hidden(raw, x[rows])[1]
            if centered:
                h = h - self.raw_outputs(x[rows], self.start)
            value = LOSSES[loss](h / self.gamma, y[rows])
            gradients = torch.autograd.grad(value, raw)
            for i, (g, s) in enumerate(zip(gradients, self.scales("c"), strict=True)):
                self.raw[i] = self.raw[i] - lr * self.gamma**2 * s * g


def mse(f, y):
    total = 0.0
    for i in range(f.shape[0]):
        for k in range(f.shape[1]):
            total = total + (f[i, k] - y[i, k]) ** 2
    return total / (2 * f.shape[0])


def cross_entropy(f, y):
    total = 0.0
    for i in range(f.shape[0]):
        if f.shape[1] == 1:
            label = 1.0 if y[i, 0] > 0 else -1.0
            total = total + torch.log1p(torch.exp(-label * f[i, 0]))
        else:
            total = total - torch.log_softmax(f[i], 0)[y[i].argmax()]
    return total / f.shape[0]


LOSSES = {"mse": mse, "cross_entropy": cross_entropy}


def movement(now, start):
    """norm(theta_t - theta_0) / norm(theta_0) over a list of tensors."""
    moved = torch.cat([(a - b).flatten() for a, b in zip(now, start, strict=True)])
    return moved.norm() / torch.cat([b.flatten() for b in start]).norm()


def spectral_movement(now, start):
    return torch.linalg.svdvals(now - start)[0] / torch.linalg.svdvals(start)[0]


def ntk_change(now, start):
    return (now - start).norm() / start.norm()


def kernel_distance(now, start):
    return 1 - (now * start).sum() / (now.norm() * start.norm())


def feature_movement(now, start):
    return (now - start).pow(2).mean().sqrt() / start.pow(2).mean().sqrt()
