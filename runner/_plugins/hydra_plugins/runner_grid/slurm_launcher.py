"""Slurm by submitit: ``hydra/launcher=slurm`` and ``slurm_gpu``.

submitit's own launcher submits one array and waits for it. This one cuts the jobs into arrays of a size that
the cluster allows, writes down which job runs which shard, so that ``runner status`` can ask the queue, and
need not wait.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING, Any

try:
    from hydra_plugins.hydra_submitit_launcher.submitit_launcher import SlurmLauncher as Submitit
except ImportError:  # without the extra [slurm] Hydra lists no such launcher
    Submitit = object

if TYPE_CHECKING:
    from hydra.core.utils import JobReturn

_MAX_ARRAY_SIZE = 1001
"""Slurm's default."""


class ArrayLauncher(Submitit):  # type: ignore[misc]
    """Submits jobs as arrays within the cluster's MaxArraySize.

    Args:
        hours: Time limit of a job.
        **params: What submitit's launcher takes.
    """

    def __init__(self, hours: float = 1.0, wait: bool = True, **params: Any) -> None:
        super().__init__(**params, timeout_min=max(1, round(60 * hours)))
        self._wait = wait

    @staticmethod
    def check() -> None:
        """Raise UserError if jobs cannot be submitted from here."""
        from runner.errors import UserError

        if find_spec("submitit") is None:
            raise UserError("hydra/launcher must be installed, got slurm; pip install 'regime-runner[slurm]'")
        if which("sbatch") is None:
            raise UserError("hydra/launcher must find sbatch, got slurm; launch from a login node of Slurm")

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Submit the jobs, and wait for them unless told not to.

        Raises:
            UserError: If Slurm does not take them.
        """
        from submitit.core.utils import FailedJobError

        from runner.errors import UserError
        from runner.store.queue import write_jobs

        executor = self._executor()
        store, launch = str(self.config.store), str(self.config.launch)
        shards = [int(overrides[-1].partition("=")[2]) for overrides in job_overrides]
        folder = Path(str(self.config.hydra.sweep.dir))
        jobs: list[Any] = []
        size = max_array_size()
        write_jobs(folder, {})
        for start in range(0, len(shards), size):
            try:
                some = shards[start : start + size]
                jobs += executor.map_array(ShardJob(store, launch), some)
            except (FailedJobError, subprocess.CalledProcessError) as error:
                reason = " ".join(str(error).split())
                raise UserError(f"hydra.launcher must be what Slurm takes, got: {reason}") from error
            write_jobs(folder, {shard: job.job_id for shard, job in zip(shards, jobs, strict=False)})
        if self._wait:
            _wait(jobs)
        return []

    def _executor(self) -> Any:
        import submitit

        shared = {
            "timeout_min", "cpus_per_task", "gpus_per_node", "tasks_per_node", "mem_gb", "nodes", "name",
            "stderr_to_stdout",
        }  # fmt: skip
        executor = submitit.AutoExecutor(
            cluster="slurm",
            folder=self.params["submitit_folder"],
            slurm_max_num_timeout=self.params["max_num_timeout"],
        )
        parameters = {
            key if key in shared else f"slurm_{key}": value
            for key, value in self.params.items()
            if key not in ("submitit_folder", "max_num_timeout")
        }
        executor.update_parameters(**parameters)
        return executor


class ShardJob:
    """What submitit pickles for a job: store and launch. Everything else is read from their files."""

    def __init__(self, store: str, launch: str) -> None:
        self.store, self.launch = store, launch

    def __call__(self, shard: int) -> None:
        """Run a shard."""
        from runner.commands.sweep import run_shard_job

        run_shard_job(self.store, self.launch, shard)

    def checkpoint(self, shard: int) -> Any:
        """Return the job that is requeued: the same one, which goes on from the checkpoint of the shard."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, shard)


def _wait(jobs: Sequence[Any]) -> None:
    """Wait for jobs, and name those that were cancelled or killed: their cells are missing."""
    from submitit.core.utils import FailedJobError, UncompletedJobError

    for job in jobs:
        try:
            job.results()
        except (UncompletedJobError, FailedJobError):
            print(
                f"job {job.job_id} ended without a result ({job.state}): {job.paths.stdout}", file=sys.stderr
            )


def max_array_size() -> int:
    """Return how many jobs an array may have, as the cluster says."""
    try:
        shown = subprocess.run(
            ["scontrol", "show", "config"], capture_output=True, text=True, timeout=30, check=False
        ).stdout
    except (OSError, subprocess.SubprocessError):
        shown = ""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", shown, re.MULTILINE)
    return max(1, int(found[1]) if found else _MAX_ARRAY_SIZE)
