"""What a sweep will take, told before it trains."""

import re

import pytest
from stores import WRITTEN
from sweeping import TINY, shape_of
from synthetic import grid

import runner.store
from runner.commands import sweep
from runner.grid.cells import Cells
from runner.planning.forecast import forecast
from runner.planning.limits import limit_seconds
from runner.planning.machine import USUAL
from runner.planning.plan import make_plan


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def ahead(cells, workers=1, **plan):
    return forecast(make_plan(cells, shape_of, **plan), shape_of, USUAL, workers)


def test_it_is_the_plans_own_costs():
    cells = grid(width=(32, 64, 128), lr=(0.1, 1.0), seed=(0, 1))
    plan = make_plan(cells, shape_of)
    one, two = ahead(cells), ahead(cells, workers=2)
    assert one.seconds == pytest.approx(plan.packs.costs.sum())
    assert two.seconds == pytest.approx(max(plan.packs.costs.sum() / 2, plan.packs.costs.max()))
    assert (one.cells, one.missing, one.packs, one.jobs) == (12, 12, len(plan.packs), 1)
    assert two.memory == 2 * one.memory


def test_jobs_are_timed_by_the_longest():
    cells = grid(width=(32, 64, 128, 256), seed=tuple(range(8)))
    plan = make_plan(cells, shape_of, shards=3)
    loads = [sum(c for c, s in zip(plan.packs.costs, plan.shard_of, strict=True) if s == n) for n in range(3)]
    found = ahead(cells, shards=3)
    assert found.seconds == pytest.approx(max(loads))
    assert found.jobs == 3
    assert "in 3 jobs" in found.lines()[0]
    assert "each on 1 worker" in found.lines()[1]


def test_finished_cells_take_nothing():
    cells = grid(width=(32, 64), seed=(0, 1))
    some = ahead(cells, finished={cells[0].cell_id, cells[1].cell_id})
    assert (some.missing, some.cells) == (2, 4)
    assert some.seconds < ahead(cells).seconds
    nothing = ahead(cells, finished={cell.cell_id for cell in cells})
    assert (nothing.seconds, nothing.memory, nothing.disk) == (0, 0, 0)
    assert nothing.lines()[1] == "time    none: all are finished"


def test_a_dry_run_writes_nothing(tmp_path, capsys):
    assert sweep.main([*TINY, "width=8,16", "seed=0,1", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^cells   4 to train of 4, \d packs$", out, re.MULTILINE)
    for word in ("time    about ", "memory  ", "disk    about "):
        assert word in out
    assert not list(tmp_path.iterdir())
    assert sweep.main([*TINY, "width=8,16", "seed=0", "workers=1", "store=out"]) == 0
    before = sorted(tmp_path.rglob("*"))
    capsys.readouterr()
    assert sweep.main([*TINY, "width=8,16", "seed=0,1", "store=out", "--dry-run"]) == 0
    assert "2 to train of 4" in capsys.readouterr().out
    assert sorted(tmp_path.rglob("*")) == before


def test_a_dry_run_of_the_default_grid_and_of_a_mistake(tmp_path, capsys):
    assert sweep.main(["--dry-run"]) == 0
    assert "cells   360 to train of 360" in capsys.readouterr().out
    assert sweep.main(["wdith=3", "--dry-run"]) == 2
    assert not list(tmp_path.iterdir())


def test_the_disk_that_parts_take_is_forecast(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(runner.store, "compact", lambda store: None)
    line = [*TINY, "width=8,16,32", "seed=range(0,50)", "workers=1", "store=out"]
    assert sweep.main([*line, "--dry-run"]) == 0
    size, unit = re.search(r"disk    about (\S+) (\S+)", capsys.readouterr().out).groups()
    expected = float(size) * {"kB": 1e3, "MB": 1e6}[unit]
    assert sweep.main(line) == 0
    written = sum(file.stat().st_size for table in WRITTEN for file in (tmp_path / "out" / table).iterdir())
    assert expected / 2 < written < 2 * expected


def test_limits_are_priced_once_for_all_widths_and_seeds():
    from cells import make_cell

    measure = {"functions": {"limit_distance": {"_target_": "runner.measures.limit_distance"}}}

    def priced(activation, measure=measure, **changes):
        keys = {"parameterization": "mup", "model": {"activation": activation}, "measure": measure}
        return limit_seconds(Cells.of([make_cell(**keys, **one) for one in changes.pop("each")]), USUAL)

    widths = [{"width": n, "seed": seed} for n in (8, 16) for seed in range(3)]
    one = priced("linear", each=[{}])
    assert one > 0
    assert priced("linear", each=widths) == pytest.approx(one)
    assert priced("linear", each=[{"gamma": 1.0}, {"gamma": 2.0}]) == pytest.approx(2 * one)
    assert priced("relu", each=[{}]) > priced("tanh", each=[{}]) > one
    assert priced("linear", {"functions": {}}, each=widths) == 0


def test_limits_that_the_store_has_cost_nothing(tmp_path):
    from cells import make_cell

    from runner.limits import Sampling
    from runner.measures.infinite_width import problem_for
    from runner.store.limits import stored_limit

    options = {"_target_": "runner.measures.limit_distance", "units": 64, "error": 1e-9}
    measure = {"functions": {"limit_distance": options}}

    def cells_of(**changes):
        model = {"activation": changes.pop("activation", "tanh")}
        return Cells.of([make_cell(parameterization="mup", model=model, measure=measure, **changes)])

    exact, sampled = cells_of(activation="linear"), cells_of()
    assert limit_seconds(exact, USUAL, tmp_path) == limit_seconds(exact, USUAL) > 0
    stored_limit(tmp_path, problem_for(exact[0]), Sampling(64, error=1e-9))
    assert limit_seconds(exact, USUAL, tmp_path) == 0
    whole = limit_seconds(sampled, USUAL, tmp_path)

    def stop(replica, step):
        if replica == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stored_limit(tmp_path, problem_for(sampled[0]), Sampling(64, error=1e-9), stop)
    assert limit_seconds(sampled, USUAL, tmp_path) == pytest.approx(3 / 4 * whole), "one sample of four"
