"""Faults injected into sweeps; each time the tables end as those of an undisturbed sweep, to the last bit."""

import json
import multiprocessing
import os
import random
import shutil
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import faulty
import pandas as pd
import pytest
from stores import WRITTEN, rows

from runner import cli
from runner.commands import sweep
from runner.launching import launch
from runner.schema import KEYS
from runner.store import launches, status
from runner.store.verify import verify
from runner.views import summary

TINY = (
    "data=xor", "data.dim=4", "data.train_size=16", "data.test_size=8", "data.probe_size=8", "width=8,12,16",
    "lr=0.1,0.5", "seed=0,1", "steps=10", "workers=1", "hydra.verbose=false",
)  # fmt: skip
LONG = (
    "data=xor", "data.dim=6", "data.train_size=64", "data.test_size=16", "data.probe_size=8",
    "width=16,24,32,48", "parameterization=ntk,mup", "lr=0.1,0.3,0.5", "batch_size=16", "steps=600",
    "workers=1", "checkpoint_minutes=0.001",
)  # fmt: skip
EPSILON = 2.0**-23  # of float32, in which the cells train
FORKS = multiprocessing.get_context("forkserver")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Every test runs in an empty folder, without figures."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(summary, "print_launch_summary", lambda *_: None)
    return tmp_path


def frames(store):
    """The three tables in one order, without what differs between trainings."""
    found = {}
    for name in WRITTEN:
        table = pd.read_parquet(Path(store) / name)
        table = table.drop(columns=["launch", "train_seconds", "finished_at"], errors="ignore")
        found[name] = table.sort_values(list(KEYS[name]), ignore_index=True)
    return found


def assert_same(store, expected):
    found = frames(store)
    for name in WRITTEN:
        pd.testing.assert_frame_equal(found[name], expected[name], check_exact=True)
    assert verify(Path(store)).problems == []


def start(arguments, barrier=None):
    FORKS.set_forkserver_preload(
        [
            "runner.commands.sweep",
            "runner.training.train",
            "runner.launching.launch",
            "runner.launching.shard",
            "pandas",
            "hydra",
        ]
    )
    process = FORKS.Process(target=faulty.sweep, args=(arguments, "log.txt", barrier))
    process.start()
    return process


# -- kill -9, and many at once -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The tables of the long sweep, trained in one go."""
    store = tmp_path_factory.mktemp("undisturbed") / "out"
    here = os.getcwd()  # noqa: PTH109
    os.chdir(store.parent)
    try:
        process = start([*LONG, f"store={store}"])
        process.join(120)
        assert process.exitcode == 0, Path("log.txt").read_text()
    finally:
        os.chdir(here)
    return frames(store)


@pytest.mark.slow
def test_killed_ten_times(folder, undisturbed):
    """No cell lost, none trained twice."""
    kills, runs = 0, 0
    while kills < 10:
        process = start([*LONG, "store=out"])
        runs += 1
        process.join(faulty.random_moment(runs, 1.5))
        if process.exitcode is None:
            process.kill()
            process.join()
            kills += 1
        assert process.exitcode in {-9, 0}, Path("log.txt").read_text()
        assert runs < 40
    last = start([*LONG, "store=out"])
    last.join(120)
    assert last.exitcode == 0, Path("log.txt").read_text()
    assert_same("out", undisturbed)
    report = verify(Path("out"))
    assert (report.trained_twice, report.rows["cells"]) == (0, 24)
    print(f"{kills} kills in {runs + 1} launches")


@pytest.mark.slow
@pytest.mark.parametrize("count", [4])
def test_launches_at_once_share_the_cells(folder, undisturbed, count):
    barrier = FORKS.Barrier(count)
    processes = [start([*LONG, "store=out"], barrier) for _ in range(count)]
    for process in processes:
        process.join(200)
    assert [process.exitcode for process in processes] == [0] * count, Path("log.txt").read_text()
    assert_same("out", undisturbed)
    report = verify(Path("out"))
    assert (report.trained_twice, report.rows["cells"], report.launches) == (0, 24, count)
    assert not list(Path("out").glob("launches/*/leases/*.cells"))


# -- damage ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A finished store of the tiny sweep, and its tables."""
    store = tmp_path_factory.mktemp("tiny") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(summary, "print_launch_summary", lambda *_: None)
        patch.setattr("runner.store.compact", lambda *_: None)
        assert sweep.main([*TINY, f"store={store}"]) == 0
    return store, frames(store)


def damage(path, how):
    whole = path.read_bytes()
    middle = 40  # in a page of data
    path.write_bytes(
        {
            "truncated": whole[: len(whole) // 2],
            "zeroed": bytes(len(whole)),
            "random": os.urandom(len(whole)),
            "flipped": whole[:middle] + bytes([whole[middle] ^ 0x55]) + whole[middle + 1 :],
        }[how]
    )


@pytest.mark.parametrize(
    ("table", "how", "compacted"),
    [
        ("cells", "truncated", False),
        ("trace", "zeroed", False),
        ("layers", "random", False),
        ("trace", "random", True),
    ],
)
def test_a_damaged_part_is_named_set_aside_and_its_cells_trained_again(tiny, capsys, table, how, compacted):
    shutil.copytree(tiny[0], "out")
    if compacted:
        from runner.store import compact

        compact(Path("out"))
    path = min(Path("out", table).glob("part-*.parquet"))
    damage(path, how)
    assert sweep.main([*TINY, "store=out"]) == 0
    said = capsys.readouterr().err
    assert f"note: set aside {table}/{path.name}" in said
    again = 12 if compacted else 4
    assert "all 12 cells" not in said
    assert (f"{12 - again} of 12 cells are finished already" in said) == (again < 12)
    assert Path("out", "damaged", table, path.name).is_file()
    assert_same("out", tiny[1])


def test_no_flip_of_a_bit_goes_unnoticed(folder):
    """Wherever it is: the part is refused, or says what it said before."""
    from runner.errors import UserError
    from runner.store import read_table, write_part
    from runner.store.parts import check_digest

    path = write_part(folder, "trace", rows("trace", ["a", "b", "c"], cka=[None, float("nan"), 0.5]), "1")
    whole, before = path.read_bytes(), read_table(folder, "trace")
    refused = 0
    for place in random.Random(0).sample(range(len(whole)), 200):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << place % 8)]) + whole[place + 1 :])
        try:
            check_digest(path)
            assert str(read_table(folder, "trace").to_pylist()) == str(before.to_pylist())
        except UserError:
            refused += 1
    assert refused > 50


@pytest.mark.parametrize("table", WRITTEN)
def test_damage_that_hides_is_found_by_verify(tiny, capsys, table):
    shutil.copytree(tiny[0], "out")
    path = min(Path("out", table).glob("part-*.parquet"))
    damage(path, "flipped")
    assert cli.main(["verify", "out"]) == 1
    said = capsys.readouterr().out
    assert f"{table}/{path.name} is damaged" in said
    assert "`runner verify --repair` sets it aside" in said
    assert path.exists()
    assert cli.main(["verify", "out", "--repair"]) == 1  # cells are missing now
    assert "of 12 cells of launch" in capsys.readouterr().out
    assert sweep.main([*TINY, "store=out"]) == 0
    assert cli.main(["verify", "out", "--rerun", "1"]) == 0
    assert_same("out", tiny[1])


def test_verify_for_machines(tiny, capsys):
    assert cli.main(["verify", str(tiny[0]), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["parts"], report["launches"], report["rows"]["cells"]) == (9, 1, 12)
    assert (report["problems"], report["trained_twice"]) == ([], 0)
    assert cli.main(["verify", str(tiny[0]), "--rerun", "-1"]) == 2
    assert cli.main(["verify", "nowhere"]) == 2


def test_a_damaged_launch_is_set_aside_and_its_cells_stay(tiny, capsys):
    shutil.copytree(tiny[0], "out")
    (record,) = Path("out").glob("launches/*/launch.json")
    record.write_bytes(b"{")
    assert cli.main(["status", "out"]) == 2
    assert "must hold readable launches" in capsys.readouterr().err
    assert cli.main(["verify", "out", "--repair"]) == 0
    assert sweep.main([*TINY, "store=out"]) == 0
    assert "all 12 cells are finished already" in capsys.readouterr().err
    assert_same("out", tiny[1])


def test_numbers_that_no_training_gives_are_found(tiny, capsys):
    from runner.store import read_table, write_part

    shutil.copytree(tiny[0], "out")
    cells = read_table(Path("out"), "cells").to_pydict()
    cells["train_loss"] = [value * (1 + 1e-15) + 1e-12 for value in cells["train_loss"]]
    write_part(Path("out"), "cells", cells, "forged")
    assert cli.main(["verify", "out"]) == 0
    capsys.readouterr()
    assert cli.main(["verify", "out", "--rerun", "1"]) == 1
    assert "cells.train_loss of 4 cells of launch" in capsys.readouterr().out


def test_a_config_that_is_not_what_the_id_says_is_found(tiny, capsys):
    from runner.store import read_table, write_part

    shutil.copytree(tiny[0], "out")
    cells = read_table(Path("out"), "cells").to_pydict()
    cells["lr"][0] *= 2
    write_part(Path("out"), "cells", cells, "forged")
    assert cli.main(["verify", "out"]) == 1
    assert "is not what it was trained with" in capsys.readouterr().out


# -- disks and clocks --------------------------------------------------------------------------------


@pytest.fixture
def small_disk(folder):
    """A file system of 2 MB in the folder ``disk``."""
    disk = folder / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("cannot mount a tmpfs here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk(tiny, small_disk, capsys):
    filler = small_disk / "filler"
    filler.write_bytes(bytes((2 << 20) - (100 << 10)))
    assert sweep.main([*TINY, "store=disk/out"]) == 2
    said = capsys.readouterr().err
    assert "error: store must fit on its disk, got no space left in" in said
    assert "Traceback" not in said
    assert "Error executing job" not in said
    filler.unlink()
    assert sweep.main([*TINY, "store=disk/out"]) == 0
    assert_same("disk/out", tiny[1])


def test_a_read_only_store(tiny, small_disk, capsys):
    shutil.copytree(tiny[0], small_disk / "out")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert sweep.main([*TINY, "seed=0,1,2", "store=disk/out"]) == 2
    assert "(read-only file system); choose another with store=FOLDER" in capsys.readouterr().err
    assert cli.main(["status", "disk/out"]) == 0
    assert cli.main(["verify", "disk/out"]) == 0
    assert "12 of 12 cells done" in capsys.readouterr().out


def test_clocks_that_jump(tiny, monkeypatch):
    """Forwards by a year, then back: launches stay in order, nothing is stale, nothing is lost."""
    now, now_ns, offset = time.time, time.time_ns, [0.0]
    monkeypatch.setattr(time, "time", lambda: now() + offset[0])
    monkeypatch.setattr(time, "time_ns", lambda: now_ns() + int(offset[0] * 1e9))

    class Jumping(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(UTC) + timedelta(seconds=offset[0])

    monkeypatch.setattr(launches, "datetime", Jumping)
    for seconds, widths in ((3.2e7, "width=8"), (-3.2e7, "width=8,12"), (0.0, "width=8,12,16")):
        offset[0] = seconds
        assert sweep.main([*TINY, widths, "store=out"]) == 0
    report = status.status(Path("out"))
    assert [launch.counts.planned for launch in report.launches] == [4, 8, 12]
    assert_same("out", tiny[1])


def test_a_store_that_has_moved(tiny, capsys):
    shutil.copytree(tiny[0], "elsewhere")
    assert sweep.main([*TINY, "store=elsewhere"]) == 0
    assert "all 12 cells are finished already" in capsys.readouterr().err
    assert_same("elsewhere", tiny[1])


# -- faults of the training --------------------------------------------------------------------------

MODEL = (*TINY[:5], "width=8", "seed=0,1", "steps=10", "workers=1", "model._target_=faulty.Faulty")


def train(store, fault, lrs, code=0):
    assert sweep.main([*MODEL, f"+model.fault={fault}", f"lr={lrs}", f"store={store}"]) == code
    cells = pd.read_parquet(f"{store}/cells").sort_values(["lr", "seed"], ignore_index=True)
    drop = ["cell_id", "launch", "settings", "model.fault", "train_seconds", "finished_at", "error"]
    return cells.drop(columns=drop), cells


def test_a_bug_that_shows_at_one_cell_costs_this_cell(capsys):
    healthy, _ = train("healthy", "none", "0.1,0.5,1")
    broken, cells = train("broken", "raise", "0.1,0.5,1,1000", code=1)
    # Two cells more in the pack: another way to sum, which on some processors rounds the last bit otherwise.
    pd.testing.assert_frame_equal(broken[broken.lr < 1000], healthy, rtol=4 * EPSILON)
    failed = cells[cells.lr == 1000]
    assert set(failed.status) == {"failed"}
    capsys.readouterr()
    assert cli.main(["status", "broken", "--failures"]) == 0
    said = capsys.readouterr().out
    for cell_id in failed.cell_id:
        assert f"{cell_id}  ValueError: a bug of the user's model" in said
        (trace,) = Path("broken").glob(f"launches/*/errors/{cell_id}.txt")
        assert "in forward" in trace.read_text()
    assert (
        sweep.main([*MODEL, "+model.fault=raise", "lr=0.1,0.5,1,1000", "store=broken", "retry=failed"]) == 1
    )
    assert set(pd.read_parquet("broken/cells").status) == {"ok", "failed"}


def test_a_pack_that_does_not_fit_in_memory_is_halved():
    whole, _ = train("whole", "none", "0.1,0.3,0.5,1")
    halved, _ = train("halved", "memory", "0.1,0.3,0.5,1")
    pd.testing.assert_frame_equal(halved, whole, check_exact=True)
    assert verify(Path("halved")).problems == []


@pytest.mark.parametrize("value", ["make_nan", "make_inf"])
def test_what_is_not_a_number_is_a_divergence_of_its_cell_alone(value):
    # The same model and as many cells: another way to the kernel, or another pack, may round otherwise.
    healthy, _ = train("healthy", value, "0.1,0.5,1,2")
    mixed, cells = train("mixed", value, "0.1,0.5,1,1000")
    same = [frame[frame.lr <= 1] for frame in (mixed, healthy)]
    pd.testing.assert_frame_equal(*same, check_exact=True, check_dtype=False)
    assert set(cells[cells.lr == 1000].status) == {"diverged"}


# -- a job array without a plugin --------------------------------------------------------------------


def test_the_shards_of_an_array_are_one_launch(tiny, capsys):
    for shard in (2, 0, 0, 1):
        assert sweep.main([*TINY, "store=out", "shards=3", f"shard={shard}"]) == 0
        report = status.status(Path("out"))
        assert len(report.launches) == 1
    said = capsys.readouterr().err
    assert "shard 2 has ended: 4 of 12 cells are finished" in said
    assert "shard 0 has ended: 8 of 12 cells are finished" in said
    assert {shard.state for shard in report.launches[0].shards} == {"finished"}
    assert_same("out", tiny[1])


def test_what_was_launched_is_what_runs(tiny, monkeypatch):
    """An edit of the config, while jobs wait, does not reach them."""
    conf = Path("conf/data")
    conf.mkdir(parents=True)
    text = "{{name: mine, _target_: runner.data.xor, seed: 0, train_size: {}, test_size: 8, probe_size: 8}}"
    (conf / "mine.yaml").write_text(text.format(16))
    line = ["--config-dir", "conf", "data=mine", "width=8", "lr=0.1", "steps=4", "workers=1"]
    with monkeypatch.context() as patch:
        patch.setattr(launch, "run_shard", lambda *_: None)
        assert sweep.main([*line, "store=out"]) == 1
    (conf / "mine.yaml").write_text(text.format(999))
    (name,) = launches.launch_ids(Path("out"))
    launch.run_shard(Path("out"), name, 0)
    (row,) = pd.read_parquet("out/cells").to_dict("records")
    assert json.loads(row["settings"])["data"]["train_size"] == 16
