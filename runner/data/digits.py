"""scikit-learn's handwritten digits, on disk with the library."""

from __future__ import annotations

import itertools

import torch

from runner.data.dataset import Dataset, Split, one_hot
from runner.errors import UserError
from runner.layers import generator


def digits(seed: int = 0, train_size: int = 512, test_size: int = 512, probe_size: int = 128) -> Dataset:
    """Return the digits task: ten classes, images of 1x8x8 pixels, targets one-hot with mean zero.

    The second labelling is the parity of the digit: -1 for odd, +1 for even.

    Pixels are shifted and scaled by one mean and one standard deviation over the training images, so that
    an image's norm is about sqrt(64).

    Args:
        seed: Of the split.
        train_size: Training images.
        test_size: Test images; the same ones whatever the training size.
        probe_size: Probe images, likewise.

    Raises:
        UserError: If the splits ask for more than the 1797 images there are.

    References:
        Alpaydin & Kaynak (1998), "Optical Recognition of Handwritten Digits", UCI.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    total = bunch.images.shape[0]
    if train_size + test_size + probe_size > total:
        raise UserError(
            f"data.train_size + data.test_size + data.probe_size must be at most {total}, got "
            f"{train_size + test_size + probe_size}; make one smaller"
        )
    order = torch.randperm(total, generator=generator(seed, "digits/split"))
    images = torch.from_numpy(bunch.images).double()[order, None]
    labels = torch.from_numpy(bunch.target).long()[order]
    targets = one_hot(labels, 10)
    parity = (1.0 - 2.0 * (labels % 2)).double()[:, None]
    # Test and probe come first in the order, so that they do not depend on the training size.
    bounds = [0, test_size, test_size + probe_size, test_size + probe_size + train_size]
    test, probe, train = (slice(a, b) for a, b in itertools.pairwise(bounds))
    images = (images - images[train].mean()) / images[train].std()
    return Dataset(
        train=Split(images[train], targets[train], parity[train]),
        test=Split(images[test], targets[test], parity[test]),
        probe=Split(images[probe], targets[probe], parity[probe]),
        task="classification",
    )
