"""Synthetic tasks whose structure separates feature learning from kernels; see :mod:`runner.data.draws`.

Every task has a second labelling of its inputs, -1 or +1, in the same few directions as the first: features
that found these directions make it easy, random ones do not.

Keys that tasks share: ``seed`` of all that is random; ``inputs``, ``sphere``, ``gaussian`` or ``hypercube``;
``train_size``, ``test_size`` and ``probe_size``, the samples of the splits.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float64
from torch import Tensor

from runner.data.dataset import Dataset, at_least
from runner.data.draws import Inputs, Labels, draw
from runner.errors import unknown
from runner.numerics.generators import generator


def xor(
    seed: int = 0, dim: int = 30, linear: float = 0.0, standardize: bool = False, inputs: str = "sphere",
    train_size: int = 400, test_size: int = 1000, probe_size: int = 128,
) -> Dataset:  # fmt: skip
    """Return y = sign(x1 x2) + linear * x3: a kernel must learn dim^2 products, a network two directions.

    The second labelling is sign(x1^2 + x2^2 - 2 log 2), far from the centre of that plane or not; on the
    hypercube, where all are equally far, the majority sign(x1 x2 + x3 + x4).

    Args:
        dim: Input dimension, at least 2 (3 with a linear part).
        linear: Strength of the linear part; other than 0 it makes the task a regression.
        standardize: Whether y is shifted and scaled to mean 0 and variance 1 on the training set, which
            also makes it a regression.

    Raises:
        UserError: If dim is too small or inputs unknown.
    """
    at_least("data.dim", dim, 3 if linear else 2)

    def label(x: Inputs) -> Labels:
        y = (x[:, 0] * x[:, 1]).sign()
        return y + linear * x[:, 2] if linear else y

    def second(x: Inputs) -> Labels:
        if inputs == "hypercube":
            return x[:, 0] * x[:, 1] + x[:, 2:4].sum(1)
        return x[:, :2].square().sum(1) - 2 * math.log(2)  # the median of chi^2 with two degrees of freedom

    return draw(
        label, second, seed, dim, inputs, (train_size, test_size, probe_size),
        regression=linear != 0 or standardize, standardize=standardize,
    )  # fmt: skip


def single_index(
    seed: int = 0, dim: int = 30, degree: int = 2, inputs: str = "gaussian",
    train_size: int = 512, test_size: int = 1000, probe_size: int = 128,
) -> Dataset:  # fmt: skip
    """Return y = He_degree(<w, x>) / sqrt(degree!) for a random unit vector w.

    The second labelling is of the other parity in <w, x>: its sign for an even degree, whether it is beyond
    the median of its absolute value for an odd one.

    Args:
        degree: Of the probabilists' Hermite polynomial, 1 to 4; variance 1 under a Gaussian.

    Raises:
        UserError: If degree, dim or inputs are out of range.
    """
    hermite: dict[int, Callable[[Tensor], Tensor]] = {
        1: lambda t: t,
        2: lambda t: t**2 - 1,
        3: lambda t: t**3 - 3 * t,
        4: lambda t: t**4 - 6 * t**2 + 3,
    }
    if degree not in hermite:
        raise unknown("data.degree", degree, [str(k) for k in hermite])
    at_least("data.dim", dim, 1)
    direction = _unit_vector(dim, generator(seed, "single_index/direction"))

    def second(x: Inputs) -> Labels:
        t = x @ direction
        return t if degree % 2 == 0 else t.abs() - 0.67449  # the median of a standard normal's absolute value

    return draw(
        lambda x: hermite[degree](x @ direction) / math.sqrt(math.factorial(degree)),
        second, seed, dim, inputs, (train_size, test_size, probe_size),
    )  # fmt: skip


def polynomial(
    seed: int = 0, dim: int = 100, train_size: int = 450, test_size: int = 1000, probe_size: int = 128
) -> Dataset:
    """Return y = <w, x>^2 / 2 for a random unit vector w and standard Gaussian inputs.

    The polynomial regression of Kumar et al., whose inputs are smaller by sqrt(dim) and whose beta is larger
    by it: <beta, x> is the same. Their epsilon belongs to the network, as its activation z + epsilon/2 z^2.
    Mean and variance of y are 1/2; the quadratic of :func:`single_index` is this y, shifted and scaled.

    The second labelling is the sign of <w, x>.

    Args:
        train_size: Training samples; between dim, which a network needs, and dim^2, which a kernel needs.

    Raises:
        UserError: If dim is out of range.

    References:
        Kumar, Bordelon, Gershman & Pehlevan (2023), "Grokking as the transition from lazy to rich training
        dynamics", arXiv 2310.06110.
    """
    at_least("data.dim", dim, 1)
    direction = _unit_vector(dim, generator(seed, "polynomial/direction"))
    return draw(
        lambda x: (x @ direction).square() / 2,
        lambda x: x @ direction,
        seed, dim, "gaussian", (train_size, test_size, probe_size),
    )  # fmt: skip


def staircase(
    seed: int = 0, dim: int = 30, degree: int = 3, inputs: str = "hypercube",
    train_size: int = 512, test_size: int = 1000, probe_size: int = 128,
) -> Dataset:  # fmt: skip
    """Return y = (s1 + s1 s2 + ... + s1 s2 ... s_degree) / sqrt(degree), s the signs of the inputs.

    The second labelling is s2 s3 ... s_degree, or s1 if that is empty.

    Args:
        dim: Input dimension, at least degree.

    Raises:
        UserError: If degree, dim or inputs are out of range.

    References:
        Abbe, Boix-Adsera & Misiakiewicz (2022), "The merged-staircase property", arXiv 2202.08658.
    """
    at_least("data.degree", degree, 1)
    at_least("data.dim", dim, degree)
    return draw(
        lambda x: x[:, :degree].sign().cumprod(1).sum(1) / math.sqrt(degree),
        lambda x: x[:, min(1, degree - 1) : degree].sign().prod(1),
        seed, dim, inputs, (train_size, test_size, probe_size),
    )  # fmt: skip


def parity(
    seed: int = 0, dim: int = 30, degree: int = 2, inputs: str = "hypercube",
    train_size: int = 512, test_size: int = 1000, probe_size: int = 128,
) -> Dataset:  # fmt: skip
    """Return y = s1 s2 ... s_degree, s the signs of the inputs.

    The second labelling is s1 s2 ... s_(degree - 1), or s1 if that is empty.

    Args:
        dim: Input dimension, at least degree.

    Raises:
        UserError: If degree, dim or inputs are out of range.
    """
    at_least("data.degree", degree, 1)
    at_least("data.dim", dim, degree)
    return draw(
        lambda x: x[:, :degree].sign().prod(1),
        lambda x: x[:, : max(1, degree - 1)].sign().prod(1),
        seed, dim, inputs, (train_size, test_size, probe_size), regression=False,
    )  # fmt: skip


def teacher(
    seed: int = 0, dim: int = 30, teacher_width: int = 4, inputs: str = "sphere",
    train_size: int = 512, test_size: int = 1000, probe_size: int = 128,
) -> Dataset:  # fmt: skip
    """Return the output of a random one-hidden-layer relu network, standardised on the training set.

    The second labelling is the sign of another random output on the same hidden layer; its weights sum to 0.

    Raises:
        UserError: If dim, teacher_width or inputs are out of range.
    """
    at_least("data.teacher_width", teacher_width, 1)
    at_least("data.dim", dim, 1)
    first = torch.randn(dim, teacher_width, generator=generator(seed, "teacher/first"), dtype=torch.float64)
    second = torch.randn(teacher_width, generator=generator(seed, "teacher/second"), dtype=torch.float64)
    other = torch.randn(teacher_width, generator=generator(seed, "teacher/other"), dtype=torch.float64)
    if teacher_width > 1:
        other = other - other.mean()  # about as many labels of either sign
    return draw(
        lambda x: torch.relu(x @ first / math.sqrt(dim)) @ second,
        lambda x: torch.relu(x @ first / math.sqrt(dim)) @ other,
        seed, dim, inputs, (train_size, test_size, probe_size), standardize=True,
    )  # fmt: skip


def _unit_vector(dim: int, stream: torch.Generator) -> Float64[Tensor, "dim"]:
    direction = torch.randn(dim, generator=stream, dtype=torch.float64)
    unit: Tensor = direction / direction.norm()
    return unit
