r"""The kernels of an infinitely wide MLP, in closed form, with the tool's own constants.

Layer by layer, with Q the covariance of a layer's outputs at init, V = E[phi phi] and V' = E[phi' phi'] under
N(0, Q), s_l^2 the variance of a weight in force (its multiplier included), n the width and k_l = r^(-c - 2a)
the lr-weighted square of the multiplier::

    A_1 = x x^T,   Q_l = s_l^2 A_l + sb_l^2,   A_{l+1} = n V_l              forward: Gram of a layer's inputs
    B_{L+1} = 1,   B_l = n s_{l+1}^2 V'_l * B_{l+1}                         backward: Gram of df/dz_l
    Theta = sum_l B_l * (k_l A_l + kb_l)

The width enters through the factors alone, so that a parameterization whose kernel grows with width (``sp``)
is compared with a limit that grows likewise.

References:
    Jacot, Gabriel & Hongler (2018), arXiv 1806.07572, theorem 1.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from runner.layers import Linear
from runner.limits.moments import MOMENTS
from runner.measures.probe_kernel import probe_ntk
from runner.measures.snapshot import Measurement, Snapshot
from runner.models import MLP
from runner.models.ensemble import Ensemble
from runner.scaling.parameterization import Scaling

Kernel = Float64[Tensor, "cell sample sample"]


class LimitKernels(NamedTuple):
    """Both kernels of an infinitely wide network, per output.

    Attributes:
        nngp: Covariance of an output at init.
        ntk: The lr-weighted tangent kernel.
    """

    nngp: Kernel
    ntk: Kernel


def limit_kernels(ensemble: Ensemble, x: Float[Tensor, "1 sample *inputs"]) -> LimitKernels | None:
    """Return the analytic kernels of an ensemble of MLPs, in float64.

    Args:
        ensemble: Cells of any parameterization, width and base width.

    Returns:
        Kernels per cell; None if the model is no MLP, or its activation has no closed form.
    """
    model = ensemble.model
    if not isinstance(model, MLP) or model.activation.name not in MOMENTS:
        return None
    moments = MOMENTS[model.activation.name]
    inputs = x.double().flatten(2) * model.input_scale
    gram = inputs @ inputs.mT
    grams: list[Tensor] = []
    derivatives: list[Tensor] = []
    layers = [*model.hidden, model.output]
    for layer in layers:
        assert isinstance(layer, Linear)
        if derivatives:
            gram = layer.specs["weight"].shape[0] * gram
        grams.append(gram)
        covariance = _variance(ensemble, layer, "weight") * gram
        if layer.has_bias:
            covariance = covariance + _variance(ensemble, layer, "bias")
        if layer is not model.output:
            gram, derivative = moments(covariance)
            derivatives.append(derivative)
    backward = torch.ones_like(covariance)
    ntk = torch.zeros_like(covariance)
    for place in reversed(range(len(layers))):
        layer = layers[place]
        assert isinstance(layer, Linear)
        factor = _factor(layer, "weight") * grams[place]
        if layer.has_bias:
            factor = factor + _factor(layer, "bias")
        ntk = ntk + backward * factor
        if place:
            fan_in = layer.specs["weight"].shape[0]
            backward = backward * fan_in * _variance(ensemble, layer, "weight") * derivatives[place - 1]
    return LimitKernels(covariance, ntk)


def ntk_limit_distance(now: Snapshot, start: Snapshot) -> Measurement:
    """Return norm_F(Theta - Theta_inf) / norm_F(Theta_inf) on probes; meant for init.

    Returns:
        ``ntk_limit_distance`` per cell; nothing where :func:`limit_kernels` knows no limit.
    """
    limit = limit_kernels(now.ensemble, now.ensemble.inputs["probe"])
    if limit is None:
        return Measurement()
    expected = limit.ntk.flatten(1)
    distance = (probe_ntk(now).double().flatten(1) - expected).norm(dim=1) / expected.norm(dim=1)
    return Measurement(trace={"ntk_limit_distance": distance})


def _variance(ensemble: Ensemble, layer: Linear, name: str) -> Float64[Tensor, "cell 1 1"]:
    """Variance of a parameter in force, (r^(-a) std)^2."""
    spec = layer.specs[name]
    std = Scaling(ensemble.cells).init_std(spec.role, spec.fan_in, spec.sigma)
    scale: Tensor = getattr(layer, f"{name}_multiplier")
    return ((std.to(scale.device) * scale.double()) ** 2)[:, None, None]


def _factor(layer: Linear, name: str) -> Float64[Tensor, "cell 1 1"]:
    return layer.kernel_factor(name).double()[:, None, None]
