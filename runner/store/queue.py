"""Which shards of a launch a scheduler still has in its queue.

The launcher writes down the job of every shard, ``launches/<id>/jobs.json``, and whoever wants to know asks
the scheduler: files alone cannot tell a job that waits from one that was cancelled before it began.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from runner.store.files import atomic

_SECONDS = 10


def write_jobs(folder: Path, jobs: Mapping[int, str]) -> None:
    """Write down the Slurm job of every shard.

    Args:
        folder: Of the launch.
        jobs: Job ids by shard, ``123`` or ``123_4`` in an array.
    """
    with atomic(folder / "jobs.json") as file:
        file.write(json.dumps({"scheduler": "slurm", "jobs": jobs}).encode())


def queued_shards(folder: Path) -> set[int] | None:
    """Return the shards whose jobs wait or run; None where no scheduler can be asked."""
    try:
        jobs = json.loads((folder / "jobs.json").read_bytes())["jobs"]
        shards = {str(job): int(shard) for shard, job in jobs.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    if not shutil.which("squeue"):
        return None
    arrays = sorted({job.partition("_")[0] for job in shards if job.partition("_")[0].isdigit()})
    if not arrays:
        return set()
    try:
        listing = subprocess.run(
            ["squeue", "--noheader", "--array", "--format=%i", f"--jobs={','.join(arrays)}"],
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    if listing.returncode and "Invalid job id" not in listing.stderr:  # which is: none of them any more
        return None
    return {shards[job] for job in listing.stdout.split() if job in shards}
