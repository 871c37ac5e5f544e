"""What training costs, in seconds of one thread: from the sizes of a cell and the speeds of a machine.

Only what a cell is made of is counted: dispatched operations, matrix products, passes over memory. The few
constants are shares and counts that hold on every machine; its speeds are measured by
`runner.planning.machine`.
"""

from __future__ import annotations

import json
from typing import Protocol, runtime_checkable

import numpy as np

from runner.grid.cell import Cell
from runner.planning.machine import Machine

MAX_CELLS = 512

_PACK_SECONDS = 0.05  # of data, regimes and three files that have reached the disk
_STEP_CALLS = 15  # operations of a step, per weight matrix
_STEP_PASSES = 12  # over weights and activations in a step, beside the products
_STEP_SHARE = 0.9  # of the speed of square products, that a step's own reach
_SEARCH_STEPS = {"lambda_max": 13, "sharpness": 22}  # steps of training that a top eigenvalue is worth
_DESCENT_STEPS = 40  # steps that a Krylov space of the kernel at init is worth
_INIT_STEPS = 15  # steps that other measures at init are worth: spectral norms of random matrices, kernels
_SPECTRUM = 2.1  # n^3 float64 operations, at the speed of products, that all eigenvalues are worth
_RIDGE = 4  # such sets of eigenvalues that a ridge regression is worth
_PROBED = ("ntk_change", "kernel_distance", "cka", "target_alignment")  # share a kernel on probes
_ONCE = ("kernel_gd_error", "ntk_gain")  # what is dear in them is done at init
_INIT_CALLS = 5_000  # operations before the first step
_POINT_CALLS = 1_500  # operations at a measured step
_KERNEL_SHARE = 0.9  # of the speed of square products, that kernels reach
NEAR_BEST = 1.05
"""A pack is no larger than it takes to come this near to the least seconds per cell: small packs keep every
core busy to the end, and lose less when they are stopped."""


@runtime_checkable
class Shape(Protocol):
    """What the planner asks of ``train.PackShape``."""

    @property
    def parameters(self) -> int:
        """Trainable parameters of a cell."""

    @property
    def train_size(self) -> int:
        """Training samples."""

    @property
    def test_size(self) -> int:
        """Test samples."""

    @property
    def probe_size(self) -> int:
        """Samples that kernels are measured on."""

    @property
    def inputs(self) -> int:
        """Input features."""

    @property
    def outputs(self) -> int:
        """Network outputs."""

    @property
    def activations(self) -> int:
        """Numbers that the layers return for one sample."""

    @property
    def flops_per_step(self) -> float:
        """Floating-point operations of one optimizer step of one cell."""


class Costs:
    """Costs of packs of cells of one shape.

    Args:
        cell: One of the cells.
        shape: Its sizes.
        machine: Where it trains.

    Attributes:
        cell_bytes: Working set of a cell: its weights and one batch of activations.
        cache_bytes: What the caches hold, or may be taken of a GPU's memory.
    """

    def __init__(self, cell: Cell, shape: Shape, machine: Machine) -> None:
        self._machine, self._steps = machine, cell.steps
        self.cache_bytes = machine.cache_bytes
        batch = min(cell.batch_size or shape.train_size, shape.train_size)
        width = 8 if cell.dtype == "float64" else 4
        flops_per_second = machine.rate(cell.width, cell.dtype)
        products = shape.flops_per_step / flops_per_second
        self.cell_bytes = width * (shape.parameters + batch * (shape.inputs + shape.activations))
        self._step_call = _STEP_CALLS * (cell.depth + 1) * machine.call
        self._step_products = products / _STEP_SHARE
        on_all = products * shape.train_size / max(batch, 1)
        due, self._points, full = _due(cell)
        train, outputs = shape.train_size, shape.outputs
        pulled = shape.flops_per_step / (3 * max(batch, 1)) * outputs
        double = machine.rate(cell.width, "float64") / flops_per_second

        def kernel(samples: int, columns: int, pairs: float = 1.0) -> float:
            paired = 2.0 * pairs * samples * columns * outputs * shape.activations
            return (samples * pulled + paired) / flops_per_second / _KERNEL_SHARE

        def decomposed(rows: int) -> float:
            return _SPECTRUM * float(rows) ** 3 / machine.rate(rows, "float64")

        ridge = _RIDGE * decomposed(train)
        regression = kernel(train + shape.test_size, train) + ridge
        each = {name: steps * on_all for name, steps in _SEARCH_STEPS.items()} | {
            "spectrum": kernel(train, train, (outputs if full else 1) / double)
            + decomposed(train * (outputs if full else 1)),
            "kernel_regression": regression,
            "ntk_gain": regression if "kernel_regression" not in due else 0.0,
            "kernel_gd_error": _DESCENT_STEPS * on_all * (1 + shape.probe_size / train),
            "transfer_gain": ridge,
        }
        self._init = _INIT_STEPS * on_all + sum(each.get(name, 0.0) for name in {"lambda_max", *due})
        probed = max((due.get(name, 0) for name in _PROBED), default=0)
        self._measures = (
            probed * kernel(shape.probe_size, shape.probe_size)
            + self._points * on_all
            + sum(due.get(name, 0) * seconds for name, seconds in each.items() if name not in _ONCE)
        )

    def seconds(self, counts: np.ndarray | int, starts: np.ndarray | int = 1) -> np.ndarray:
        """Return the seconds that packs take.

        Args:
            counts: Cells of each pack.
            starts: Different inits in each: cells that start alike share the work at init.
        """
        size = np.multiply(counts, self.cell_bytes)
        bandwidth = np.where(size <= self._machine.cache_bytes, self._machine.cached, self._machine.uncached)
        step = self._step_call + counts * self._step_products + _STEP_PASSES * size / bandwidth
        calls = (_INIT_CALLS + _POINT_CALLS * self._points) * self._machine.call
        return np.asarray(
            _PACK_SECONDS + calls + starts * self._init + self._steps * step + counts * self._measures
        )

    def pack_limit(self) -> int:
        """Return how many cells fit in a pack.

        The working set of a pack, its weights and one batch of activations, is to stay in the caches, or in
        a GPU's memory; within them, see `NEAR_BEST`.
        """
        fitting = max(1, min(MAX_CELLS, self._machine.cache_bytes // max(self.cell_bytes, 1)))
        counts = np.arange(1, fitting + 1)
        each = self.seconds(counts) / counts
        return int(counts[np.argmax(each <= NEAR_BEST * each.min())])


def _due(cell: Cell) -> tuple[dict[str, int], int, bool]:
    """Return how often each measure is taken after init, the measured steps, and whether spectra are full."""
    section = json.loads(cell.settings).get("measure", {})
    points = min(section.get("points", 12), cell.steps + 1)
    times = {"every": points - 1, "ends": 1, "init": 0}
    functions = (section.get("functions") or {}).values()
    by_name = {str(f.get("_target_")).rpartition(".")[2]: f for f in functions}
    due = {name: times.get(f.get("at", "every"), 0) for name, f in by_name.items()}
    return due, points, by_name.get("spectrum", {}).get("kernel", "full") == "full"
