"""A store's cells as CSV or as runs of a tracker, written from the tables when training is over."""

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd

from runner.errors import UserError
from runner.export.runs import Run, runs_of
from runner.store import Store

EXTRAS = {"wandb": "wandb", "mlflow": "mlflow", "tensorboard": "tensorboard"}
"""The package that a writer needs; the extra of `regime-runner` is named like the writer."""


def export(
    store: Store, cells: pd.DataFrame, to: str, out: Path, tell: Callable[[str], None] = lambda _: None
) -> str:
    """Write cells in the format of a tracker; nothing is sent anywhere.

    Args:
        cells: The rows of its ``cells`` to export.
        to: ``csv``, ``wandb``, ``mlflow`` or ``tensorboard``.
        out: Folder of the files; made if it is missing.
        tell: Called with the progress as text.

    Returns:
        Where the files are and how to look at them, as text.

    Raises:
        UserError: If the tracker is not installed or the folder cannot be written.
    """
    if to in EXTRAS and importlib.util.find_spec(EXTRAS[to]) is None:
        raise UserError(
            f"--to {to} must have the package {EXTRAS[to]}, which is not installed; "
            f"pip install 'regime-runner[{to}]'"
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--out must be a folder that can be written, got {out}: {error.strerror}; choose another place"
        ) from error
    if to == "csv":
        from runner.export.csv import write_csv

        return write_csv(store, cells, out)
    writer = importlib.import_module(f"runner.export.{to}")
    name = str(store.config.get("name") or store.path.name)
    place: str = writer.write_runs(name, _told(runs_of(store, cells), len(cells), tell), out)
    return place


def _told(runs: Iterator[Run], count: int, tell: Callable[[str], None]) -> Iterator[Run]:
    """Yield the runs and tell the progress."""
    for done, run in enumerate(runs):
        tell(f"{done} of {count}")
        yield run
