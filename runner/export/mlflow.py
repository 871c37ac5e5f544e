"""MLflow: runs in a SQLite file, which its own server reads."""

from collections.abc import Iterable
from pathlib import Path

from runner.export.runs import Run

_MOST_METRICS, _MOST_PARAMS = 1000, 100  # MLflow's limits for one batch


def write_runs(name: str, runs: Iterable[Run], out: Path) -> str:
    """Write each cell as a run of the experiment ``name``; cells that are there already are left alone."""
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, RunTag

    uri = f"sqlite:///{out / 'mlflow.db'}"
    client = MlflowClient(tracking_uri=uri)
    found = client.get_experiment_by_name(name)
    artifacts = (out / "artifacts").absolute().as_uri()
    experiment = found.experiment_id if found else client.create_experiment(name, artifact_location=artifacts)
    for run in runs:
        if client.search_runs([experiment], f"tags.cell_id = '{run.id}'", max_results=1):
            continue
        opened = client.create_run(experiment, run_name=run.name, tags={"cell_id": run.id}).info.run_id
        params = [Param(key, str(value)) for key, value in run.config.items()]
        texts = {key: value for key, value in run.results.items() if not isinstance(value, (int, float))}
        values = [(key, value, step) for step, row in run.steps.items() for key, value in row.items()]
        values += [(key, value, run.last) for key, value in run.finals.items()]
        metrics = [Metric(key.replace(":", "_"), float(value), 0, step) for key, value, step in values]
        for start in range(0, max(len(metrics), 1), _MOST_METRICS):
            client.log_batch(opened, metrics=metrics[start : start + _MOST_METRICS])
        for start in range(0, len(params), _MOST_PARAMS):
            client.log_batch(opened, params=params[start : start + _MOST_PARAMS])
        client.log_batch(opened, tags=[RunTag(key, str(value)) for key, value in texts.items()])
        client.set_terminated(opened, "FAILED" if run.results.get("status") == "failed" else "FINISHED")
    return f"{out}/mlflow.db; `mlflow ui --backend-store-uri {uri}` shows them"
