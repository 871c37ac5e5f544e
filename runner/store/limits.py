"""Solved limits of infinite width, kept in the store: one file for each, named after all that it depends on.

``limits/<key>.safetensors`` holds ``outputs`` [replica, step, sample], ``kernel`` [replica, step, probe,
probe], ``dropped``, and for people ``steps``, ``targets`` and, in its metadata, the JSON text ``problem``. It
is written after every replica, so that a solution that was interrupted goes on with the next one.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
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
    path = _path(store, problem, sampling)
    with locked(path.parent, f".{path.stem}.lock"):
        found = kept_limit(store, problem, sampling)
        return solve(problem, sampling, found, lambda limit: _write(path, limit), progress)


def kept_limit(store: Path, problem: Problem, sampling: Sampling) -> Limit | None:
    """Return the replicas that a store has of a limit; None where there are none, or they are damaged."""
    with suppress(OSError, SafetensorError, KeyError):
        held = load_file(_path(store, problem, sampling))
        return Limit(problem, held["outputs"], held["kernel"], float(held["dropped"]))
    return None


def _path(store: Path, problem: Problem, sampling: Sampling) -> Path:
    return store / FOLDER / f"{problem.key(asdict(sampling))}.safetensors"


def _write(path: Path, limit: Limit) -> None:
    problem = limit.problem
    named = ((field.name, getattr(problem, field.name)) for field in fields(problem))
    words = json.dumps({name: value for name, value in named if not isinstance(value, Tensor)})
    tensors = {
        "outputs": limit.outputs.contiguous(),
        "kernel": limit.kernel.contiguous(),
        "dropped": torch.tensor(limit.dropped, dtype=torch.float64),
        "steps": torch.tensor(problem.steps),
        "targets": problem.targets.contiguous(),
    }
    with atomic(path) as file:
        file.write(save(tensors, {"problem": words}))
