"""The naive truth: one cell, plain weights, loops and full Jacobians, all in float64.

Nothing here comes from ``runner``: the abc table is written out from the papers, the network is a chain of
matrix products, the kernel is the product of two Jacobians.
"""

import math

import torch
from torch.func import jacrev

ABC = {  # role order: input, hidden, output; c is SGD's
    "sp": {"a": (0, 0, 0), "b": (0, 0.5, 0.5), "c": (0, 0, 0), "c_adam": (0, 0, 0)},
    "ntk": {"a": (0, 0.5, 0.5), "b": (0, 0, 0), "c": (0, 0, 0), "c_adam": (0.5, 1, 0.5)},
    "mean_field": {"a": (0, 0.5, 1), "b": (0, 0, 0), "c": (-1, -1, -1), "c_adam": (0, 0.5, 0)},
    "mup": {"a": (-0.5, 0, 0.5), "b": (0.5, 0.5, 0.5), "c": (0, 0, 0), "c_adam": (0.5, 1, 0.5)},
}
ALPHA = {"completep": 1.0, "depth_mup": 0.5}  # of branches, which depth divides; all else is mup's
ABC |= dict.fromkeys(ALPHA, ABC["mup"])
ATTENTION = dict.fromkeys(("mean_field", "mup", *ALPHA), 0.5)  # logits times r^(-1/2); nothing elsewhere
ROLES = ("input", "hidden", "output")

ACTIVATIONS = {
    "relu": lambda x: math.sqrt(2) * torch.clamp(x, min=0),
    "tanh": torch.tanh,
    "erf": torch.erf,
    "linear": lambda x: x,
}


def in_depth(name):
    """Exponents of the depth, which follow from alpha: L blocks change by 1/L of what all of them do."""
    if name not in ALPHA:
        return {}
    alpha = ALPHA[name]
    rates = {"sgd": 1 - 2 * alpha, "adam": 1 - alpha}
    return {
        "branch": alpha, "decay": 1 - alpha,
        "c": {family: {"hidden": rate, "vector": rate} for family, rate in rates.items()},
    }  # fmt: skip


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


def linearization_error(network, x):
    """Against f_0 + J_0 (theta_t - theta_0), with the whole Jacobian at the start."""
    blocks = jacrev(lambda raw: network.raw_outputs(x, raw).flatten())(network.start)
    moved = sum(
        block.flatten(1) @ (now - start).flatten()
        for block, now, start in zip(blocks, network.raw, network.start, strict=True)
    )
    change = (network.raw_outputs(x) - network.raw_outputs(x, network.start)).flatten()
    return (change - moved).norm() / change.norm()


def kernel_gd_error(network, start, x, y, probe, lr, steps, centered):
    """Against steps of gradient descent in function space, one after the other, under the kernel at init."""
    both = torch.cat([x, probe])
    kernel = start.full_ntk(both)
    size = both.shape[0] * kernel.shape[1]
    n, count = x.shape[0], x.shape[0] * kernel.shape[1]
    kernel = kernel.reshape(size, size)[:, :count]
    origin = start.raw_outputs(both).flatten() * (0 if centered else 1) / network.gamma
    f = origin.clone()
    for _ in range(steps):
        f = f - lr / n * kernel @ (f[:count] - y.flatten())
    expected = (f - origin)[count:]
    actual = (network.raw_outputs(probe) - start.raw_outputs(probe)).flatten() / network.gamma
    return (actual - expected).norm() / expected.norm()


def kernel_ridge(kernel, y, ridge=None):
    """Predictions beyond the training set; unless given, the ridge is chosen on the last fifth of it."""
    n = y.shape[0]
    fitted = n - max(1, int(0.2 * n))

    def fit(count, ridge, rows):
        square = kernel[:count, :count]
        damping = ridge * count * square.diagonal().mean() * torch.eye(count, dtype=torch.float64)
        return kernel[rows, :count] @ torch.linalg.solve(square + damping, y[:count])

    if ridge is not None:
        return fit(n, ridge, slice(n, None))
    errors = {}
    for half in range(-20, 3):
        ridge = 10 ** (half / 2)
        errors[ridge] = (fit(fitted, ridge, slice(fitted, n)) - y[fitted:]).pow(2).sum().item()
    best = min(errors, key=lambda ridge: (errors[ridge], -ridge))
    return fit(n, best, slice(n, None))


def error_rate(f, y):
    wrong = 0
    for i in range(f.shape[0]):
        if f.shape[1] == 1:
            wrong += int((f[i, 0] > 0) != (y[i, 0] > 0))
        else:
            wrong += int(f[i].argmax() != y[i].argmax())
    return wrong / f.shape[0]


def spectrum(network, x):
    """lambda_min, condition number and effective rank of the train kernel over N."""
    j = network.jacobian(x)
    values = torch.linalg.eigvalsh(j @ j.T) / x.shape[0]
    share = values / values.sum()
    condition = values[-1] / values[0] if values[0] > 1e-14 * values[-1] else math.inf
    return values[0], condition, torch.exp(-sum(s * s.log() for s in share if s > 0))


def centered_alignment(one, other):
    n = one.shape[0]
    h = torch.eye(n, dtype=torch.float64) - 1 / n
    a, b = h @ one @ h, h @ other @ h
    return (a * b).sum() / (a.norm() * b.norm())


def sharpness(network, x, y, loss, centered):
    """Top eigenvalue of the whole Hessian, rows and columns times gamma sqrt(r^(-c))."""
    sizes = [p.numel() for p in network.raw]
    offset = network.raw_outputs(x, network.start) if centered else 0

    def value(flat):
        raw = [v.view_as(p) for v, p in zip(flat.split(sizes), network.raw, strict=True)]
        return LOSSES[loss]((network.raw_outputs(x, raw) - offset) / network.gamma, y)

    flat = torch.cat([p.flatten() for p in network.raw])
    scales = network.scales("c")
    root = torch.cat(
        [torch.full((k,), s**0.5, dtype=torch.float64) for k, s in zip(sizes, scales, strict=True)]
    )
    matrix = torch.autograd.functional.hessian(value, flat, vectorize=True)  # row by row, in one pass
    return torch.linalg.eigvalsh(network.gamma**2 * root[:, None] * matrix * root)[-1]


def probe_error(features, count, labels, other):
    """Test error of ridge regression with an intercept on features; the first ``count`` are for training."""
    centre = features[:count].mean(0)
    features = features - centre
    mean = labels.mean()
    return error_rate(kernel_ridge(features @ features.T, labels - mean) + mean, other)
