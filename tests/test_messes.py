"""Messes that people make, each found by making it."""

import errno
from pathlib import Path

import pytest
from stores import write_cells
from synthetic import grid

from runner import cli, load
from runner.commands import sweep
from runner.store.verify import repair, verify
from runner.views import figures

TINY = [
    "data=xor", "data.dim=4", "data.train_size=16", "data.test_size=8", "data.probe_size=8", "width=8",
    "steps=2", "workers=1", "store=out",
]  # fmt: skip


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("seed=9223372036854775808", "seed must be less than 2^63, got 9223372036854775808"),
        ("hydra/sweeper=basic", "hydra/sweeper must be runner_grid, got basic; leave it out"),
    ],
)
def test_refused_in_a_line(capsys, argument, message):
    assert sweep.main([*TINY, argument]) == 2
    assert f"error: {message}" in capsys.readouterr().err
    assert not Path("out").exists()


def test_a_report_is_html(capsys):
    write_cells(Path("out"), grid(width=(8, 16, 32), lr=(0.1, 1.0), seed=(0, 1)))
    assert cli.main(["report", "out", "--out", "report.pdf"]) == 2
    assert "--out suffix must be one of .htm, .html, got '.pdf'" in capsys.readouterr().err


def test_a_record_that_cannot_be_read_is_found_and_written_anew():
    assert sweep.main(TINY) == 0
    text = Path("out/sweep.yaml").read_text("utf-8")
    Path("out/sweep.yaml").write_text("launch: [", encoding="utf-8")
    (problem,) = verify(Path("out")).problems
    assert problem.text == "sweep.yaml is not that of the newest launch"
    assert repair(Path("out")) == ("wrote sweep.yaml anew, from the launches' records",)
    assert verify(Path("out")).problems == []
    assert Path("out/sweep.yaml").read_text("utf-8") == text


def test_a_full_disk_leaves_the_figure_that_was_there(monkeypatch, capsys):
    write_cells(Path("out"), grid(width=(8, 16, 32), lr=(0.1, 1.0), seed=(0, 1)))
    load("out").phase().save("phase.svg")
    before = Path("phase.svg").read_bytes()

    def full(self, content):
        Path(self).touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(figures.Path, "write_bytes", full)
        assert cli.main(["phase", "out", "--out", "phase.svg"]) == 2
    assert "--out must be a file that can be written" in capsys.readouterr().err
    assert Path("phase.svg").read_bytes() == before
    assert [path.name for path in Path().glob(".phase*")] == []


def test_claims_in_a_folder_that_cannot_be_written_are_refused_in_a_line(capsys):
    Path("blocked").touch()
    assert cli.main(["claims", "C4", "--out", "blocked"]) == 2
    assert "store must be in a folder that can be written" in capsys.readouterr().err
