"""Synthetic tasks whose structure separates feature learning from kernels.

Inputs are drawn on the sphere of radius sqrt(dim), from a standard Gaussian, or as signs (``hypercube``).
Each split and each part of the task has its own random stream, so that a larger training set extends a
smaller one and leaves the test set and the task as they were.

Every task has a second labelling of its inputs, -1 or +1, in the same few directions as the first: features
that found these directions make it easy, random ones do not.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float64
from torch import Tensor

from runner.data.dataset import Dataset, Split
from runner.errors import UserError, unknown
from runner.layers import generator

Inputs = Float64[Tensor, "sample dim"]
Labels = Float64[Tensor, "sample"]


def _sphere(x: Inputs) -> Inputs:
    scaled: Tensor = x / x.norm(dim=1, keepdim=True) * math.sqrt(x.shape[1])
    return scaled


INPUTS: dict[str, Callable[[Inputs], Inputs]] = {
    "gaussian": lambda x: x,
    "sphere": _sphere,
    "hypercube": torch.sign,
}


def xor(
    seed: int = 0,
    dim: int = 30,
    linear: float = 0.0,
    standardize: bool = False,
    inputs: str = "sphere",
    train_size: int = 400,
    test_size: int = 1000,
    probe_size: int = 128,
) -> Dataset:
    """Return y = sign(x1 x2) + linear * x3: a kernel must learn dim^2 products, a network two directions.

    The second labelling is sign(x1^2 + x2^2 - 2 log 2), far from the centre of that plane or not; on the
    hypercube, where all are equally far, the majority sign(x1 x2 + x3 + x4).

    Args:
        seed: Of inputs.
        dim: Input dimension, at least 2 (3 with a linear part).
        linear: Strength of the linear part; other than 0 it makes the task a regression.
        standardize: Whether y is shifted and scaled to mean 0 and variance 1 on the training set, which
            also makes it a regression.
        inputs: ``sphere``, ``gaussian`` or ``hypercube``.
        train_size: Training samples.
        test_size: Test samples.
        probe_size: Probe samples.

    Raises:
        UserError: If dim is too small or inputs unknown.
    """
    _at_least("data.dim", dim, 3 if linear else 2)

    def label(x: Inputs) -> Labels:
        y = (x[:, 0] * x[:, 1]).sign()
        return y + linear * x[:, 2] if linear else y

    def second(x: Inputs) -> Labels:
        if inputs == "hypercube":
            return x[:, 0] * x[:, 1] + x[:, 2:4].sum(1)
        return x[:, :2].square().sum(1) - 2 * math.log(2)  # the median of chi^2 with two degrees of freedom

    sizes = (train_size, test_size, probe_size)
    return _dataset(label, second, seed, dim, inputs, sizes, standardize, linear != 0 or standardize)


def single_index(
    seed: int = 0,
    dim: int = 30,
    degree: int = 2,
    inputs: str = "gaussian",
    train_size: int = 512,
    test_size: int = 1000,
    probe_size: int = 128,
) -> Dataset:
    """Return y = He_degree(<w, x>) / sqrt(degree!) for a random unit vector w.

    The second labelling is of the other parity in <w, x>: its sign for an even degree, whether it is beyond
    the median of its absolute value for an odd one.

    Args:
        seed: Of inputs and of w.
        dim: Input dimension.
        degree: Of the probabilists' Hermite polynomial, 1 to 4; variance 1 under a Gaussian.
        inputs: ``sphere``, ``gaussian`` or ``hypercube``.
        train_size: Training samples.
        test_size: Test samples.
        probe_size: Probe samples.

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
    _at_least("data.dim", dim, 1)
    direction = torch.randn(dim, generator=generator(seed, "single_index/direction"), dtype=torch.float64)
    direction = direction / direction.norm()
    second: dict[bool, Callable[[Tensor], Tensor]] = {
        True: lambda t: t,
        False: lambda t: t.abs() - 0.67449,  # the median of a standard normal's absolute value
    }
    sizes = (train_size, test_size, probe_size)
    return _dataset(
        lambda x: hermite[degree](x @ direction) / math.sqrt(math.factorial(degree)),
        lambda x: second[degree % 2 == 0](x @ direction),
        seed, dim, inputs, sizes, standardize=False, regression=True,
    )  # fmt: skip


def staircase(
    seed: int = 0,
    dim: int = 30,
    degree: int = 3,
    inputs: str = "hypercube",
    train_size: int = 512,
    test_size: int = 1000,
    probe_size: int = 128,
) -> Dataset:
    """Return y = (s1 + s1 s2 + ... + s1 s2 ... s_degree) / sqrt(degree), s the signs of the inputs.

    The second labelling is s2 s3 ... s_degree, or s1 if that is empty.

    Args:
        seed: Of inputs.
        dim: Input dimension, at least degree.
        degree: Steps of the staircase.
        inputs: ``hypercube``, ``sphere`` or ``gaussian``.
        train_size: Training samples.
        test_size: Test samples.
        probe_size: Probe samples.

    Raises:
        UserError: If degree, dim or inputs are out of range.

    References:
        Abbe, Boix-Adsera & Misiakiewicz (2022), "The merged-staircase property", arXiv 2202.08658.
    """
    _at_least("data.degree", degree, 1)
    _at_least("data.dim", dim, degree)
    sizes = (train_size, test_size, probe_size)
    return _dataset(
        lambda x: x[:, :degree].sign().cumprod(1).sum(1) / math.sqrt(degree),
        lambda x: x[:, min(1, degree - 1) : degree].sign().prod(1),
        seed, dim, inputs, sizes, standardize=False, regression=True,
    )  # fmt: skip


def parity(
    seed: int = 0,
    dim: int = 30,
    degree: int = 2,
    inputs: str = "hypercube",
    train_size: int = 512,
    test_size: int = 1000,
    probe_size: int = 128,
) -> Dataset:
    """Return y = s1 s2 ... s_degree, s the signs of the inputs.

    The second labelling is s1 s2 ... s_(degree - 1), or s1 if that is empty.

    Args:
        seed: Of inputs.
        dim: Input dimension, at least degree.
        degree: Signs multiplied.
        inputs: ``hypercube``, ``sphere`` or ``gaussian``.
        train_size: Training samples.
        test_size: Test samples.
        probe_size: Probe samples.

    Raises:
        UserError: If degree, dim or inputs are out of range.
    """
    _at_least("data.degree", degree, 1)
    _at_least("data.dim", dim, degree)
    sizes = (train_size, test_size, probe_size)
    return _dataset(
        lambda x: x[:, :degree].sign().prod(1),
        lambda x: x[:, : max(1, degree - 1)].sign().prod(1),
        seed, dim, inputs, sizes, standardize=False, regression=False,
    )  # fmt: skip


def teacher(
    seed: int = 0,
    dim: int = 30,
    teacher_width: int = 4,
    inputs: str = "sphere",
    train_size: int = 512,
    test_size: int = 1000,
    probe_size: int = 128,
) -> Dataset:
    """Return the output of a random one-hidden-layer relu network, standardised on the training set.

    The second labelling is the sign of another random output on the same hidden layer; its weights sum to 0.

    Args:
        seed: Of inputs and of the teacher.
        dim: Input dimension.
        teacher_width: Hidden units of the teacher.
        inputs: ``sphere``, ``gaussian`` or ``hypercube``.
        train_size: Training samples.
        test_size: Test samples.
        probe_size: Probe samples.

    Raises:
        UserError: If dim, teacher_width or inputs are out of range.
    """
    _at_least("data.teacher_width", teacher_width, 1)
    _at_least("data.dim", dim, 1)
    first = torch.randn(dim, teacher_width, generator=generator(seed, "teacher/first"), dtype=torch.float64)
    second = torch.randn(teacher_width, generator=generator(seed, "teacher/second"), dtype=torch.float64)
    other = torch.randn(teacher_width, generator=generator(seed, "teacher/other"), dtype=torch.float64)
    if teacher_width > 1:
        other = other - other.mean()  # about as many labels of either sign
    sizes = (train_size, test_size, probe_size)
    return _dataset(
        lambda x: torch.relu(x @ first / math.sqrt(dim)) @ second,
        lambda x: torch.relu(x @ first / math.sqrt(dim)) @ other,
        seed, dim, inputs, sizes, standardize=True, regression=True,
    )  # fmt: skip


def _at_least(key: str, value: int, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise UserError(f"{key} must be an integer >= {least}, got {value!r}; give a larger one")


def _dataset(
    label: Callable[[Inputs], Labels],
    second: Callable[[Inputs], Labels],
    seed: int,
    dim: int,
    inputs: str,
    sizes: tuple[int, int, int],
    standardize: bool,
    regression: bool,
) -> Dataset:
    """Draw the splits and label them."""
    if inputs not in INPUTS:
        raise unknown("data.inputs", inputs, INPUTS)
    splits = {}
    shift, scale = torch.zeros(()), torch.ones(())
    for name, size in zip(("train", "test", "probe"), sizes, strict=True):
        stream = generator(seed, f"inputs/{name}")
        # torch fills whole blocks of 16: without padding, the last draws would depend on how many there are.
        padded = torch.randn(-(-size * dim // 16) * 16, generator=stream, dtype=torch.float64)
        x = INPUTS[inputs](padded[: size * dim].view(size, dim))
        y = label(x)
        if name == "train" and standardize:
            shift, scale = y.mean(), y.std(correction=0)
            if not scale > 0:
                raise UserError(
                    f"data.train_size must give targets that vary, got {size}; "
                    "raise it or choose another data.seed"
                )
        # A sign of 0 would be neither class.
        other = torch.where(second(x) > 0, 1.0, -1.0).double()
        splits[name] = Split(x, ((y - shift) / scale)[:, None], other[:, None])
    return Dataset(**splits, task="regression" if regression else "classification")
