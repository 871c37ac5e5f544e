"""Drawing the samples of a synthetic task, and labelling them.

Inputs are drawn on the sphere of radius sqrt(dim), from a standard Gaussian, or as signs (``hypercube``).
Each split and each part of the task has its own random stream, so that a larger training set extends a
smaller one and leaves the test set and the task as they were. So have fresh samples, for training online.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float64
from torch import Tensor

from runner.data.dataset import Dataset, Split
from runner.errors import UserError, unknown
from runner.numerics.generators import generator

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


def draw(
    label: Callable[[Inputs], Labels], second: Callable[[Inputs], Labels], seed: int, dim: int, inputs: str,
    sizes: tuple[int, int, int], *, regression: bool = True, standardize: bool = False,
) -> Dataset:  # fmt: skip
    """Draw the splits of a task and label them.

    Args:
        second: Maps inputs to numbers whose sign is the second labelling.
        inputs: ``sphere``, ``gaussian`` or ``hypercube``.
        regression: Whether targets are numbers rather than two classes.
        standardize: Whether targets are shifted and scaled to mean 0 and variance 1 on the training set;
            fresh samples are shifted and scaled by as much, so that they are of the same function.

    Raises:
        UserError: If inputs are unknown, or targets that are to be standardised do not vary.
    """
    if inputs not in INPUTS:
        raise unknown("data.inputs", inputs, INPUTS)
    splits = {}
    shift, scale = torch.zeros(()), torch.ones(())

    def sample(count: int, stream: torch.Generator) -> Inputs:
        # torch fills whole blocks of 16: without padding, the last draws would depend on how many there are.
        padded = torch.randn(-(-count * dim // 16) * 16, generator=stream, dtype=torch.float64)
        return INPUTS[inputs](padded[: count * dim].view(count, dim))

    for name, size in zip(("train", "test", "probe"), sizes, strict=True):
        x = sample(size, generator(seed, f"inputs/{name}"))
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

    def fresh(count: int, stream: torch.Generator) -> Split:
        x = sample(count, stream)
        return Split(x, ((label(x) - shift) / scale)[:, None])

    return Dataset(
        splits["train"],
        splits["test"],
        splits["probe"],
        task="regression" if regression else "classification",
        fresh=fresh,
    )
