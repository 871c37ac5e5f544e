"""The IDX format of MNIST: a magic number, the length of each axis, then the bytes."""

import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runner.data.files.limits import opened, read_exactly, refuse
from runner.data.labelled import Samples


def read(path: Path) -> Samples:
    """Return the images of a file and the labels of the one beside it.

    Args:
        path: A file with ``images`` and ``idx3`` in its name, whose labels lie beside it under the same name
            with ``labels`` and ``idx1``; either of them may be compressed with gzip.

    Raises:
        UserError: If one of the files is missing or is not what its header says.

    References:
        LeCun, Cortes & Burges, "The MNIST database of handwritten digits".
    """
    return Samples(array(path, 3), array(_labels_of(path), 1))


def array(path: Path, axes: int) -> NDArray[Any]:
    """Return the bytes of an IDX file, which has to have so many axes."""
    with opened(path) as file:
        magic = file.read(4)
        expected = bytes((0, 0, 8, axes))  # two zeros, unsigned bytes, axes
        if magic != expected:
            rule = f"hold IDX bytes with {axes} axes (magic number {expected.hex()})"
            raise refuse(rule, magic.hex() or "nothing", path)
        header = file.read(4 * axes)
        if len(header) < 4 * axes:
            raise refuse(f"hold the lengths of {axes} axes", f"{len(header)} bytes", path)
        shape = struct.unpack(f">{axes}I", header)
        return np.frombuffer(read_exactly(file, math.prod(shape), path), np.uint8).reshape(shape)


def _labels_of(path: Path) -> Path:
    name = path.name.replace("images", "labels").replace("idx3", "idx1").removesuffix(".gz")
    found = [path.with_name(name + suffix) for suffix in ("", ".gz")]
    for candidate in found:
        if candidate != path and candidate.is_file():
            return candidate
    raise refuse(f"have its labels beside it as {name} or {name}.gz", "no such file beside", path, "add it")
