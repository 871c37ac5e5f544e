"""Weights & Biases: offline runs, to be uploaded with its own ``wandb sync``."""

from collections.abc import Iterable
from pathlib import Path

from runner.export.runs import Run


def write_runs(name: str, runs: Iterable[Run], out: Path) -> str:
    """Write each cell as an offline run of the project ``name``."""
    import wandb

    settings = wandb.Settings(
        mode="offline", silent=True, console="off", save_code=False, disable_git=True, x_disable_stats=True
    )
    for run in runs:
        with wandb.init(
            project=name, id=run.id, name=run.name, config=run.config, dir=str(out), settings=settings,
            reinit="finish_previous",
        ) as opened:  # fmt: skip
            for step, values in run.steps.items():
                opened.log(values, step=step)
            opened.summary.update(run.results)
    return f"{out}/wandb; `wandb sync {out}/wandb/offline-*` uploads them"
