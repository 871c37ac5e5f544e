"""The benchmark's own logic; how fast anything is, is not tested here."""

import math
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import runner

SCRIPTS = Path(__file__).parents[1] / "scripts"
sys.path.insert(0, str(SCRIPTS))

import bench  # noqa: E402
from benchmark import scale  # noqa: E402
from benchmark.lines import Family, at_least, at_most, failed  # noqa: E402


@pytest.mark.parametrize(
    ("target", "figure", "holds"),
    [
        (at_least(2), 2.0, True), (at_least(2), 1.9, False), (at_least(2), math.nan, False),
        (at_most(2), 2.0, True), (at_most(2), 2.1, False), (at_most(2), math.nan, False),
    ],
)  # fmt: skip
def test_a_figure_that_is_not_there_fails(target, figure, holds):
    assert target.holds(figure) is holds


def test_the_median_decides():
    family = Family("f")
    family.add("a", "s", [1.0, 9.0, 2.0], at_most(2))
    family.add("b", "s", [1.0, 9.0, 9.0], at_most(2))
    family.add("c", "s", 9.0)
    assert [line.verdict for line in family.lines] == ["pass", "FAIL", ""]
    assert [(line.low, line.high, line.repeats) for line in family.lines[:1]] == [(1.0, 9.0, 3)]
    assert [line.what for line in failed(family.lines)] == ["b"]


def run(monkeypatch, tmp_path, figure, *options):
    def measure(quick):
        family = Family("one")
        family.add("what", "s", figure, at_most(1))
        return family

    out = tmp_path / "bench.parquet"
    monkeypatch.setattr(
        bench, "FAMILIES", {"one": measure, "none": lambda quick: Family("none", skipped="for a reason")}
    )
    monkeypatch.setattr(bench, "sgemm", lambda: 100.0)
    monkeypatch.setattr(sys, "argv", ["bench.py", "--out", str(out), *options])
    return bench.main(), out


def test_a_line_that_fails_makes_the_exit_code(monkeypatch, tmp_path, capsys):
    assert run(monkeypatch, tmp_path, 2.0)[0] == 1
    code, out = run(monkeypatch, tmp_path, 0.5)
    assert code == 0
    printed = capsys.readouterr().out
    assert "none: skipped, for a reason" in printed
    assert "1 of 1 targets hold" in printed
    (row,) = pq.read_table(out).to_pylist()
    assert (row["figure"], row["verdict"], row["target"]) == (0.5, "pass", "<= 1")
    assert row["sgemm_2048_gflops"] == "100"
    assert {"cpu", "cores", "torch", "python", "commit", "date"} <= row.keys()


def test_an_unknown_family_is_named(monkeypatch, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, tmp_path, 1.0, "--only", "one,tow")
    assert "must be of one, none, got tow" in capsys.readouterr().err


def test_stores_of_the_benchmark_are_read_as_any(tmp_path):
    """Half of a grid is finished, planned again, and all of it finished."""
    size = 200
    scale._plan(size, tmp_path / "half")
    scale._half(size, tmp_path / "half")
    scale._plan(size, tmp_path / "half")
    assert len(runner.load(tmp_path / "half").cells) == size // 2
    scale._finish(size, tmp_path / "all")
    assert (runner.load(tmp_path / "all").cells["status"] == "ok").all()
