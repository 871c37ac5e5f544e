"""TensorBoard: event files, one folder a cell, with the config for its HParams tab."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from runner.export.runs import Run

_START, _END = "_hparams_/session_start_info", "_hparams_/session_end_info"


def write_runs(name: str, runs: Iterable[Run], out: Path) -> str:
    """Write each cell as a run of its own folder; a cell that is there already is written anew."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    for run in runs:
        folder = out / name / run.id
        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()
        writer = EventFileWriter(str(folder))
        writer.add_event(Event(wall_time=0.0, summary=_config(run)))
        for step, values in [*run.steps.items(), (run.last, run.finals)]:
            rows = [Summary.Value(tag=key, simple_value=value) for key, value in values.items()]
            writer.add_event(Event(wall_time=float(step), step=step, summary=Summary(value=rows)))
        writer.add_event(Event(wall_time=float(run.last), summary=_end()))
        writer.close()
    return f"{out}; `tensorboard --logdir {out}` shows them"


def _config(run: Run) -> Any:
    """Return the record by which the HParams tab knows a run's config."""
    from tensorboard.plugins.hparams import plugin_data_pb2

    start = plugin_data_pb2.SessionStartInfo(group_name=run.id)
    for key, value in run.config.items():
        if isinstance(value, bool):
            start.hparams[key].bool_value = value
        elif isinstance(value, (int, float)):
            start.hparams[key].number_value = value
        else:
            start.hparams[key].string_value = str(value)
    return _record(_START, plugin_data_pb2.HParamsPluginData(session_start_info=start, version=0))


def _end() -> Any:
    from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2

    end = plugin_data_pb2.SessionEndInfo(status=api_pb2.STATUS_SUCCESS)
    return _record(_END, plugin_data_pb2.HParamsPluginData(session_end_info=end, version=0))


def _record(tag: str, content: Any) -> Any:
    """Return a summary that carries a message of the HParams plugin."""
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata

    data = SummaryMetadata.PluginData(plugin_name="hparams", content=content.SerializeToString())
    return Summary(value=[Summary.Value(tag=tag, metadata=SummaryMetadata(plugin_data=data))])
