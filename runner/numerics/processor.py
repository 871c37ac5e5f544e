"""The processor at hand, and where what was found out about it is kept."""

import os
import platform
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path


def cache_folder() -> Path:
    """Return the folder of what can be made again: speeds of a machine, code compiled for it.

    Of a user without a home, as a container may have them, it is one of their own among temporary files.
    """
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return Path(root).expanduser() / "regime-runner"
    except RuntimeError:  # neither HOME nor an entry of the user
        return temporary_folder()


@lru_cache
def temporary_folder() -> Path:
    """Return a folder among temporary files that nobody else can write to: code is loaded from it."""
    folder = Path(tempfile.gettempdir()) / f"regime-runner-{os.getuid()}"
    with suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077:
            return folder
    return Path(tempfile.mkdtemp(prefix="regime-runner-"))


@contextmanager
def at_home() -> Iterator[None]:
    """Give a user without a home the folder of :func:`cache_folder`, for as long as the block lasts."""
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = str(temporary_folder())
        try:
            yield
        finally:
            del os.environ["HOME"]
    else:
        yield


def processor_name() -> str:
    """Return the processor's model, as the system calls it."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def processor_vendor() -> str:
    """Return who made the processor, as Linux names it, or nothing."""
    return _cpuinfo("vendor_id")


def processor_features() -> str:
    """Return the instructions that it has, as Linux names them, or nothing."""
    return _cpuinfo("flags")


@lru_cache
def _cpuinfo(field: str) -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8").splitlines() if info.exists() else []
    pairs = (line.partition(":") for line in lines)
    return next((value.strip() for name, _, value in pairs if name.strip() == field), "")
