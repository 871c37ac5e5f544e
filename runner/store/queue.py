"""Which shards of a launch a scheduler still has in its queue.

The launcher writes the job of every shard to ``launches/<id>/jobs.json``, and ``runner status`` asks the
scheduler: the other files do not tell a job that waits from one that was cancelled before it began.
"""

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from runner.store.files import atomic

_SECONDS = 10


def write_jobs(folder: Path, jobs: Mapping[int, str]) -> None:
    """Write the Slurm job of every shard, ``123`` or ``123_4`` in an array, to the folder of the launch."""
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
    # "Invalid job id" means that none of the jobs is left.
    if listing.returncode and "Invalid job id" not in listing.stderr:
        return None
    return {shards[job] for job in listing.stdout.split() if job in shards}
