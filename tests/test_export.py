import json
import struct
import sys

import pandas as pd
import pytest
from stores import write_cells
from synthetic import grid

from runner import load
from runner.cli import main


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("outputs") / "digits"
    write_cells(path, grid(width=(32, 64), lr=(0.1, 30.0)))
    return load(path)


def _export(store, to, out, *words):
    assert main(["export", str(store.path), "--to", to, "--out", str(out), *words]) == 0


def _trace(store, cell, measure, step=200):
    rows = store.trace[(store.trace["cell_id"] == cell) & (store.trace["step"] == step)]
    return rows[measure].item()


def test_csv(store, tmp_path, capsys):
    _export(store, "csv", tmp_path, "--where", "width=32")
    cells, trace, layers = (pd.read_csv(tmp_path / f"{name}.csv") for name in ("cells", "trace", "layers"))
    assert set(cells["cell_id"]) == set(trace["cell_id"]) == set(layers["cell_id"])
    assert len(cells) == 2
    assert list(cells["model.activation"]) == ["relu", "relu"]
    assert "settings" not in cells
    assert "2 cells: " in capsys.readouterr().out


def test_tensorboard(store, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import plugin_data_pb2

    for _ in range(2):  # again into the same folder: the same runs, not more of them
        _export(store, "tensorboard", tmp_path)
    for row in store.cells.to_dict("records"):
        [file] = (tmp_path / "digits" / row["cell_id"]).iterdir()
        read = EventAccumulator(str(file.parent)).Reload()
        curve = read.Scalars("ntk_change")
        assert [event.step for event in curve] == [0, 200]
        assert curve[-1].value == pytest.approx(_trace(store, row["cell_id"], "ntk_change"), rel=1e-6)
        assert {"movement_spectral/layer0", "final/lambda_max_init"} <= set(read.Tags()["scalars"])
        metadata = read.SummaryMetadata("_hparams_/session_start_info")
        start = plugin_data_pb2.HParamsPluginData.FromString(metadata.plugin_data.content).session_start_info
        assert start.hparams["width"].number_value == row["width"]
        assert start.hparams["model.activation"].string_value == "relu"


@pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")  # MLflow's own
def test_mlflow(store, tmp_path):
    pytest.importorskip("mlflow")
    from mlflow import MlflowClient

    for _ in range(2):
        _export(store, "mlflow", tmp_path)
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("digits").experiment_id])
    assert len(runs) == len(store.cells)
    rows = store.cells.set_index("cell_id")
    for run in runs:
        row = rows.loc[run.data.tags["cell_id"]]
        assert float(run.data.params["lr"]) == row["lr"]
        assert run.data.tags["status"] == row["status"]
        assert run.info.status == "FINISHED"
        history = client.get_metric_history(run.info.run_id, "ntk_change")
        assert {one.step for one in history} == {0, 200}
        assert run.data.metrics["final/lambda_max_init"] == pytest.approx(row["lambda_max_init"])
        assert ("train_loss" in run.data.metrics) == (row["status"] == "ok")  # NaN has no place there


def _records(log, header=7, block=32768):
    """Yield the records of a LevelDB log, which is what an offline run of wandb is."""
    at, parts = header, b""
    while at < len(log):
        if (room := block - at % block) < 7:
            at += room
            continue
        length, kind = struct.unpack("<HB", log[at + 4 : at + 7])
        parts += log[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield parts
            parts = b""


def test_wandb(store, tmp_path):
    pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2

    _export(store, "wandb", tmp_path, "--where", "lr=0.1")
    cells = store.cells[store.cells["lr"] == 0.1].set_index("cell_id")
    files = list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    assert len(files) == len(cells) == 2
    for file in files:
        config, history, summary, run = {}, {}, {}, None
        for data in _records(file.read_bytes()):
            record = wandb_internal_pb2.Record.FromString(data)
            kind = record.WhichOneof("record_type")
            if kind == "run":  # there may be several, each with what is new
                run = record.run.run_id
                config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
            elif kind == "config":
                config |= {item.key: json.loads(item.value_json) for item in record.config.update}
            elif kind == "history":
                row = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
                history[int(row["_step"])] = row
            elif kind == "summary":
                summary |= {item.key or item.nested_key[0]: item.value_json for item in record.summary.update}
        assert config["width"] == cells.loc[run, "width"]
        assert sorted(history) == [0, 200]
        assert float(history[200]["ntk_change"]) == pytest.approx(_trace(store, run, "ntk_change"))
        assert json.loads(summary["regime"]) == cells.loc[run, "regime"]


def test_mistakes(store, tmp_path, capsys, monkeypatch):
    assert main(["export", str(store.path), "--to", "wandbb"]) == 2
    assert "did you mean 'wandb'?" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert main(["export", str(store.path), "--to", "csv", "--out", str(tmp_path / "file/x")]) == 2
    assert capsys.readouterr().err.startswith("error: --out must be a folder that can be written")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["export", str(store.path), "--to", "mlflow", "--out", str(tmp_path / "m")]) == 2
    assert "pip install 'regime-runner[mlflow]'" in capsys.readouterr().err
    assert "mlflow" not in sys.modules or not (tmp_path / "m").exists()
