"""MNIST, Fashion-MNIST and CIFAR-10: from OpenML with scikit-learn's cache, or from local files."""

import math
from collections.abc import Collection, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from runner.data import files, openml
from runner.data.dataset import Dataset
from runner.data.labelled import Choice, Labelled, Samples, classification
from runner.errors import UserError, unknown

CLASSES = 10


class Known(NamedTuple):
    """What is known of a data set before it is read.

    Attributes:
        openml: Name on openml.org.
        shape: Shape of an image, (channels, height, width).
        train: How many of its images come first and are to be trained on; the others are for tests.
        total: How many there are.
        second: The classes that the second labelling calls +1.
    """

    openml: str
    shape: tuple[int, int, int]
    train: int
    total: int
    second: Collection[int]


KNOWN = {
    "mnist": Known("mnist_784", (1, 28, 28), 60_000, 70_000, second=range(0, 10, 2)),
    "fashion_mnist": Known("Fashion-MNIST", (1, 28, 28), 60_000, 70_000, second=(0, 2, 3, 4, 6)),
    "cifar10": Known("CIFAR_10", (3, 32, 32), 50_000, 60_000, second=range(2, 8)),
}


def images(
    dataset: str, path: str | None = None,
    seed: int = 0, train_size: int = 512, test_size: int = 512, probe_size: int = 128,
    classes: Sequence[int] | None = None, binary: Sequence[Sequence[int]] | str | None = None,
    label_noise: float = 0.0, standardize: bool = True,
) -> Dataset:  # fmt: skip
    """Return a choice of the images of a known data set.

    Training and probe images come from its training images, test images from its test images, where it keeps
    them apart. The second labelling is the parity of the digit (+1 for even) for ``mnist``, clothes for the
    upper body (+1) for ``fashion_mnist``, animals (+1) and vehicles for ``cifar10``.

    Args:
        dataset: ``mnist``, ``fashion_mnist`` or ``cifar10``.
        path: Local file or folder to read, see :func:`runner.data.files.read`; None for OpenML, whose answer
            is kept in scikit-learn's cache.

    Raises:
        UserError: If the images cannot be had, or not as many of them.

    References:
        LeCun, Bottou, Bengio & Haffner (1998), "Gradient-based learning applied to document recognition".
        Xiao, Rasul & Vollgraf (2017), "Fashion-MNIST", arXiv 1708.07747.
        Krizhevsky (2009), "Learning multiple layers of features from tiny images".
    """
    if dataset not in KNOWN:
        raise unknown("data.dataset", dataset, KNOWN)
    if path is not None and (not isinstance(path, str) or not path):
        raise UserError(
            f"data.path must be null or the name of a file or folder, got {path!r}; see the docs on images"
        )
    choice = Choice(seed, train_size, test_size, probe_size, classes, binary, label_noise, standardize)
    return classification(read_images(dataset, path), choice)


@lru_cache(maxsize=1)
def read_images(dataset: str, path: str | None) -> Labelled:
    """Return all images; kept, since cells that differ in a subset or its labels read the same ones."""
    known = KNOWN[dataset]
    place = openml.fetched(known.openml) if path is None else Path(path).expanduser()
    train, test = files.read(place)
    train, test = _checked(train, known, place), test and _checked(test, known, place)
    if test is None and len(train.labels) == known.total:
        cut = known.train
        test = Samples(train.inputs[cut:], train.labels[cut:])
        train = Samples(train.inputs[:cut], train.labels[:cut])
    return Labelled(dataset, train, test, CLASSES, known.second)


def _checked(samples: Samples, known: Known, path: Path) -> Samples:
    """Return samples with images of the known shape and whole labels, or raise UserError."""
    inputs, labels = samples
    where = f"in {path}"
    if len(inputs) != len(labels):
        raise UserError(
            f"data.path must hold as many labels as images, got {len(labels)} labels and {len(inputs)} "
            f"images {where}; take both from one source"
        )
    for name, array in (("pixels", inputs), ("labels", labels)):
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            bad = int((~np.isfinite(array)).sum())
            raise UserError(
                f"data.path must hold finite {name}, got {bad} NaN or inf {where}; clean the data"
            )
    return Samples(_shaped(inputs, known.shape, where), _whole(labels, where))


def _shaped(inputs: NDArray[Any], shape: tuple[int, int, int], where: str) -> NDArray[Any]:
    channels, *plane = shape
    each = inputs.shape[1:]
    if inputs.dtype.kind not in "uif" or math.prod(each) != math.prod(shape):
        raise UserError(
            f"data.path must hold images of {shape} pixels, got {each} of {inputs.dtype} {where}; "
            "choose the data set that the files hold"
        )
    if each == (*plane, channels):
        return np.moveaxis(inputs, -1, 1)
    return inputs.reshape(-1, *shape)


def _whole(labels: NDArray[Any], where: str) -> NDArray[np.int64]:
    """Return labels as integers; OpenML's are text."""
    try:
        numbers = labels.reshape(len(labels)).astype(np.float64)
        wrong = numbers[~((numbers >= 0) & (numbers < CLASSES) & (numbers == np.floor(numbers)))]
    except (ValueError, TypeError) as error:
        raise UserError(
            f"data.path must hold one number per label, got {error} {where}; see the docs on images"
        ) from error
    if len(wrong):
        raise UserError(
            f"data.path must hold labels from 0 to {CLASSES - 1}, the outputs there are, got {wrong[0]:g} "
            f"{where}; relabel or choose the data set that the files hold"
        )
    return numbers.astype(np.int64)
