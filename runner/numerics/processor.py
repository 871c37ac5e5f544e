"""The processor at hand, and where what was found out about it is kept."""

import os
import platform
from functools import lru_cache
from pathlib import Path


def cache_folder() -> Path:
    """Return the folder of what can be made again: speeds of a machine, code compiled for it."""
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(root).expanduser() / "regime-runner"


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
