"""What a pack holds at its peak, in bytes: weights, passes over samples, and the kernels that are measured.

Counted from the sizes of a cell, as its time is. The few constants were read off what torch allocates for
packs of MLPs, CNNs and transformers; ``tests/test_memory.py`` holds the estimate to that.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from runner.grid.cell import Cell
from runner.measures.declaration import Sizes
from runner.measures.schedule import scheduled

if TYPE_CHECKING:
    from runner.training.preflight import PackShape

_WEIGHTS = 8
"""Copies of the weights: their start, gradients, the optimizer's state, those of another time."""
_FLOWING = 10
"""More of them along a flow: the stages of its integrator and where they lead."""
_ARRANGED = 4
"""More of them for compiled steps, which arrange kernels and their gradients for products."""
_ROOMS = 4
"""Copies of the activations of a block that compiled steps hold, of one cell for all."""
_SEARCHED = 9
"""Copies of the activations of all samples that gradients of gradients hold."""
_PASSED = 3
"""The same of a gradient."""
_KEPT = 2
"""The same of the probes, at init and now, that measures share."""
_VECTORS = 48
"""Of a search for a top eigenvalue, which keeps them where they are short."""
_FACTORS = 6
"""Copies of the activations of a kernel's samples, for every output, that it is contracted from."""
_DECOMPOSED = 3
"""A symmetric matrix, its eigenvectors and the workspace."""


def peak_bytes(cell: Cell, shape: PackShape, count: int) -> int:
    """Return what a pack holds at most, beside the process itself.

    With mini-batches, too: losses and lambda_max are those of all samples.

    Args:
        count: Cells in the pack.
    """
    from runner.layers import BLOCK_BYTES
    from runner.numerics.lanczos import KEPT_NUMBERS

    width = 8 if cell.precision == "float64" else 4
    measures = scheduled(json.loads(cell.settings).get("measure", {}))
    # In float64 as they were made, and as the cells see them.
    data = (8 + width) * shape.inputs * (shape.train_size + shape.test_size + shape.probe_size)
    samples = max(shape.train_size, shape.test_size)
    passes = (_SEARCHED if shape.searched else _PASSED) * samples * (shape.inputs + shape.activations)
    searches = [shape.train_size * shape.outputs] if shape.searched else []
    searches += [shape.parameters] if "sharpness" in measures else []
    vectors = _VECTORS * max((size for size in searches if size <= KEPT_NUMBERS), default=0)
    sizes = _sizes(shape, count, width)
    costs = [measure.declared.price(sizes, measure.options) for measure in measures.values()]
    flowing = shape.evaluations > 1 or any(cost.step for cost in costs)
    weights = _WEIGHTS + _FLOWING * flowing + _ARRANGED * shape.compiled
    batch = _ROOMS * width * (cell.batch_size or shape.train_size) * (shape.inputs + shape.activations)
    rooms = shape.compiled * min(batch, BLOCK_BYTES + width * shape.parameters)
    kept = weights * shape.parameters + _KEPT * shape.probe_size * shape.activations
    works = [work for cost in costs for part in (cost.init, cost.point) for work in part.values()]
    return int(data + rooms + count * width * kept + max(count * width * (passes + vectors), *works, 0.0))


def _sizes(shape: PackShape, count: int, width: int) -> Sizes:
    """What measures price their work by, in bytes instead of seconds: kernels on their way and whole."""
    from runner.layers import kernel_bytes

    def gathered(samples: int, size: int) -> float:
        factors = float(_FACTORS) * size * count * samples * shape.outputs * shape.activations
        return min(kernel_bytes(), factors)

    return Sizes(
        shape.train_size, shape.test_size, shape.probe_size, shape.outputs, shape.positions, 0.0,
        lambda samples, columns: gathered(samples, width) + float(width) * count * samples * columns,
        lambda pairs: gathered(shape.train_size, 8) + 8.0 * count * (shape.train_size * pairs) ** 2,
        lambda rows: 8.0 * _DECOMPOSED * count * rows**2,
    )  # fmt: skip
