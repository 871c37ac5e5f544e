"""Gradient clipping, cell by cell."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

_EPS = 1e-6  # as in torch.nn.utils.clip_grad_norm_


def clip_factor(
    gradients: Sequence[Float[Tensor, "cell ..."]], roots: Sequence[Float[Tensor, "cell"]], limit: float
) -> Float[Tensor, "cell"]:
    """Return min(1, limit / norm) of every cell, as ``torch.nn.utils.clip_grad_norm_`` computes it.

    The norm is lr-weighted, gamma * sqrt(sum_l k_l r^(-c_l) |g_l|^2). It is the one in which the NTK is
    measured: under gradient descent the loss falls by lr times its square, in every parameterization. The
    plain norm of the raw gradient depends on how a weight is split into multiplier and parameter, and so
    would clip ``mup`` and ``mean_field``, which are the same trajectories, at different steps. Where all c
    are 0 (``ntk``, ``mup``, ``sp``) and all factors k and gamma are 1, it is the plain norm.

    Args:
        roots: gamma * sqrt(k r^(-c)) of every parameter, with SGD's c.
    """
    norms = [
        root * torch.linalg.vector_norm(gradient.reshape(len(gradient), -1), dim=1)
        for gradient, root in zip(gradients, roots, strict=True)
    ]
    norm: Tensor = torch.linalg.vector_norm(torch.stack(norms), dim=0)
    return (limit / (norm + _EPS)).clamp(max=1.0)
