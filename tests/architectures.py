"""The naive truth of the architectures: one cell, weights in force, torch's own functional calls, loops.

Every function takes ``w``, name to weight in force (the raw one times its multiplier) in torch's shapes, and
a batch of samples, as a plain module would.
"""

import math

import torch
from torch.nn import functional as F

PHI = {
    "relu": lambda z: math.sqrt(2) * z.clamp(min=0),
    "tanh": torch.tanh,
    "gelu": lambda z: z * 0.5 * (1 + torch.erf(z / math.sqrt(2))),
}


def affine(w, name, x):
    """x W + b on the last axis, row by row."""
    z = torch.stack([row @ w[f"{name}.weight"] for row in x.reshape(-1, x.shape[-1])])
    z = z + w.get(f"{name}.bias", 0.0)
    return z.reshape(*x.shape[:-1], -1)


def conv(w, name, x, stride=1):
    """A convolution as a sum over its patches, position by position."""
    kernel = w[f"{name}.weight"]
    pad = kernel.shape[-1] // 2
    x = F.pad(x, (pad,) * 4)
    side = kernel.shape[-1]
    rows = [
        torch.stack([
            torch.einsum("nchw,ochw->no", x[:, :, i : i + side, j : j + side], kernel)
            for j in range(0, x.shape[3] - side + 1, stride)
        ], -1)
        for i in range(0, x.shape[2] - side + 1, stride)
    ]  # fmt: skip
    z = torch.stack(rows, 2)
    return z + w[f"{name}.bias"][:, None, None] if f"{name}.bias" in w else z


def norm(w, name, x):
    mean, variance = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=False)
    z = (x - mean) / (variance + 1e-5).sqrt() * w[f"{name}.weight"]
    return z + w.get(f"{name}.bias", 0.0)


def halve(x):
    return (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4


def resmlp(w, x, depth, activation="tanh"):
    phi = PHI[activation]
    z = affine(w, "input", x.flatten(1) / math.sqrt(x[0].numel()))
    for layer in range(depth - 1):
        z = z + affine(w, f"hidden.{layer}", phi(z)) / math.sqrt(depth)
    return affine(w, "output", phi(z))


def cnn(w, x, depth, activation="tanh", pool=False, stride=1):
    phi = PHI[activation]
    z = phi(conv(w, "hidden.0", x / math.sqrt(9 * x.shape[1])))
    for layer in range(1, depth):
        z = phi(conv(w, f"hidden.{layer}", halve(z) if pool else z, stride))
    return affine(w, "output", z.mean((2, 3)))


def resnet(w, x, depth, activation="tanh", stages=1):
    phi = PHI[activation]
    z = conv(w, "stem", x / math.sqrt(9 * x.shape[1]))
    for block in range(depth):
        path = f"blocks.{block}"
        if block and block * stages // depth > (block - 1) * stages // depth:
            z = halve(z)
        branch = conv(w, f"{path}.second", phi(conv(w, f"{path}.first", phi(z))))
        skip = conv(w, f"{path}.skip", z) if f"{path}.skip.weight" in w else z
        z = skip + branch / math.sqrt(depth)
    return affine(w, "output", phi(z).mean((2, 3)))


def patches(x, side):
    """[sample, patch, (channel, y, x)] from left to right and from top to bottom."""
    return torch.stack(
        [
            x[:, :, i : i + side, j : j + side].flatten(1)
            for i in range(0, x.shape[2], side)
            for j in range(0, x.shape[3], side)
        ],
        1,
    )


def transformer(
    w, x, depth, heads, logit_factor, activation="gelu", causal=False, last=False, side=2, readout=None
):
    """``logit_factor`` is what the logits are multiplied by beside 1 / sqrt(d_head).

    Of symbols every position has outputs; ``readout`` is the weight in force of a tied one.
    """
    if x.is_floating_point():
        tokens = patches(x, side) if x.dim() == 4 else x if x.dim() == 3 else x[:, :, None]
        z = affine(w, "embedding", tokens / math.sqrt(tokens.shape[-1]))
    else:
        z = torch.stack([torch.stack([w["embedding.weight"][token] for token in row]) for row in x])
    z = z + w["position.weight"]
    size = z.shape[-1] // heads
    for block in range(depth):
        path = f"blocks.{block}"
        y = norm(w, f"{path}.attention_norm", z)
        q, k, v = (affine(w, f"{path}.attention.{name}", y) for name in ("query", "key", "value"))
        mixed = []
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            attended = []
            for t in range(z.shape[1]):
                seen = t + 1 if causal else z.shape[1]
                logits = torch.einsum("nd,nsd->ns", q[:, t, part], k[:, :seen, part])
                weight = torch.softmax(logits * logit_factor / math.sqrt(size), 1)
                attended.append(torch.einsum("ns,nsd->nd", weight, v[:, :seen, part]))
            mixed.append(torch.stack(attended, 1))
        z = z + affine(w, f"{path}.attention.output", torch.cat(mixed, 2))
        y = affine(w, f"{path}.up", norm(w, f"{path}.norm", z))
        z = z + affine(w, f"{path}.down", PHI[activation](y))
    z = norm(w, "norm", z)
    if not x.is_floating_point():
        weight = w["output.weight"] if readout is None else readout
        return torch.cat([z[:, t] @ weight for t in range(x.shape[1])], 1)
    return affine(w, "output", z[:, -1] if last else z.mean(1))
