"""Commands as whole processes: the clock on the wall, the processors' time, and what they print when.

A process of its own, `python -m benchmark.timed COMMAND`, runs the command and adopts what outlives it:
workers are children of a server that nobody waits for, and the system accounts only for what was waited for.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

_SET_CHILD_SUBREAPER = 36
_SCRIPTS = Path(__file__).parents[1]


@dataclass(frozen=True)
class Timed:
    """A command that has run.

    Attributes:
        wall: Seconds.
        cpu: Seconds of user and system time of all its processes.
        lines: What it wrote to stderr, each with the seconds since the start.
    """

    wall: float
    cpu: float
    lines: list[tuple[float, str]]


def timed(command: Sequence[str], folder: str | Path) -> Timed:
    """Run a command in a folder and account for it.

    Raises:
        RuntimeError: If it fails.
    """
    done = subprocess.run(
        [sys.executable, "-m", "benchmark.timed", *command],
        cwd=folder, env=os.environ | {"PYTHONPATH": str(_SCRIPTS)}, stdout=subprocess.PIPE, text=True,
        check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with exit code {done.returncode}")
    return Timed(**json.loads(done.stdout))


def runner(*arguments: str) -> list[str]:
    """Return the command line of this package's command."""
    return [sys.executable, "-m", "runner", *arguments]


def _run(command: Sequence[str]) -> int:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    lines = [(time.perf_counter() - began, line.rstrip()) for line in process.stderr]
    code = process.wait()
    wall = time.perf_counter() - began
    with suppress(ChildProcessError):
        while True:
            os.wait()
    spent = os.times()
    if code:
        print(*(line for _, line in lines[-5:]), sep="\n", file=sys.stderr)
    print(json.dumps(asdict(Timed(wall, spent.children_user + spent.children_system, lines))))
    return code


if __name__ == "__main__":
    sys.exit(_run(sys.argv[1:]))
