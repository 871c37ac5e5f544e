"""Arithmetic modulo p, where networks generalize long after they have fitted."""

import torch
from torch.nn import functional

from runner.data.dataset import Dataset, Split, at_least, one_hot
from runner.errors import UserError
from runner.numerics.generators import generator

MOST = 256
"""Largest p: all p^2 pairs are held, as 2 p^3 numbers."""


def modular_addition(
    seed: int = 0,
    p: int = 23,
    train_size: int = 256,
    train_fraction: float | None = None,
    probe_size: int = 128,
) -> Dataset:
    """Return (a, b) -> a + b mod p, all p^2 pairs divided into splits.

    A sample is a sequence of the two tokens, ``(2, p)``: each one-hot times sqrt(p), so that the norm of a
    sample is the square root of its dimension, as elsewhere. An MLP flattens it, a transformer embeds each
    position with a linear layer. Targets are one-hot with mean zero over the p classes.

    The second labelling says whether the sum is in the upper half, p/2 and above.

    Args:
        p: The modulus, from 2 to `MOST`.
        train_size: Pairs to train on; a larger training set extends a smaller one.
        train_fraction: Share of the p^2 pairs to train on, in place of ``train_size``.
        probe_size: Pairs on which kernel and features are measured; the pairs that are left are for the test.

    Raises:
        UserError: If p is out of range, or a split would be empty.

    References:
        Power et al. (2022), "Grokking: generalization beyond overfitting on small algorithmic datasets",
        arXiv 2201.02177.
        Kumar, Bordelon, Gershman & Pehlevan (2023), "Grokking as the transition from lazy to rich training
        dynamics", arXiv 2310.06110.
    """
    at_least("data.p", p, 2)
    if p > MOST:
        raise UserError(f"data.p must be an integer from 2 to {MOST}, got {p}; give a smaller one")
    pairs = torch.cartesian_prod(torch.arange(p), torch.arange(p))
    if train_fraction is not None:
        number = isinstance(train_fraction, int | float) and not isinstance(train_fraction, bool)
        if not number or not 0 < train_fraction < 1:
            raise UserError(f"data.train_fraction must be between 0 and 1, got {train_fraction!r}; e.g. 0.5")
        train_size = max(1, round(train_fraction * len(pairs)))
    if train_size + probe_size >= len(pairs):
        raise UserError(
            f"data.train_size + data.probe_size must be less than the p^2 = {len(pairs)} pairs, of which the "
            f"others are the test, got {train_size} + {probe_size}; lower one or raise data.p"
        )
    # Probes come first in the order, so that they do not depend on how many pairs are trained on.
    order = torch.randperm(len(pairs), generator=generator(seed, "modular_addition/split"))
    probe, train, test = order.tensor_split((probe_size, probe_size + train_size))

    def split(index: torch.Tensor) -> Split:
        tokens = pairs[index]
        total = tokens.sum(1) % p
        upper = torch.where(2 * total >= p, 1.0, -1.0).double()
        return Split(functional.one_hot(tokens, p).double() * p**0.5, one_hot(total, p), upper[:, None])

    return Dataset(train=split(train), test=split(test), probe=split(probe), task="classification")
