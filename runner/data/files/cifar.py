"""The binary format of CIFAR-10: records of a label and the red, green and blue planes of an image."""

from pathlib import Path

import numpy as np

from runner.data.files.limits import opened, read_exactly, refuse
from runner.data.labelled import Samples

SHAPE = (3, 32, 32)
RECORD = 1 + 3 * 32 * 32


def read(path: Path) -> Samples:
    """Return the images ``[sample, 3, 32, 32]`` and labels of a batch.

    Args:
        path: ``data_batch_1.bin`` or one like it.

    Raises:
        UserError: If the file is no whole number of records.

    References:
        Krizhevsky (2009), "Learning multiple layers of features from tiny images".
    """
    size = path.stat().st_size
    if size % RECORD or not size:
        raise refuse(f"hold records of {RECORD} bytes, a label and 3x32x32 pixels", f"{size} bytes", path)
    with opened(path) as file:
        records = np.frombuffer(read_exactly(file, size, path), np.uint8).reshape(-1, RECORD)
    return Samples(records[:, 1:].reshape(-1, *SHAPE), records[:, 0])
