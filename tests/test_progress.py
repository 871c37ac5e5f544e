"""Progress: what is shown while a shard trains."""

import dataclasses
import io

import pytest
from rich.console import Console
from test_cell import BASE

from runner.planning.packs import Pack
from runner.views.progress import LineProgress, LiveProgress, Tally, clock_text, make_progress

QUICK = Pack(0, tuple(dataclasses.replace(BASE, seed=seed) for seed in range(10)), 10.0)
SLOW = Pack(1, tuple(dataclasses.replace(BASE, width=512, seed=seed) for seed in range(2)), 90.0)


class Clock:
    """Seconds that pass when told to."""

    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_time_left_follows_the_cost_not_the_cells(clock):
    tally = Tally(clock)
    tally.begin([QUICK, SLOW], done=3, total=15)
    assert tally.seconds_left is None
    tally.begin_pack(QUICK)
    clock.now += 5
    tally.step(QUICK, BASE.steps // 2, 1)
    assert tally.fraction == pytest.approx(0.05)
    assert tally.cells_per_second == pytest.approx(1.0)
    assert tally.seconds_left == pytest.approx(95)
    assert tally.counts() == "3/15 cells  1.0 cells/s  1:35 left  1 diverged  0 failed"
    assert tally.current() == ["pack 0: mlp width 64 depth 2 on digits, 10 cells, step 100/200"]
    clock.now += 5
    tally.end_pack(QUICK, ok=7, diverged=2, failed=1)
    assert (tally.done, tally.ok, tally.diverged, tally.failed) == (13, 7, 2, 1)
    assert tally.seconds_left == pytest.approx(90)
    assert tally.current() == []


def test_each_kind_is_corrected_by_those_of_it_that_have_ended(clock):
    packs = [dataclasses.replace(pack, index=index) for index, pack in enumerate([SLOW, SLOW, QUICK, QUICK])]
    tally = Tally(clock)
    tally.begin(packs, done=0, total=24)
    tally.begin_pack(packs[0])
    clock.now += 45
    tally.end_pack(packs[0], ok=2, diverged=0, failed=0)
    assert tally.seconds_left == pytest.approx(45 + 5 + 5)  # all are taken for twice as fast as estimated
    tally.begin_pack(packs[2])
    clock.now += 20
    tally.end_pack(packs[2], ok=10, diverged=0, failed=0)
    assert tally.seconds_left == pytest.approx(45 + 20)


def test_time_is_shared_by_the_workers_but_not_the_last_packs(clock):
    packs = [dataclasses.replace(SLOW, index=index) for index in range(4)]
    tally = Tally(clock)
    tally.begin(packs, done=0, total=8)
    for pack in packs[:2]:
        tally.begin_pack(pack)
    clock.now += 90
    for pack in packs[:2]:
        tally.end_pack(pack, ok=2, diverged=0, failed=0)
    for pack in packs[2:]:
        tally.begin_pack(pack)
    assert tally.seconds_left == pytest.approx(90)
    tally.step(packs[3], BASE.steps, 0)
    assert tally.seconds_left == pytest.approx(90)


def test_a_pack_of_many_threads_takes_the_time_of_all_workers(clock):
    tally = Tally(clock)
    many = dataclasses.replace(SLOW, threads=2)
    tally.begin([many, QUICK], done=0, total=12)
    tally.begin_pack(many)
    clock.now += 45
    tally.step(many, BASE.steps // 2, 0)
    assert tally.seconds_left == pytest.approx(45 + 10 / 2)


def test_a_pack_that_is_cut_counts_once(clock):
    tally = Tally(clock)
    tally.begin([QUICK, SLOW], done=0, total=12)
    tally.begin_pack(QUICK)
    tally.end_pack(QUICK, ok=0, diverged=0, failed=0)
    assert tally.fraction == 0
    for half in QUICK.halves():
        tally.step(half, 1, 0)
        tally.end_pack(half, ok=5, diverged=0, failed=0)
    assert tally.fraction == pytest.approx(0.1)
    assert tally.done == 10


def test_nothing_to_do_is_all_done(clock):
    tally = Tally(clock)
    tally.begin([], done=4, total=4)
    assert tally.fraction == 1.0


@pytest.fixture
def stream(tmp_path):
    """A file that is no terminal, with all that a file has."""
    with (tmp_path / "shown").open("w+") as file:
        yield file


def test_lines_are_few(clock, stream):
    lines = LineProgress(stream, "shard 2: ", clock, every=5.0)
    lines.begin([QUICK, SLOW], done=0, total=12)
    lines.begin_pack(QUICK)
    for step in range(100):
        clock.now += 0.1
        lines.step(QUICK, step, 0)
    lines.end_pack(QUICK, ok=10, diverged=0, failed=0)
    lines.end()
    lines.end()
    stream.seek(0)
    written = stream.read().splitlines()
    assert len(written) == 3
    assert all(line.startswith("shard 2: ") for line in written)
    assert written[-1].startswith("shard 2: 10/12 cells")


def test_the_display_ends_in_one_line():
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=100)
    live = LiveProgress(console)
    live.begin([QUICK, SLOW], done=0, total=12)
    live.begin_pack(QUICK)
    live.step(QUICK, 100, 3)
    page = Console(file=io.StringIO(), width=100)
    page.print(live.render())
    bar, counts, current = page.file.getvalue().splitlines()
    assert set(bar) <= {"━", "╸", "╺", " "}
    assert counts.strip().endswith("3 diverged  0 failed")
    assert current.strip() == "pack 0: mlp width 64 depth 2 on digits, 10 cells, step 100/200"
    live.end_pack(QUICK, ok=7, diverged=3, failed=0)
    live.end()
    live.end()
    assert "10/12 cells" in stream.getvalue()


def test_which_display(monkeypatch, stream):
    assert isinstance(make_progress(stream=stream), LineProgress)
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert isinstance(make_progress(stream=stream), LiveProgress)
    assert isinstance(make_progress(shard=1, shards=2, stream=stream), LineProgress)


def test_durations():
    assert [clock_text(seconds) for seconds in (0.4, 59.6, 75, 3675)] == ["0:00", "1:00", "1:15", "1:01:15"]
