"""Files that appear whole or not at all, and disk errors in words."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from runner.errors import UserError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_UNWRITABLE = frozenset(
    {
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.ENOTDIR,
        errno.EEXIST,
        errno.EISDIR,
        errno.ENAMETOOLONG,
        errno.ENOENT,
        errno.ELOOP,
    }
)


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn an error of the disk that the user can mend into a ``UserError`` naming ``folder``."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise UserError(
                f"store must fit on its disk, got no space left in {folder}; free some and run the same "
                "command again: it runs only what is missing"
            ) from error
        if error.errno in _UNWRITABLE:
            raise UserError(
                f"store must be in a folder that can be written, got {folder} "
                f"({os.strerror(error.errno).lower()}); choose another with store=FOLDER"
            ) from error
        raise


@contextmanager
def atomic(path: Path, durable: bool = True) -> Iterator[IO[bytes]]:
    """Open a file that appears under ``path`` whole, on leaving the block, or not at all.

    Args:
        path: The final name; its folder is made if need be.
        durable: Whether to wait until the disk has it, so that a power cut cannot undo it.

    Yields:
        A binary file with a hidden name beside ``path``.

    Raises:
        UserError: The disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex}.tmp")
    with disk_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                try_lock(file)  # tells it from what a killed writer left, whatever the clocks say
                yield file
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            os.replace(temporary, path)  # noqa: PTH105 (named by design.md, and what tests intercept)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        if durable:
            _fsync_folder(path.parent)


def _fsync_folder(folder: Path) -> None:
    """Wait until the disk has the folder's list of names."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(store: Path, name: str = ".lock") -> Iterator[bool]:
    """Hold a lock of the store; waits for other processes, on this host or another.

    Args:
        store: Folder of the store; made if need be.
        name: ``.lock`` orders compactions and refreshes of ``sweep.yaml``; other things have their own.

    Yields:
        Whether it is held: there are file systems that know no locks.
    """
    with disk_errors(store):
        store.mkdir(parents=True, exist_ok=True)
        file = (store / name).open("ab")
    with file:
        yield try_lock(file, wait=True) is not None


def try_lock(file: IO[bytes], wait: bool = False) -> bool | None:
    """Lock an open file until it is closed, or its process ends however it ends.

    Returns:
        Whether it is ours now; None where the file system knows no locks.
    """
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
