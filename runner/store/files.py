"""Files that appear whole or not at all, and disk errors in words."""

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from runner.errors import UserError

_FULL = {errno.ENOSPC, errno.EDQUOT}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
_NO_FOLDER = {errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG, errno.ENOENT, errno.ELOOP}


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
        if error.errno in _FORBIDDEN | _NO_FOLDER:
            raise UserError(
                f"store must be in a folder that can be written, got {folder} "
                f"({os.strerror(error.errno).lower()}); choose another with store=FOLDER"
            ) from error
        raise


@contextmanager
def atomic(path: Path, durable: bool = True) -> Iterator[IO[bytes]]:
    """Open a file that appears under ``path`` whole, on leaving the block, or not at all.

    Args:
        path: The final name; its folder is made if it is missing.
        durable: Wait until the disk has the file, so that a power cut cannot undo it.

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
                try_lock(file)  # a file that a killed writer left is not locked, whatever its age
                yield file
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            os.replace(temporary, path)  # noqa: PTH105 (tests replace it)
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
    """Hold a lock of the store, whose folder is made if it is missing; waits for processes of any host.

    Args:
        name: File of the lock. ``.lock`` is for compactions and refreshes of ``sweep.yaml``.

    Yields:
        Whether it is held: there are file systems that know no locks.
    """
    with disk_errors(store):
        store.mkdir(parents=True, exist_ok=True)
        file = (store / name).open("ab")
    with file:
        yield try_lock(file, wait=True) is not None


def try_lock(file: IO[bytes], wait: bool = False) -> bool | None:
    """Lock an open file until it is closed or its process ends, in whatever way.

    Returns:
        Whether this process holds the lock; None where the file system knows no locks.
    """
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
