"""Code of this package in C, compiled where it runs (``steps.c``): for :mod:`runner.numerics.steps`.

Without a C compiler, and on processors without AVX2, torch does the same, to rounding.
"""

import ctypes
import hashlib
import math
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from runner.numerics.processor import cache_folder, processor_features, processor_name

SWITCH = "RUNNER_COMPILED"
"""Environment variable: with 0 nothing is compiled."""
LARGEST = 1 << 18
"""Numbers in a matrix beyond which torch is as fast, which arranges large ones for the caches."""

_SOURCE = Path(__file__).with_name("native") / "steps.c"
FLAGS = ("-O2", "-march=native", "-fno-math-errno", "-shared", "-fPIC")
"""Of the compiler; without -ffast-math, under which NaN may be lost."""
_LIBRARIES = ("-lm",)
_SECONDS = 60
_BITS = {torch.float32: 32, torch.float64: 64}


def who() -> str:
    """Return who multiplies small matrices here, for the record of a launch: ``runner`` or ``torch``."""
    return "torch" if library(32) is None else "runner"


def takes(matrix: Tensor) -> bool:
    """Say whether products with a matrix per cell are done here: small ones, on a CPU, with a compiler.

    It depends on one cell's matrix and on the machine, not on how many cells there are, so that the numbers
    of a cell are the same in any pack.
    """
    sides = matrix.shape[-2:]
    return (
        math.prod(sides) <= LARGEST
        and type(matrix) in _PLAIN
        and matrix.device.type == "cpu"
        and function_of(matrix.dtype) is not None
    )


@lru_cache(maxsize=4)
def function_of(dtype: torch.dtype) -> Callable[..., None] | None:
    """Return what carries out operations on numbers of a type; its arguments are those of `run` in C."""
    code = library(_BITS[dtype]) if dtype in _BITS else None
    if code is None:
        return None
    function = code.run
    function.argtypes = [
        ctypes.c_void_p,
        *[ctypes.c_int64] * 3,
        ctypes.c_void_p,
        ctypes.c_int64,
        ctypes.c_void_p,
    ]
    function.restype = None
    return cast("Callable[..., None]", function)


@lru_cache(maxsize=2)
def library(bits: int) -> ctypes.CDLL | None:
    """Return the compiled code for numbers of so many bits; null where it cannot be compiled.

    It comes from the cache of this processor, or is compiled now.
    """
    compiler = shutil.which(os.environ.get("CC") or "cc")
    if compiler is None or os.environ.get(SWITCH) == "0" or platform.machine() not in {"x86_64", "AMD64"}:
        return None
    with suppress(OSError, subprocess.SubprocessError):
        flags = (*FLAGS, f"-DREAL_BITS={bits}")
        sources = [path.read_text("utf-8") for path in sorted(_SOURCE.parent.glob("*.[ch]"))]
        key = "\n".join([*sources, compiler, *flags, processor_name(), processor_features()])
        path = cache_folder() / f"products-{hashlib.sha256(key.encode()).hexdigest()[:16]}.so"
        if not path.is_file():
            _compile([compiler, *flags], path)
        return ctypes.CDLL(str(path))
    return None


def _compile(command: Sequence[str], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Several processes may compile at once; each replaces the file by the same.
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / path.name
        line = [*command, "-o", str(made), str(_SOURCE), *_LIBRARIES]
        subprocess.run(line, check=True, capture_output=True, timeout=_SECONDS)
        made.replace(path)


_PLAIN = {Tensor, torch.nn.Parameter}
"""Types whose numbers lie in memory; a subclass may only pretend."""
