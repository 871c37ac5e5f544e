"""What training costs, in seconds of one thread: from the sizes of a cell and the speeds of a machine.

Only what a cell is made of is counted: dispatched operations, matrix products, passes over memory. The few
constants are shares and counts that hold on every machine; its speeds are measured by
`runner.planning.machine`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from runner.grid.cell import Cell
from runner.measures.catalog import BY_NAME
from runner.measures.declaration import Sizes
from runner.measures.schedule import measuring_steps, scheduled
from runner.planning.machine import Machine

if TYPE_CHECKING:
    from runner.training.preflight import PackShape

MAX_CELLS = 512

_PACK_SECONDS = 0.05  # of data, regimes and three files that have reached the disk
_STEP_SHARE = 0.9  # of the speed of square products, that a step's own reach
_INIT_STEPS = 15  # steps that what all cells do at init is worth: spectral norms, kernels
_OUTPUT_STEPS = 1  # that outputs on all samples are worth, where no lambda_max is looked for
_DECOMPOSITION = 2.1  # n^3 float64 operations, at the speed of products, that all eigenvalues are worth
_INIT_CALLS = 5_000  # operations before the first step
_DRAWN_PER_CALL = 100  # numbers of fresh inputs that are drawn while an operation is dispatched
_POINT_CALLS = 1_500  # operations at a measured step
_KERNEL_SHARE = 0.6  # of the speed of square products, that kernels reach: the middle of ten networks
_LEAST_WRAPPED = 8  # cells of a plain torch module in a pack: alone they pay for batching and have none
_AUTOGRAD_BYTES = 64 << 20  # of a pack beyond the caches, where dispatch costs more than memory
NEAR_BEST = 1.05
"""A pack is no larger than it takes to come this near to the least seconds per cell: small packs keep every
core busy to the end, and lose less when they are stopped."""


class Costs:
    """Costs of packs of cells of one shape.

    Attributes:
        cell_bytes: Working set of a cell: its weights and one batch of activations.
        cache_bytes: What the caches hold, or may be taken of a GPU's memory.
    """

    def __init__(self, cell: Cell, shape: PackShape, machine: Machine) -> None:
        self._machine, self._steps = machine, cell.steps
        self._wrapped = shape.wrapped
        self.cache_bytes = machine.cache_bytes
        batch = cell.batch_size or shape.train_size
        width = 8 if cell.precision == "float64" else 4
        flops_per_second = machine.rate(cell.width, cell.precision)
        products = shape.flops_per_step / flops_per_second
        step = shape.flops_per_step / machine.rate(cell.width, cell.precision, compiled=shape.compiled)
        self.cell_bytes = width * (shape.parameters + batch * (shape.inputs + shape.activations))
        self._step_call, self._step_passes = shape.calls * machine.call, shape.passes
        # Autograd's elementwise operations are no faster inside the caches: they compute more than they move.
        passes = width * batch * shape.written / machine.uncached
        stretch = 1 + passes / products if products else 1.0
        self._autograd = shape.written > 0 and not shape.compiled
        self._passed_bytes = width * shape.parameters if self._autograd else self.cell_bytes
        if shape.compiled:  # updates of weights are part of products
            self._passed_bytes = width * batch * shape.activations
        self._step_products = (step + shape.optimizer_flops / flops_per_second) / _STEP_SHARE
        self._step_products += passes * self._autograd
        self._evaluations = shape.evaluations
        self._step_start = 0.0
        if json.loads(cell.settings).get("data", {}).get("online"):
            # Drawn once for each seed; what is subtracted of f is a forward pass for each start.
            self._step_start = batch * shape.inputs / _DRAWN_PER_CALL * machine.call
            self._step_start += products / _STEP_SHARE / 3 * cell.center_output
        on_all = stretch * products * shape.train_size / max(batch, 1)
        train, outputs = shape.train_size, shape.outputs
        pulled = stretch * shape.flops_per_step / (3 * max(batch, 1)) * outputs
        double = machine.rate(cell.width, "float64") / flops_per_second

        def kernel(samples: int, columns: int, pairs: float = 1.0) -> float:
            paired = 2.0 * pairs * samples * columns * outputs * shape.paired
            return (samples * pulled + paired) / flops_per_second / _KERNEL_SHARE

        def decomposition(rows: int) -> float:
            return _DECOMPOSITION * float(rows) ** 3 / machine.rate(rows, "float64")

        sizes = Sizes(
            train, shape.test_size, shape.probe_size, outputs, shape.positions, on_all, kernel,
            lambda pairs: kernel(train, train, pairs / double), decomposition,
        )  # fmt: skip
        self._points, at_init, after, self._beside = _measures(cell, sizes, shape.searched)
        self._init = (_INIT_STEPS if shape.searched else _OUTPUT_STEPS) * on_all + at_init
        self._measures = self._points * on_all + after

    def seconds(self, counts: np.ndarray | int, starts: np.ndarray | int = 1) -> np.ndarray:
        """Return the seconds that packs take.

        Args:
            starts: Different inits in each: cells that start alike share the work at init, and fresh samples.
        """
        size = np.multiply(counts, self.cell_bytes)
        bandwidth = np.where(size <= self._machine.cache_bytes, self._machine.cached, self._machine.uncached)
        passed = np.multiply(counts, self._passed_bytes) / bandwidth
        step = self._step_call + counts * self._step_products + self._step_passes * passed
        step = self._evaluations * step + starts * self._step_start + counts * self._beside
        calls = (_INIT_CALLS + _POINT_CALLS * self._points) * self._machine.call
        return np.asarray(
            _PACK_SECONDS + calls + starts * self._init + self._steps * step + counts * self._measures
        )

    def pack_limit(self) -> int:
        """Return how many cells fit in a pack.

        The working set of a pack, its weights and one batch of activations, is to stay in the caches, or in
        a GPU's memory; within them, see `NEAR_BEST`. With autograd, some are packed beyond the caches.
        """
        room = max(self.cache_bytes, _AUTOGRAD_BYTES) if self._autograd else self.cache_bytes
        fitting = max(1, min(MAX_CELLS, room // max(self.cell_bytes, 1)))
        counts = np.arange(1, fitting + 1)
        each = self.seconds(counts) / counts
        best = int(counts[np.argmax(each <= NEAR_BEST * each.min())])
        if not self._wrapped:
            return best
        return max(best, min(_LEAST_WRAPPED, _AUTOGRAD_BYTES // max(self.cell_bytes, 1)))


def measured_points(cell: Cell) -> int:
    """Return how many steps of a cell are measured."""
    return len(measuring_steps(cell.steps, json.loads(cell.settings).get("measure", {})))


def kept_outputs(cell: Cell, shape: PackShape) -> int:
    """Return how many rows a cell gets in the table of outputs."""
    measures = scheduled(json.loads(cell.settings).get("measure", {})).values()
    count = measured_points(cell)
    return sum(
        measure.declared.rows(shape, measure.options) * (1 + measure.times(count))
        for measure in measures
        if measure.declared.rows
    )


def _measures(cell: Cell, sizes: Sizes, searched: bool) -> tuple[int, float, float, float]:
    """Return the measured steps and the seconds of measures at init, after it and at every step.

    Shared work counts once.

    Args:
        searched: Whether lambda_max is looked for at init, measured or not.
    """
    section = json.loads(cell.settings).get("measure", {})
    count = measured_points(cell)
    init = dict(BY_NAME["lambda_max"].price(sizes, {}).init) if searched else {}
    times: dict[str, int] = {}
    each: dict[str, float] = {}
    steps: dict[str, float] = {}
    for measure in scheduled(section).values():
        cost = measure.declared.price(sizes, measure.options)
        init |= cost.init
        each |= cost.point
        steps |= cost.step if measure.times(count) else {}
        for work in cost.point:
            times[work] = max(times.get(work, 0), measure.times(count))
    after = sum(times[work] * seconds for work, seconds in each.items())
    return count, sum(init.values()), after, sum(steps.values())
