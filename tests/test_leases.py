"""Leases: cells of one process are not those of another, and end with it however it ends."""

import subprocess
import sys

import pytest
from stores import plan, rows

from runner.store import Settled, files, launches, leases, write_part
from runner.store.leases import Leases

HOLD = """
import sys, time
from pathlib import Path
from runner.store.leases import Leases
with Leases(Path(sys.argv[1]), sys.argv[2], 0).take(["a", "b"]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def two(tmp_path):
    """A store with two launches."""
    return tmp_path, [launches.new_launch(tmp_path, {}, plan(["a", "b"], [0, 0], [0, 0])) for _ in range(2)]


def test_what_one_has_the_other_does_not_get(two):
    store, (first, second) = two
    with Leases(store, first, 0).take(["a", "b"]) as mine:
        assert mine == {"a", "b"}
        with Leases(store, second, 0).take(["b", "c"]) as theirs:
            assert theirs == {"c"}
            with Leases(store, first, 0).take(["a", "c"]) as again:  # a requeued task and its shadow
                assert again == set()
    with Leases(store, second, 0).take(["a", "b"]) as now:
        assert now == {"a", "b"}
    assert not list(store.glob("launches/*/leases/*"))


def test_the_shards_of_a_launch_do_not_look_at_each_other(two, monkeypatch):
    store, (first, _) = two
    with Leases(store, first, 0).take(["a"]):
        monkeypatch.setattr(leases, "try_lock", lambda *_, **__: pytest.fail("looked at"))
        assert Leases(store, first, 1).taken_by_others() == set()


def test_what_another_job_of_the_shard_has_written_is_known(two):
    store, (first, second) = two
    write_part(store, "cells", rows("cells", ["a"]), f"{first}-1")
    write_part(store, "cells", rows("cells", ["b"], status="diverged"), f"{second}-1")
    settled = Settled(store, first)
    assert settled.refresh() == {"b": "diverged"}
    assert settled.refresh(f"{first}-1") == {"a": "ok", "b": "diverged"}


def test_what_is_skipped_is_not_kept(two):
    store, (first, second) = two
    write_part(store, "cells", rows("cells", ["a"]), f"{second}-1")
    settled = Settled(store, first)
    settled.skip()
    write_part(store, "cells", rows("cells", ["b"]), f"{second}-2")
    assert settled.refresh() == {"b": "ok"}


def test_a_lease_ends_with_its_process(two):
    store, (first, second) = two
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(store), first], stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"held\n"
    with Leases(store, second, 0).take(["a", "c"]) as mine:
        assert mine == {"c"}
    holder.kill()
    holder.communicate()
    with Leases(store, second, 0).take(["a", "c"]) as mine:
        assert mine == {"a", "c"}


def test_where_there_are_no_locks_there_are_no_leases(two, monkeypatch):
    store, (first, second) = two
    for module in (files, leases):
        monkeypatch.setattr(module, "try_lock", lambda *_, **__: None)
    with Leases(store, first, 0).take(["a"]), Leases(store, second, 0).take(["a"]) as mine:
        assert mine == {"a"}
