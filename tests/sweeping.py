"""Sweeps in this process: the cells of a command line, and an engine that trains nothing."""

from types import SimpleNamespace

import pytest

from runner import cli
from runner.commands import sweep
from runner.launching import launch
from runner.training import preflight, train
from runner.training.record import PackTables

TINY = ("data=xor", "data.train_size=16", "data.test_size=8", "data.probe_size=8", "data.dim=4", "steps=4")


def run_in(folder, *words):
    """Run a command line in a folder, as fixtures of a module must; return the exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return cli.main(list(words))


class Engine:
    """Stands in for ``train``: results are functions of the cell, so that they cannot depend on its pack."""

    def __init__(self, monkeypatch):
        self.trained = []
        self.error_at = {}
        # A stand-in does not reach other processes.
        monkeypatch.setattr(launch, "worker_count", lambda *_: 1)
        monkeypatch.setattr(preflight, "inspect", self.inspect)
        monkeypatch.setattr(train, "train_pack", self.train_pack)

    def inspect(self, cell):
        return shape_of(cell)

    def train_pack(self, cells, device, on_progress=None, checkpoint=None):
        if error := self.error_at.get(cells[0].width):
            raise error
        on_progress(0, 0)
        self.trained += [cell.cell_id for cell in cells]
        rows = [
            {
                "status": "diverged" if cell.lr > 100 else "ok",
                "train_loss": None if cell.lr > 100 else cell.lr / 2,
                "initial_train_loss": cell.lr,
                "ntk_change": 1 / cell.width,
                "feature_movement": 1 / cell.width,
                "peak_loss_ratio": 1.0,
                "lambda_max_init": 1.0,
                "train_seconds": 0.0,
                "device": str(device),
            }
            for cell in cells
        ]
        on_progress(cells[0].steps, 0)
        ids = [cell.cell_id for cell in cells]
        trace = {"cell_id": ids, "step": [0] * len(ids), "train_loss": [cell.lr for cell in cells]}
        layers = {"cell_id": ids, "step": [0] * len(ids), "layer": ["0"] * len(ids)}
        layers |= {"layer_index": [0] * len(ids), "role": ["input"] * len(ids)}
        return PackTables(rows, trace, layers)


def shape_of(cell):
    """A plausible shape, without building anything."""
    parameters = cell.width * (64 + cell.width * (cell.depth - 1) + 10)
    return SimpleNamespace(
        parameters=parameters,
        train_size=512,
        test_size=512,
        probe_size=128,
        inputs=64,
        outputs=10,
        activations=cell.depth * cell.width + 10,
        paired=cell.depth * cell.width + 10,
        positions=1,
        wrapped=False,
        optimizer_flops=0.0,
        calls=15 * (cell.depth + 1),
        passes=12,
        written=0,
        compiled=False,
        evaluations=1.0,
        searched=True,
        flops_per_step=6.0 * 512 * parameters,
    )


def cells_of(monkeypatch, *arguments):
    """Return the cells that ``runner sweep ARGUMENTS`` would plan."""
    asked = []

    def stand_in(cells, *_, **__):
        asked.extend(cells)
        raise SystemExit(0)

    with monkeypatch.context() as patch:
        patch.setattr(launch, "launch", stand_in)
        assert sweep.main(["--debug", *arguments]) == 0
    return asked
