"""Data sets of openml.org, in scikit-learn's cache."""

import os
import socket
import uuid
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runner.errors import UserError

_PATIENCE_SECONDS = 30.0
"""Without an answer; a firewall that drops packets would hold us for minutes."""


def fetched(name: str) -> Path:
    """Return an archive with the rows ``x`` and the labels ``y`` of a data set, fetching it if it must.

    scikit-learn keeps a download as text, which takes seconds (MNIST) to minutes (CIFAR-10) and gigabytes to
    read; the archive lies beside it, so that every process after the first has it at once.

    Args:
        name: Name of the data set on openml.org, in its first version.

    Raises:
        UserError: If it is neither in the cache nor to be had.
    """
    from sklearn.datasets import fetch_openml

    home = Path(os.environ.get("SCIKIT_LEARN_DATA", "~/scikit_learn_data")).expanduser()
    archive = home / "runner" / f"{name}.npz"
    if archive.is_file():
        return archive
    try:
        with warnings.catch_warnings(action="ignore"), ExitStack() as after:
            after.callback(socket.setdefaulttimeout, socket.getdefaulttimeout())
            socket.setdefaulttimeout(_PATIENCE_SECONDS)
            rows, labels = fetch_openml(
                name, version=1, data_home=str(home), return_X_y=True, as_frame=False, n_retries=1
            )
        _write(archive, _compact(rows), np.asarray(labels).astype(str))
    except Exception as error:  # whatever went wrong in there, what to do is the same
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"data.path must name local files where openml.org cannot be reached, got null: {name} is not in "
            f"the cache {home}, and fetching it failed ({reason}); fetch it where there is a network and "
            "copy the cache, or give data.path=FOLDER with IDX, CIFAR, npz or parquet files"
        ) from error
    return archive


def _compact(rows: NDArray[Any]) -> NDArray[Any]:
    """Pixels as bytes if that is what they are."""
    whole = rows.dtype.kind in "ui" or not np.any(rows % 1)
    return rows.astype(np.uint8) if whole and rows.min() >= 0 and rows.max() <= 255 else rows


def _write(archive: Path, rows: NDArray[Any], labels: NDArray[Any]) -> None:
    """Write an archive that is whole whenever another process sees it."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    partial = archive.with_name(f".{archive.stem}.{uuid.uuid4().hex}.npz")
    try:
        np.savez(partial, x=rows, y=labels)
        partial.replace(archive)
    finally:
        partial.unlink(missing_ok=True)
