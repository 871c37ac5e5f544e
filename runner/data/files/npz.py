"""NumPy's archives, with the names of Keras's copies: x_train, y_train, x_test, y_test; or x and y."""

import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runner.data.files.limits import read_exactly, refuse
from runner.data.labelled import Samples
from runner.errors import UserError

PAIRS = (("x_train", "y_train"), ("x", "y"), ("x_test", "y_test"))


def read(path: Path) -> tuple[Samples, Samples | None]:
    """Return the training samples of an archive, and its test samples if it has any.

    Args:
        path: The archive; no pickled objects are loaded.

    Raises:
        UserError: If it is no archive, an array is missing or is not what its header says.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.removesuffix(".npy") for name in archive.namelist()}
            pairs = [pair for pair in PAIRS if names.issuperset(pair)]
            samples = [Samples(*(_array(archive, name, path) for name in pair)) for pair in pairs]
    except UserError:
        raise
    except Exception as error:  # the two parsers raise a dozen kinds
        reason = str(error) or type(error).__name__
        raise refuse("name an archive of numpy.savez", reason, path) from error
    if not pairs or pairs[0] == PAIRS[-1]:
        got = ", ".join(sorted(names)) or "nothing"
        raise refuse("hold x_train and y_train, or x and y", got, path, "save them with numpy.savez")
    return samples[0], samples[-1] if pairs[-1] == PAIRS[-1] else None


def _array(archive: zipfile.ZipFile, name: str, path: Path) -> NDArray[Any]:
    """Read one array as its header says, but no further than its bytes go."""
    with archive.open(f"{name}.npy") as file:
        first = np.lib.format.read_magic(file) == (1, 0)
        header = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
        shape, fortran_order, dtype = header(file)
        if dtype.hasobject:
            raise refuse(f"hold numbers in {name}", "Python objects", path, "save an array of numbers")
        content = read_exactly(file, math.prod(shape) * dtype.itemsize, path)
    return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran_order else "C")
