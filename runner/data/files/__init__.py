"""Local files of labelled images: which of them to read, and how; there is one module per format.

Files without the suffix of another format are taken for IDX.
"""

from pathlib import Path

import numpy as np

from runner.data.files import cifar, idx, npz
from runner.data.files.limits import refuse
from runner.data.labelled import Samples

USUAL_NAMES = (
    ("train-images*idx3-ubyte*", "t10k-images*idx3-ubyte*"),
    ("data_batch_*.bin", "test_batch.bin"),
    ("train*.parquet", "test*.parquet"),
)
"""Of the files of a folder: those to train on, those to test on."""


def read(path: Path) -> tuple[Samples, Samples | None]:
    """Return the samples of a file or a folder, and those to test on if they are apart.

    Args:
        path: A file of IDX images (compressed with gzip or not), a batch of CIFAR-10, an ``.npz`` archive or
            a Parquet table; or a folder of such files with their usual names.

    Raises:
        UserError: If there is nothing of the kind.
    """
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise refuse("name a file or folder that exists", "nothing", path, "check the path")
    return npz.read(path) if path.suffix == ".npz" else (_read_file(path), None)


def _read_folder(folder: Path) -> tuple[Samples, Samples | None]:
    for patterns in USUAL_NAMES:
        train, test = (_matching(folder, pattern) for pattern in patterns)
        if train:
            return _joined(train), _joined(test) if test else None
    names = ", ".join(pattern for pattern, _ in USUAL_NAMES)
    there = ", ".join(sorted(file.name for file in folder.iterdir())[:5]) or "an empty folder"
    raise refuse(f"hold files named {names}", there, folder, "rename them, or name one file")


def _matching(folder: Path, pattern: str) -> list[Path]:
    """Files that match, sorted; a compressed copy beside the file itself does not count."""
    found = sorted(folder.glob(pattern))
    return [file for file in found if file.suffix != ".gz" or file.with_suffix("") not in found]


def _joined(files: list[Path]) -> Samples:
    parts = [_read_file(file) for file in files]
    shapes = {part.inputs.shape[1:] for part in parts}
    if len(shapes) > 1:
        raise refuse("hold images of one shape", sorted(shapes), files[0].parent, "name one file")
    return Samples(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _read_file(path: Path) -> Samples:
    if path.suffix == ".parquet":
        from runner.data.files import parquet  # which takes a while to import

        return parquet.read(path)
    return cifar.read(path) if path.suffix == ".bin" else idx.read(path)
