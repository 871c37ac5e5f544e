"""On a real Slurm, of this machine alone (scripts/slurm_local.sh): cancelled, preempted, left, held."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
from stores import WRITTEN
from sweeping import cells_of

from runner.planning.plan import make_plan
from runner.schema import KEYS
from runner.store import status
from runner.store.verify import verify


def slurm_is_up():
    if not shutil.which("sbatch"):
        return False
    shown = subprocess.run(
        ["sinfo", "--noheader", "--format=%T"], capture_output=True, text=True, check=False
    )
    return bool(shown.stdout.strip())


pytestmark = [
    pytest.mark.slurm,
    pytest.mark.slow,
    pytest.mark.skipif(not slurm_is_up(), reason="no Slurm here; scripts/slurm_local.sh start"),
]
# By autograd, which a limit of the gradient needs: compiled steps would end before anybody could cancel them.
GRID = (
    "data=xor", "data.dim=6", "data.train_size=64", "data.test_size=16", "data.probe_size=8",
    "width=16,24,32,48", "parameterization=ntk,mup", "lr=0.1,0.3,0.5", "steps=3000", "batch_size=16",
    "+optimizer.clip=1e6",
)  # fmt: skip
SLURM = (
    "hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=1",
    "checkpoint_minutes=0.01",
)  # fmt: skip
PATIENCE = 90.0


def sweep(folder, *more):
    return subprocess.Popen(
        [sys.executable, "-m", "runner", "sweep", *more],
        cwd=folder,
        env={**os.environ, "HOME": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def until(what, patience=PATIENCE):
    """Wait for something to become true, and return it."""
    deadline = time.monotonic() + patience
    while not (found := what()):
        assert time.monotonic() < deadline, what
        time.sleep(0.1)
    return found


def states(store):
    return [shard.state for shard in status.status(store).launches[0].shards]


def frames(store):
    found = {}
    for name in WRITTEN:
        table = pd.read_parquet(store / name)
        table = table.drop(columns=["launch", "train_seconds", "finished_at"], errors="ignore")
        found[name] = table.sort_values(list(KEYS[name]), ignore_index=True)
    return found


def test_cancelled_preempted_and_left_alone(tmp_path):
    """One task cancelled, another told USR2, the launching process killed: every cell once, status right."""
    store = tmp_path / "out"
    launcher = sweep(tmp_path, *GRID, *SLURM, f"store={store}", "shards=4")
    jobs_file = until(lambda: next(store.glob("launches/*/jobs.json"), None))
    jobs = until(lambda: json.loads(jobs_file.read_bytes())["jobs"])
    assert len({job.split("_")[0] for job in jobs.values()}) == 1
    until(lambda: len(list(store.glob("checkpoints/*.safetensors"))) == 2)
    launcher.send_signal(signal.SIGKILL)
    launcher.communicate()
    assert states(store) == ["running", "running", "queued", "queued"]

    # It goes on trying for a minute to signal a job that has been requeued by then.
    scancel = subprocess.Popen(["scancel", "--signal=USR2", jobs["1"]], stderr=subprocess.DEVNULL)
    until(lambda: states(store)[1] == "queued")  # saved, and requeued by Slurm
    scancel.kill()
    scancel.wait()
    beat = json.loads((jobs_file.parent / "shard-1.json").read_bytes())
    assert (beat["state"], beat["cells_done"]) == ("preempted", 0)
    subprocess.run(["scancel", jobs["0"]], check=True)
    until(lambda: states(store)[0] == "preempted")
    subprocess.run(["scontrol", "update", f"JobId={jobs['1']}", "StartTime=now"], check=True)

    until(lambda: states(store) == ["preempted", "finished", "finished", "finished"])
    report = status.status(store)
    assert (report.newest.done, report.newest.missing, report.running) == (18, 6, 0)
    assert len(list(store.glob("checkpoints/*.safetensors"))) == 1

    local = sweep(tmp_path, *GRID, "store=whole", "workers=2")
    again = sweep(tmp_path, *GRID, *SLURM, f"store={store}")
    output, _ = again.communicate(timeout=PATIENCE)
    assert again.returncode == 0, output
    assert "18 of 24 cells are finished already" in output
    output, _ = local.communicate(timeout=PATIENCE)
    assert local.returncode == 0, output
    sound = verify(store)
    assert (sound.problems, sound.trained_twice, sound.rows["cells"]) == ([], 0, 24)
    for name, expected in frames(tmp_path / "whole").items():
        pd.testing.assert_frame_equal(frames(store)[name], expected, check_exact=True)


def queue(jobs):
    listing = subprocess.run(
        ["squeue", "--noheader", "--array", "--format=%i"], capture_output=True, text=True, check=True
    )
    return set(listing.stdout.split()) & set(jobs)


def test_more_shards_than_an_array_holds_are_several_arrays(tmp_path, monkeypatch):
    line = ["data=xor", "data.train_size=16", "data.test_size=8", "data.probe_size=8", "steps=1", "lr=0.1"]
    line += ["width=range(1,1101)", "parameterization=ntk", "store=out"]
    launcher = sweep(
        tmp_path,
        *line,
        *SLURM,
        "shards=1100",
        "wait=false",
        "+hydra.launcher.additional_parameters.hold=true",
    )
    output, _ = launcher.communicate(timeout=PATIENCE)
    assert launcher.returncode == 0, output
    store = tmp_path / "out"
    jobs = json.loads(next(store.glob("launches/*/jobs.json")).read_bytes())["jobs"]
    try:
        assert len(jobs) == len(queue(jobs.values())) == 1100
        shown = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True, check=True)
        most = int(re.search(r"MaxArraySize\s*=\s*(\d+)", shown.stdout)[1])
        indices = [int(job.split("_")[1]) for job in jobs.values()]
        assert max(indices) < most
        assert set(states(store)) == {"queued"}
    finally:
        arrays = sorted({job.split("_")[0] for job in jobs.values()})
        subprocess.run(["scancel", *arrays], check=True)
    until(lambda: not queue(jobs.values()))
    assert set(states(store)) == {"stopped"}
    assert status.status(store).newest.missing == 1100
    shutil.rmtree(tmp_path / ".submitit")

    monkeypatch.chdir(tmp_path)
    left_to_itself = make_plan(cells_of(monkeypatch, *line), shards=None)
    assert left_to_itself.total == 1100
    assert left_to_itself.shards < 10


def test_what_slurm_refuses_is_one_line(tmp_path):
    launcher = sweep(tmp_path, *GRID, *SLURM, "store=out", "hydra.launcher.partition=nowhere")
    output, _ = launcher.communicate(timeout=PATIENCE)
    assert launcher.returncode == 2
    assert "error: hydra.launcher must be what Slurm takes, got: " in output
    assert "invalid partition" in output
    assert "Traceback" not in output
    assert set(states(tmp_path / "out")) == {"stopped"}


def test_a_refining_sweep_goes_through_its_rounds(tmp_path):
    """Rounds are jobs; killed in the second, the same command ends with the same tables."""
    line = ("data=xor", "data.dim=6", "data.train_size=64", "data.test_size=16", "data.probe_size=8",
            "width=16,32", "parameterization=ntk", "lr=0.1,10,1000", "steps=100", "refine=edge",
            "refine.tolerance=0.5")  # fmt: skip
    whole = sweep(tmp_path, *line, "store=whole")
    launcher = sweep(tmp_path, *line, *SLURM, "store=out")
    for text in launcher.stdout:
        if text.startswith("round 2"):
            break
    launcher.send_signal(signal.SIGKILL)
    launcher.communicate()
    again = sweep(tmp_path, *line, *SLURM, "store=out")
    output, _ = again.communicate(timeout=2 * PATIENCE)
    assert again.returncode == 0, output
    assert "refined: diverged along lr is known to 0.5 decades" in output
    output, _ = whole.communicate(timeout=2 * PATIENCE)
    assert whole.returncode == 0, output
    for name, expected in frames(tmp_path / "whole").items():
        pd.testing.assert_frame_equal(frames(tmp_path / "out")[name], expected, check_exact=True)
