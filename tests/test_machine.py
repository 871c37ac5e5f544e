"""What the planner knows of a machine, and what it makes of it."""

import dataclasses
import json
import stat
from pathlib import Path

import numpy as np
import pytest
import torch
from cells import DIGITS, make_cell
from sweeping import shape_of
from test_cell import BASE

from runner.numerics import processor
from runner.planning import machine
from runner.planning.costs import NEAR_BEST, Costs
from runner.planning.machine import USUAL, WIDTHS, from_record, this_machine
from runner.training.preflight import inspect

CPU = torch.device("cpu")


def test_who_has_no_home_has_a_cache_that_nobody_else_writes_to(monkeypatch, tmp_path):
    def unknown(_):
        raise KeyError("uid not found")

    for name in ("XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    processor.temporary_folder.cache_clear()
    folder = processor.cache_folder()
    assert folder == processor.cache_folder()
    assert folder.parent == tmp_path
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    folder.chmod(0o777)  # anybody may have laid code there
    processor.temporary_folder.cache_clear()
    assert stat.S_IMODE(processor.cache_folder().stat().st_mode) == 0o700
    other = processor.cache_folder()
    assert other != folder
    with processor.at_home():
        assert Path.home() == other
    with pytest.raises(RuntimeError):
        Path.home()
    processor.temporary_folder.cache_clear()


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """Counts what is measured; the cache is the test's own."""
    calls = []
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(
        machine,
        "measure",
        lambda _device, _threads, name: calls.append(name) or dataclasses.replace(USUAL, device=name),
    )
    return calls


def test_a_machine_is_measured_once(measured, tmp_path):
    assert this_machine(CPU, 2) == this_machine(CPU, 2)
    assert len(measured) == 1
    assert torch.__version__ in measured[0]
    (file,) = (tmp_path / "regime-runner").iterdir()
    file.write_text("{")
    assert this_machine(CPU, 2).device == measured[0]
    assert len(measured) == 2
    file.write_text(json.dumps(dataclasses.asdict(USUAL)))  # of another machine
    assert this_machine(CPU, 2).device == measured[0]
    assert len(measured) == 3


def test_a_cache_that_cannot_be_written_is_no_error(measured, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert this_machine(CPU, 2) == this_machine(CPU, 2)
    assert len(measured) == 2


def test_what_is_measured_is_plausible_and_leaves_the_threads_alone():
    threads = torch.get_num_threads()
    found = machine.measure(CPU, 2, "here")
    assert torch.get_num_threads() == threads
    assert 1e-8 < found.call < 1e-3
    assert all(1e7 < value < 1e13 for value in (*found.flops, *found.compiled))
    assert found.threads == 2
    assert all(0 < gain < 5 for gain in found.gains)
    assert 1e7 < found.uncached <= found.cached < 1e13
    assert 1 << 18 <= found.cache_bytes < 1 << 30
    assert from_record(json.loads(json.dumps(dataclasses.asdict(found)))) == found


def test_rates_lie_between_those_measured():
    assert [USUAL.rate(width) for width in WIDTHS] == pytest.approx(USUAL.flops)
    assert [USUAL.rate(1), USUAL.rate(1 << 20)] == [USUAL.flops[0], USUAL.flops[-1]]
    assert USUAL.flops[1] < USUAL.rate(96) < USUAL.flops[2]
    assert USUAL.rate(32, compiled=True) == pytest.approx(USUAL.compiled[0])


@pytest.mark.parametrize(
    "change",
    [
        {"call": -1.0},
        {"call": "fast"},
        {"flops": [1.0]},
        {"cached": float("nan")},
        {"more": 1},
        {"flops": None},
    ],
)
def test_a_record_that_is_none_is_measured_anew(change):
    assert from_record(dataclasses.asdict(USUAL) | change) is None
    assert from_record(None) is None


def costs(machine=USUAL, **changes):
    cell = dataclasses.replace(BASE, **changes)
    return Costs(cell, shape_of(cell), machine)


def test_costs_grow_with_the_work():
    one = costs().seconds(1)
    assert costs(steps=2000).seconds(1) > one
    assert costs(width=512).seconds(1) > one
    assert costs(dtype="float64").seconds(1) > one
    assert costs().seconds(2) > one
    assert costs().seconds(2) < 2 * one
    assert costs().seconds(2, 2) > costs().seconds(2, 1)
    kernel = {"points": 12, "functions": {"a": {"_target_": "runner.measures.ntk_change"}}}
    assert costs(settings=json.dumps({"measure": kernel})).seconds(1) > one
    many = costs(settings=json.dumps({"measure": kernel | {"points": 50}}))
    assert many.seconds(1) > costs(settings=json.dumps({"measure": kernel})).seconds(1)


@pytest.mark.parametrize("kind", ["ResidualMLP", "CNN", "Transformer"])
def test_measures_cost_the_same_whatever_takes_the_steps(kind):
    """They run by autograd, also where steps are compiled: nothing of a step may be missing of a kernel."""
    found = []
    for optimizer, compiled in (({}, True), ({"clip": 1.0}, False)):  # clipped gradients are torch's
        few, many = (
            make_cell(
                model={"_target_": f"runner.models.{kind}"},
                data=DIGITS,
                optimizer=optimizer,
                measure={"points": points},
            )
            for points in (4, 12)
        )
        assert inspect(few).compiled == compiled
        found.append(float(np.subtract(*(Costs(one, inspect(one), USUAL).seconds(1) for one in (many, few)))))
    assert found[0] == pytest.approx(found[1])


def test_packs_are_larger_where_dispatch_is_dear_and_smaller_where_caches_are():
    narrow = costs(width=16, batch_size=32, steps=10_000)
    assert narrow.pack_limit() > costs(width=512, steps=10_000).pack_limit() >= 1
    slow = dataclasses.replace(USUAL, call=10 * USUAL.call)
    assert costs(slow, width=16, batch_size=32, steps=10_000).pack_limit() > narrow.pack_limit()
    tight = dataclasses.replace(USUAL, cache_bytes=4 * narrow.cell_bytes)
    assert costs(tight, width=16, batch_size=32, steps=10_000).pack_limit() <= 4


def test_a_pack_comes_near_to_the_least_seconds_per_cell():
    few = costs(width=32, batch_size=64, steps=1000)
    counts = np.arange(1, 513)
    counts = counts[counts * few.cell_bytes <= USUAL.cache_bytes]
    each = few.seconds(counts) / counts
    assert each[few.pack_limit() - 1] <= NEAR_BEST * each.min() < each[max(0, few.pack_limit() - 2)]
