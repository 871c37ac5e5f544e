"""Gaussian averages of an activation and of its derivative: E[phi(u) phi(v)] and E[phi'(u) phi'(v)].

Closed forms where there are any, else quadrature. Covariances are ``[..., sample, sample]``.

References:
    Cho & Saul (2009), "Kernel methods for deep learning", eq. 6 (relu); Williams (1997), "Computing with
    infinite networks", eq. 11 (erf).
"""

import math
from collections.abc import Callable, Mapping
from functools import lru_cache

import torch
from jaxtyping import Float64
from numpy.polynomial.hermite_e import hermegauss
from torch import Tensor

from runner.layers.activation import ACTIVATIONS

Kernel = Float64[Tensor, "... sample sample"]

_NODES = 96
"""Of the quadrature in each of two directions: tanh and gelu are smooth, and its error is below 1e-9."""


def moments(activation: str, covariance: Kernel) -> tuple[Kernel, Kernel]:
    """Return (E[phi(u) phi(v)], E[phi'(u) phi'(v)]) for (u, v) ~ N(0, covariance), for every pair.

    Args:
        activation: Name of the activation.
        covariance: Of the inputs of the activation.
    """
    if activation in MOMENTS:
        return MOMENTS[activation](covariance)
    return quadrature(activation, covariance)


def quadrature(activation: str, covariance: Kernel) -> tuple[Kernel, Kernel]:
    """Return the same of a smooth activation, by Gauss-Hermite quadrature in two dimensions."""
    nodes, weights = _hermite()
    _, cosine = normalized(covariance)
    spread = covariance.diagonal(dim1=-2, dim2=-1).sqrt()
    sine = (1 - cosine**2).clamp_min(0).sqrt()
    first = spread[..., :, None, None] * nodes  # u = s_u x
    value, slope = (torch.zeros_like(covariance) for _ in range(2))
    phi_u, slope_u = values(activation, first)
    for node, weight in zip(nodes.tolist(), weights.tolist(), strict=True):
        # v = s_v (cos x + sin y), y at one node after the other.
        mixed = cosine[..., None] * nodes + sine[..., None] * node
        phi_v, slope_v = values(activation, spread[..., None, :, None] * mixed)
        value += weight * (phi_u * phi_v) @ weights
        slope += weight * (slope_u * slope_v) @ weights
    return (value + value.mT) / 2, (slope + slope.mT) / 2


def values(activation: str, z: Tensor) -> tuple[Tensor, Tensor]:
    """Return phi(z) and phi'(z) as networks have them."""
    function = ACTIVATIONS[activation]
    if activation == "linear":
        return z, torch.ones_like(z)
    a = torch.empty_like(z)
    function.write(z, a)
    slope = torch.full_like(z, function.gain)
    # What pulls a gradient back may write into z.
    function.pull(slope, z.clone(), a)
    return function.gain * a, slope


def normalized(q: Kernel) -> tuple[Kernel, Kernel]:
    """Return products of the norms, and the cosine, exactly 1 on the diagonal."""
    norm = q.diagonal(dim1=-2, dim2=-1).sqrt()
    norms = norm[..., :, None] * norm[..., None, :]
    # A sample of norm 0 has any angle: its products vanish.
    cosine = (q / torch.where(norms > 0, norms, 1.0)).clamp(-1, 1)
    cosine.diagonal(dim1=-2, dim2=-1).fill_(1.0)
    return norms, cosine


@lru_cache(maxsize=1)
def _hermite() -> tuple[Tensor, Tensor]:
    nodes, weights = (torch.from_numpy(part) for part in hermegauss(_NODES))
    return nodes, weights / math.sqrt(2 * math.pi)


def _relu(q: Kernel) -> tuple[Kernel, Kernel]:
    """Moments of phi(z) = sqrt(2) max(z, 0)."""
    norms, cosine = normalized(q)
    angle = torch.acos(cosine)
    rest = math.pi - angle
    return norms * (torch.sin(angle) + rest * cosine) / math.pi, rest / math.pi


def _erf(q: Kernel) -> tuple[Kernel, Kernel]:
    """Moments of phi(z) = erf(z)."""
    spread = 1 + 2 * q.diagonal(dim1=-2, dim2=-1)
    product = spread[..., :, None] * spread[..., None, :]
    value = 2 / math.pi * torch.asin(2 * q / product.sqrt())
    return value, 4 / math.pi / (product - 4 * q**2).sqrt()


def _linear(q: Kernel) -> tuple[Kernel, Kernel]:
    """Moments of phi(z) = z."""
    return q, torch.ones_like(q)


MOMENTS: Mapping[str, Callable[[Kernel], tuple[Kernel, Kernel]]] = {
    "relu": _relu,
    "erf": _erf,
    "linear": _linear,
}
"""Activation to its moments, where they have a closed form."""
