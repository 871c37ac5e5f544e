"""What the limits of infinite width cost, in seconds, that cells are measured against."""

from __future__ import annotations

import math
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from runner.grid.cell import Cell
from runner.grid.cells import Cells
from runner.planning.machine import Machine

if TYPE_CHECKING:
    from runner.limits import Problem, Sampling

_SHARED = [field.name for field in fields(Cell) if field.name not in ("width", "seed")]
# Fitted to the processor time of one thread for limits of depth 1 to 3, of 16 and 64 samples, 1,024 and 4,096
# units, 20 to 200 steps, of all four activations that the experiment has. What is told is from half to twice
# what they took.
_LAYER_CALLS = 40  # operations of a step in a layer
_LINK_CALLS = 250  # of a hidden matrix in a step, most of them on small matrices, to extend its frames
_PASSES = 25  # over a layer's fields in a step
_PRODUCTS = 60  # of a frame and a layer's fields in a step, forward and backward together
_VECTORS = 12  # of a frame, mean over training, to the root of the samples
_KINKED_FRAME = 10  # units to a vector of a frame of relu, whose fields keep turning a little
_REPLICAS = 4  # that usually suffice


def limit_seconds(cells: Cells, machine: Machine, store: Path | None = None) -> float:
    """Return the seconds that the limits of some cells take, each solved once.

    Args:
        cells: To train; those without the measure ``limit_distance`` cost nothing.
        machine: Whose speeds it is told for.
        store: Folder of a store: samples that it has of a limit cost nothing.
    """
    if not any('"limit_distance"' in settings for settings in cells.column("settings").values):
        return 0.0
    from runner.measures.infinite_width import wanted_limit

    wanted = {}
    for start in cells.starts(_SHARED).tolist():
        if (asked := wanted_limit(cells[start])) is not None:
            wanted[asked[0].key()] = asked
    return sum(
        _missing(problem, sampling, store) * _seconds(problem, sampling, machine)
        for problem, sampling in wanted.values()
    )


def _missing(problem: Problem, sampling: Sampling, store: Path | None) -> int:
    """Return how many samples are still to be drawn."""
    from runner.store.limits import kept_limit

    kept = kept_limit(store, problem, sampling) if store else None
    if kept is not None and kept.suffices(sampling):
        return 0
    usual = 1 if problem.exact else min(sampling.replicas, _REPLICAS)
    return max(1, usual - (0 if kept is None else len(kept.outputs)))


def _seconds(problem: Problem, sampling: Sampling, machine: Machine) -> float:
    """Return the seconds of one sample."""
    samples, steps = len(problem.gram), problem.steps[-1] + 1
    links = problem.depth - 1
    calls = (_LAYER_CALLS * problem.depth + _LINK_CALLS * links) * machine.call
    if problem.gamma == 0:
        return steps * _LAYER_CALLS * machine.call
    units = samples + problem.depth * steps if problem.exact else sampling.units
    vectors = _VECTORS * math.sqrt(samples)
    if problem.activation == "relu":
        vectors = max(vectors, units / _KINKED_FRAME)
    field = float(units * samples)
    passes = _PASSES * 8 * field / machine.bandwidth(8 * field)
    products = _PRODUCTS * 2 * field * min(vectors, units) / machine.rate(1024, "float64")
    return steps * (calls + problem.depth * passes + links * products)
