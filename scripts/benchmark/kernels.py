"""The tangent kernel: against torch.func's Jacobian contraction, and against the prototypes' milliseconds."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

from benchmark.grids import cell, seeds
from benchmark.lines import Family, at_least, at_most
from benchmark.machine import gigaflops, peak_mib, square_product
from benchmark.timing import alternate, ratios
from runner import data
from runner.grid.cell import Cell
from runner.measures.kernel import empirical_ntk, empirical_ntk_full
from runner.models.ensemble import Ensemble
from runner.numerics.precision import set_cpu_products

OF_TORCH_FUNC = {64: 10.0, 1024: 100.0}
PACKED = {64: 16, 1024: 2}
REFERENCE_MS, REFERENCE_SGEMM = 10.4, 176.0
"""Of one output at 1024x2 with 256 probes, and GFLOP/s of torch's own sgemm, where the targets were set."""
MLP = ("data=digits", "width=256", "depth=2", "data.probe_size=128")
CNN = ("model=cnn", "data=digits")
ONE_OUTPUT = "+data.binary=[[0,1,2,3,4],[5,6,7,8,9]]"
IN_MILLISECONDS: dict[str, tuple[Sequence[str], Callable[..., Tensor], float]] = {
    "MLP 256x2, 10 outputs, 128 probes, full": (MLP, empirical_ntk_full, 20.0),
    "MLP 256x2, 10 outputs, 128 probes, trace": (MLP, empirical_ntk, 5.0),
    "CNN 64x2, 1 output, 128 probes": (
        (*CNN, ONE_OUTPUT, "width=64", "depth=2", "data.probe_size=128"), empirical_ntk, 67 / 1.3,
    ),
    "CNN 128x3, 1 output, 64 probes": (
        (*CNN, ONE_OUTPUT, "width=128", "depth=3", "data.probe_size=64"), empirical_ntk, 155 / 1.3,
    ),
    "CNN 64x2, 10 outputs, 64 probes, full": (
        (*CNN, "width=64", "depth=2", "data.probe_size=64"), empirical_ntk_full, 340 / 1.3,
    ),
}  # fmt: skip


def measure(quick: bool) -> Family:
    """Return the family's lines."""
    family = Family("kernels")
    repeats, at_least_s = (2, 0.05) if quick else (5, 0.2)
    for width, target in OF_TORCH_FUNC.items():
        count = PACKED[width]
        ensemble = ensemble_of(seeds(perceptron(width), count))
        x = ensemble.inputs["probe"]
        found = alternate(
            {
                "ours": as_a_worker(lambda e=ensemble, x=x: empirical_ntk(e.model, e.parameters, x)),  # type: ignore[misc]
                "torch.func": lambda e=ensemble, x=x: jacobian_contraction(e, x[0]),  # type: ignore[misc]
            },
            repeats,
            at_least_s,
        )
        ours = [seconds / count for seconds in found["ours"]]
        family.add(
            f"NTK over torch.func, {width}x2, 256 probes", "ratio", ratios(found["torch.func"], ours),
            at_least(target), f"per cell, {count} in a pack; {statistics.median(ours) * 1e3:.3g} ms",
        )  # fmt: skip
    widest = as_a_worker(lambda: empirical_ntk(ensemble.model, ensemble.parameters, x))
    for name, (overrides, function, limit) in IN_MILLISECONDS.items():
        one = ensemble_of([cell(*overrides)])
        # In turns with the machine's own products, so that a slow kernel does not lower its own targets.
        # Perceptrons are also held to the ratio to their kernel at 1024x2, whatever that gained.
        found = alternate(
            {
                "ours": as_a_worker(lambda f=function, e=one: f(e.model, e.parameters, e.inputs["probe"])),  # type: ignore[misc]
                "sgemm": square_product(),
                **({"1024x2": widest} if overrides is MLP else {}),
            },
            repeats,
            at_least_s,
        )
        scale = REFERENCE_SGEMM / gigaflops(statistics.median(found["sgemm"]))
        if overrides is MLP:
            milliseconds = 1e3 * statistics.median(found["1024x2"]) / count
            scale = min(scale, milliseconds / REFERENCE_MS)
        family.add(
            f"NTK, {name}", "ms", [seconds * 1e3 for seconds in found["ours"]], at_most(limit * scale),
            f"{limit:.3g} ms where sgemm reaches {REFERENCE_SGEMM:.0f} GFLOP/s"
            + (f" and 1024x2 takes {REFERENCE_MS} ms" if overrides is MLP else ""),
        )  # fmt: skip
    _memory(family)
    return family


def as_a_worker(function: Callable[[], object]) -> Callable[[], None]:
    """Return what calls a function with the products that a worker uses, and leaves torch's own behind."""

    def call() -> None:
        set_cpu_products()
        function()
        set_cpu_products(fast=False)

    return call


def perceptron(width: int) -> Cell:
    """Return two hidden layers on 64 inputs, one output, 256 probes."""
    return cell(
        f"width={width}", "depth=2", "data=xor", "data.dim=64", "data.train_size=8", "data.test_size=8",
        "data.probe_size=256",
    )  # fmt: skip


def ensemble_of(cells: Sequence[Cell]) -> Ensemble:
    """Return networks at init."""
    sections = json.loads(cells[0].settings)
    return Ensemble(cells, sections["model"], data.load(sections["data"]), torch.device("cpu"))


def jacobian_contraction(ensemble: Ensemble, x: Tensor) -> Tensor:
    """Return the tangent kernel of the first cell's net as PyTorch's tutorial on it computes it."""
    weights = [parameter[0].detach().mT for parameter in ensemble.parameters.values()]
    parts: list[nn.Module] = []
    for weight in weights:
        parts += [nn.Linear(weight.shape[1], weight.shape[0], bias=False), nn.ReLU()]
    model = nn.Sequential(*parts[:-1])
    parameters = {f"{2 * place}.weight": weight for place, weight in enumerate(weights)}

    def output(parameters: dict[str, Tensor], sample: Tensor) -> Tensor:
        found: Tensor = functional_call(model, parameters, (sample.unsqueeze(0),))
        return found.squeeze(0)

    jacobians = vmap(jacrev(output), (None, 0))(parameters, x)
    return torch.stack(
        [torch.einsum("Naf,Maf->NM", j.flatten(2), j.flatten(2)) for j in jacobians.values()]
    ).sum(0)


_EXACT = {"MALLOC_MMAP_THRESHOLD_": "65536"}
"""Has glibc give free blocks back at once, so that a peak is of what was held."""


def _memory(family: Family) -> None:
    """Peak memory of a kernel within a bound, each in a process of its own."""
    found = {}
    for megabytes in (4096, 64):
        process = subprocess.run(
            [sys.executable, "-m", "benchmark.kernels", str(megabytes)],
            cwd=Path(__file__).parents[1], env=os.environ | _EXACT, stdout=subprocess.PIPE, text=True,
            check=True,
        )  # fmt: skip
        found[megabytes] = json.loads(process.stdout)
    bounded, free = found[64], found[4096]
    family.add(
        "NTK within 64 MiB: memory taken", "MiB", bounded["grown"], at_most(64 + bounded["result"]),
        f"beside the model; {free['grown']:.0f} without it; CNN 64x2, 10 outputs, 128 probes, full",
    )  # fmt: skip
    family.add(
        "NTK within 64 MiB: difference from the kernel at once", "ratio",
        abs(bounded["sum"] - free["sum"]) / abs(free["sum"]), at_most(1e-5), "of the sum of squares, float32",
    )  # fmt: skip


def _grow(megabytes: float) -> dict[str, float]:
    from runner.layers import kernel_memory

    torch.set_num_threads(1)
    ensemble = ensemble_of([cell(*CNN, "width=64", "depth=2", "data.probe_size=128")])
    x = ensemble.inputs["probe"]
    empirical_ntk_full(ensemble.model, ensemble.parameters, x[:, :4])
    before = peak_mib()
    with kernel_memory(megabytes):
        kernel = empirical_ntk_full(ensemble.model, ensemble.parameters, x)
    return {
        "grown": peak_mib() - before,
        "result": kernel.numel() * kernel.element_size() / 2**20,
        "sum": float(kernel.double().square().sum()),
    }


if __name__ == "__main__":
    print(json.dumps(_grow(float(sys.argv[1]))))
