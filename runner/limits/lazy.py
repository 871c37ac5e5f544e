r"""The lazy limit: gradient descent under the kernel at init, which never moves.

    f(t + 1) = f(t) + eta / P * Theta (y - f(t)),    f(0) = 0

References:
    Jacot, Gabriel & Hongler (2018), arXiv 1806.07572, theorem 1; Lee et al. (2019), arXiv 1902.06720, eq. 8.
"""

import torch
from jaxtyping import Float64
from torch import Tensor

from runner.limits.moments import moments
from runner.limits.problem import Problem


def initial_kernel(problem: Problem) -> Float64[Tensor, "sample sample"]:
    r"""Return the lr-weighted tangent kernel at init of an infinitely wide network.

    Q_1 = sigma_0^2 x.x',   Phi_l = E[phi phi],   Q_{l+1} = sigma_l^2 Phi_l
    G_L = sigma_L^2 E[phi' phi'],   G_l = sigma_l^2 E[phi' phi'] * G_{l+1}
    Theta = k_0 G_1 x.x' + sum_l k_l G_{l+1} Phi_l + k_L Phi_L
    """
    covariance = problem.sigmas[0] ** 2 * problem.gram
    features, slopes = [problem.gram], []
    for layer in range(1, problem.depth + 1):
        value, slope = moments(problem.activation, covariance)
        features.append(value)
        slopes.append(slope)
        covariance = problem.sigmas[layer] ** 2 * value
    kernel = torch.zeros_like(covariance)
    backward = torch.ones_like(covariance)
    for layer in reversed(range(problem.depth + 1)):
        kernel = kernel + problem.rates[layer] * backward * features[layer]
        if layer:
            backward = problem.sigmas[layer] ** 2 * slopes[layer - 1] * backward
    return kernel


def kernel_descent(
    problem: Problem, kernel: Float64[Tensor, "sample sample"]
) -> Float64[Tensor, "step sample"]:
    """Return the outputs at the steps of a problem under a kernel that never moves."""
    outputs = problem.gram.new_zeros(len(problem.gram))
    found = []
    for step in range(problem.steps[-1] + 1):
        if step in problem.steps:
            found.append(outputs)
        rest = (problem.targets - outputs[: problem.train]) / problem.train
        outputs = outputs + problem.lr * (kernel[:, : problem.train] @ rest)
    return torch.stack(found)
