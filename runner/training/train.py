"""Training one pack: many cells as one ensemble, measured at log-spaced steps."""

import json
import time
from bisect import bisect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from runner import baselines, data
from runner.grid.cell import Cell
from runner.measures.schedule import measuring_steps
from runner.training.checkpoint import Checkpoint
from runner.training.record import PackTables
from runner.training.run import Run

_REPORT_SECONDS = 0.2


def train_pack(
    cells: Sequence[Cell],
    device: torch.device,
    on_progress: Callable[[int, int], None] | None = None,
    checkpoint: Checkpoint | None = None,
) -> PackTables:
    """Train the cells of a pack together and measure them on the way.

    A cell whose loss is not finite, or beyond its limit (:mod:`runner.training.divergence`), is retired with
    that step recorded, and one that has come to a level of ``stop`` ends there; the others go on.

    Args:
        cells: Cells with one ``pack_key``.
        on_progress: Called with (steps done, cells diverged so far) now and then.
        checkpoint: Where an earlier training of this pack was left, if it was, and where to leave this one.

    Returns:
        One row per cell, in the order given, and the rows of ``trace`` and ``layers``.

    Raises:
        UserError: If the cells ask for something that does not exist.
        Stopped: If the checkpoint's owner was told to stop.
    """
    began = time.perf_counter()
    sections = json.loads(cells[0].settings)
    if baselines.baseline_of(sections["model"]):
        return PackTables(baselines.fit_cells(cells, device), {}, {})
    dataset = data.load(sections["data"])
    run, first, before = _begin(cells, sections, dataset, device, checkpoint)
    measured = measuring_steps(cells[0].steps, sections["measure"])
    reported = began
    step, last = first, cells[0].steps
    while True:
        if checkpoint:
            checkpoint.visit(step, lambda step=step: run.state(step, before + time.perf_counter() - began))  # type: ignore[misc]
        run.stop(step)
        if step in measured:
            run.measure(step)
        now = time.perf_counter()
        if on_progress and (step in measured or now - reported > _REPORT_SECONDS):
            on_progress(step, run.recorder.count("diverged"))
            reported = now
        if step == last or not run.active:
            break
        due = min(measured[bisect(measured, step)], run.stops.following(step))
        step = run.advance(step, int(due))
    run.recorder.peak(run.active, run.peak)
    return run.recorder.tables((before + time.perf_counter() - began) / len(cells), device)


def _begin(
    cells: Sequence[Cell],
    sections: Mapping[str, Any],
    dataset: data.Dataset,
    device: torch.device,
    checkpoint: Checkpoint | None,
) -> tuple[Run, int, float]:
    """Return the pack, the step to go on from and the seconds that it took to get there."""
    run = Run(cells, sections, dataset, device)
    state = checkpoint.load() if checkpoint else None
    if checkpoint is None or state is None:
        return run, 0, 0.0
    # What measures keep from the start is made again, by all cells of the start, hence to the same bits.
    run.measure(0)
    try:
        run.restore(state)
    except torch.OutOfMemoryError:
        raise
    except (KeyError, ValueError, TypeError, IndexError, RuntimeError) as error:
        checkpoint.give_up(" ".join(str(error).split()))
        return Run(cells, sections, dataset, device), 0, 0.0
    return run, state.step, state.seconds
