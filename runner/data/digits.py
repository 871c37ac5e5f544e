"""scikit-learn's handwritten digits, on disk with the library."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from runner.data.dataset import Dataset
from runner.data.labelled import Choice, Labelled, Samples, classification


def digits(
    seed: int = 0, train_size: int = 512, test_size: int = 512, probe_size: int = 128,
    classes: Sequence[int] | None = None, binary: Sequence[Sequence[int]] | str | None = None,
    label_noise: float = 0.0, standardize: bool = True,
) -> Dataset:  # fmt: skip
    """Return the digits task: ten classes, images of 1x8x8 pixels, targets one-hot with mean zero.

    The second labelling is the parity of the digit: -1 for odd, +1 for even.

    Raises:
        UserError: If the splits ask for more than the 1797 images there are.

    References:
        Alpaydin & Kaynak (1998), "Optical Recognition of Handwritten Digits", UCI.
    """
    pixels, labels = digit_images()
    samples = Samples(pixels.reshape(-1, 1, 8, 8), labels)
    source = Labelled("digits", samples, None, 10, second=range(0, 10, 2))
    choice = Choice(seed, train_size, test_size, probe_size, classes, binary, label_noise, standardize)
    return classification(source, choice)


def digit_images() -> tuple[np.ndarray, np.ndarray]:
    """Return ``[image, pixel]`` and labels: from the file itself, as the library takes a second to import."""
    spec = find_spec("sklearn")
    assert spec is not None
    assert spec.origin is not None
    path = Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz"
    if not path.exists():
        from sklearn.datasets import load_digits

        pixels, labels = load_digits(return_X_y=True)
        return pixels, labels
    table = np.loadtxt(path, delimiter=",")
    return table[:, :-1], table[:, -1].astype(int)
