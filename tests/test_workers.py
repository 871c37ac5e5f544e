"""Packs on several processes: the same results, and no pack lost to a worker that dies."""

import os
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from cells import make_cell

from runner.errors import UserError
from runner.launching.workers import Outcome, Progress, train_packs, worker_count
from runner.planning.packs import Pack
from runner.preemption import Stopped

PACKS = [Pack(i, (make_cell(seed=i), make_cell(seed=10 + i)), 1.0) for i in range(5)]


@dataclass(frozen=True)
class Writer:
    """Trains nothing: leaves a file per pack, and misbehaves on demand."""

    folder: Path
    die_at: int = -1
    raise_at: int = -1
    stop_at: int = -1

    def run(self, pack, on_progress, stop):
        on_progress(1, 0)
        told = self.folder / "told"
        if pack.index == self.stop_at and not told.exists():
            told.touch()
            signal.raise_signal(signal.SIGTERM)
            assert stop()
            raise Stopped
        if self.die_at in [cell.seed for cell in pack.cells]:
            os.kill(os.getpid(), signal.SIGKILL)
        if pack.index == self.raise_at:
            raise UserError("store must have room")
        (self.folder / pack.name).write_text(str(os.getpid()))
        return Outcome({"ok": len(pack.cells), "diverged": 0, "failed": 0})

    def fail(self, pack, error):
        (cell,) = pack.cells
        (self.folder / f"failed-{cell.cell_id}").write_text(str(error))
        return Outcome({"ok": 0, "diverged": 0, "failed": 1})


class Watch(Progress):
    """Remembers what it is told."""

    def __init__(self):
        self.ended = {}
        self.stepped = set()

    def step(self, pack, step, diverged):
        self.stepped.add(pack.index)

    def end_pack(self, pack, ok, diverged, failed):
        before = self.ended.get(pack.index, (0, 0, 0))
        self.ended[pack.index] = tuple(map(sum, zip(before, (ok, diverged, failed), strict=True)))


@pytest.mark.parametrize("count", [1, 2])
def test_every_pack_once(tmp_path, count):
    watch = Watch()
    train_packs(PACKS, Writer(tmp_path), count, watch)
    assert watch.ended == dict.fromkeys(range(5), (2, 0, 0))
    assert watch.stepped == set(range(5))
    processes = {path.read_text() for path in tmp_path.iterdir()}
    assert len(processes) <= count
    assert (str(os.getpid()) in processes) == (count == 1)


class Clocked(Writer):
    """Leaves when it began and ended, and on how many threads."""

    def run(self, pack, on_progress, stop):
        began = time.monotonic()
        time.sleep(0.1)
        text = f"{began} {time.monotonic()} {torch.get_num_threads()}"
        (self.folder / str(pack.index)).write_text(text)
        return Outcome({"ok": len(pack.cells), "diverged": 0, "failed": 0})


@pytest.mark.parametrize("count", [1, 2])
def test_a_pack_of_many_threads_trains_alone(tmp_path, count):
    packs = [replace(pack, threads=2 if pack.index in {0, 3} else 1) for pack in PACKS]
    train_packs(packs, Clocked(tmp_path), count, Watch())
    torch.set_num_threads(1)
    found = {pack.index: (tmp_path / str(pack.index)).read_text().split() for pack in packs}
    spans = {index: (float(began), float(ended)) for index, (began, ended, _) in found.items()}
    assert {index: int(threads) for index, (_, _, threads) in found.items()} == {
        pack.index: pack.threads for pack in packs
    }
    for many in (0, 3):
        began, ended = spans.pop(many)
        assert all(other[1] <= began or ended <= other[0] for other in spans.values())


def test_a_worker_that_dies_costs_the_cell_that_kills_it(tmp_path):
    watch = Watch()
    train_packs(PACKS, Writer(tmp_path, die_at=1), 2, watch)
    assert watch.ended == {i: (1, 0, 1) if i == 1 else (2, 0, 0) for i in range(5)}
    (failed,) = tmp_path.glob("failed-*")
    assert failed.name == f"failed-{PACKS[1].cells[0].cell_id}"
    assert "exit code -9" in failed.read_text()


def test_a_worker_that_is_told_to_stop_leaves_its_pack_to_another(tmp_path):
    watch = Watch()
    train_packs(PACKS, Writer(tmp_path, stop_at=1), 2, watch)
    assert watch.ended == dict.fromkeys(range(5), (2, 0, 0))


@pytest.mark.parametrize("count", [1, 2])
def test_told_to_stop_none_is_begun(tmp_path, count):
    watch = Watch()
    with pytest.raises(Stopped):
        train_packs(PACKS, Writer(tmp_path), count, watch, stop=lambda: True)
    assert watch.ended == {}


@pytest.mark.parametrize("count", [1, 2])
def test_what_is_not_a_packs_own_fault_ends_the_shard(tmp_path, count):
    with pytest.raises(UserError, match="store must have room"):
        train_packs(PACKS, Writer(tmp_path, raise_at=0), count, Watch())


def test_how_many_workers(monkeypatch):
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "4")
    long = [replace(pack, cost=60.0) for pack in PACKS]
    assert worker_count(long, True, None) == 4
    assert worker_count(long[:2], True, None) == 2
    assert worker_count(long, True, 3) == 3
    assert worker_count(long, False, None) == 1
    assert worker_count(PACKS[:2], True, None) == 1
