"""What a launch ran with: versions and git commit."""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

_PACKAGES = ("torch", "hydra-core", "omegaconf", "numpy", "pandas", "pyarrow", "scikit-learn", "safetensors")


def versions() -> dict[str, str]:
    """Return the versions of runner, Python and what the results may depend on, importing none of them."""
    from importlib import metadata

    from runner.version import __version__

    found = {"runner": __version__, "python": sys.version.split()[0]}
    for package in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def git_state(folder: Path | None = None) -> dict[str, Any] | None:
    """Return the commit and whether tracked files differ from it (``dirty``); None outside git."""
    try:
        commit, changes = (
            subprocess.run(
                ["git", *words],
                cwd=folder,
                env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
                capture_output=True,
                text=True,
                timeout=10,
                check=True,
            ).stdout.strip()
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "dirty": bool(changes)}
