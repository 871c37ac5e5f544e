"""Solved limits of infinite width, kept in the store: one file for each, named after all that it depends on.

``limits/<key>.npz`` holds ``outputs`` [replica, step, sample], ``kernel`` [replica, step, probe, probe],
``dropped``, and for people ``steps``, ``targets`` and the JSON text ``problem``. It is written after every
replica, so that a solution that was interrupted goes on with the next one.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from runner.limits import Limit, Problem, Sampling, solve
from runner.store.files import atomic, locked

FOLDER = "limits"


def stored_limit(
    store: Path, problem: Problem, sampling: Sampling,
    progress: Callable[[int, int], object] = lambda replica, step: None,
) -> Limit:  # fmt: skip
    """Return a limit, solved for what the store does not have of it yet.

    Of processes that want the same one, one solves it and the others wait.

    Args:
        store: Folder of the store.
        progress: Called with the number of the replica and the step, before each; what it raises ends it.

    Raises:
        UserError: If the store cannot be written.
    """
    path = store / FOLDER / f"{problem.key(asdict(sampling))}.npz"
    with locked(store / FOLDER, f".{path.stem}.lock"):
        return solve(problem, sampling, _read(path, problem), lambda limit: _write(path, limit), progress)


def is_stored(store: Path, problem: Problem, sampling: Sampling) -> bool:
    """Return whether a store has something of a limit."""
    return (store / FOLDER / f"{problem.key(asdict(sampling))}.npz").exists()


def _read(path: Path, problem: Problem) -> Limit | None:
    """Return the replicas in a file; None where there are none, or it is damaged."""
    with suppress(OSError, ValueError, KeyError, EOFError, BadZipFile), path.open("rb") as source:
        file = np.load(source, allow_pickle=False)
        outputs, kernel = (torch.from_numpy(file[name]) for name in ("outputs", "kernel"))
        return Limit(problem, outputs, kernel, float(file["dropped"]))
    return None


def _write(path: Path, limit: Limit) -> None:
    problem = limit.problem
    named = ((field.name, getattr(problem, field.name)) for field in fields(problem))
    words = json.dumps({name: value for name, value in named if not isinstance(value, Tensor)})
    with atomic(path) as file:
        np.savez(
            file, outputs=limit.outputs.numpy(), kernel=limit.kernel.numpy(), dropped=np.array(limit.dropped),
            steps=np.array(problem.steps), targets=problem.targets.numpy(), problem=np.array(words),
        )  # fmt: skip
