"""A GPU: recorded steps, wide nets against the machine's own matmul, and the CPU beside it."""

from __future__ import annotations

from collections.abc import Callable

import torch

from benchmark.grids import planned
from benchmark.lines import Family, at_least
from benchmark.timing import alternate, ratios
from benchmark.training import flops, net, run_of
from runner.training.descent import descent_of
from runner.training.run import Run

NARROW, WIDE = (32, 256), (2048, 4096)
_STEPS = 50


def measure(quick: bool) -> Family:
    """Return the family's lines; none without a GPU."""
    family = Family("cuda")
    if not torch.cuda.is_available():
        family.skipped = "there is no CUDA device here"
        return family
    repeats = 2 if quick else 5
    for width in NARROW:
        eager, graphed = (_run(width, graphed=graphed) for graphed in (False, True))
        found = alternate({"eager": steps(eager), "graphed": steps(graphed)}, repeats)
        family.add(
            f"recorded step over eager, width {width}", "ratio", ratios(found["eager"], found["graphed"]),
            at_least(5), f"{len(graphed.active)} cells",
        )  # fmt: skip
        on_cpu = run_of([*graphed.ensemble.cells])
        found = alternate({"cpu": steps(on_cpu), "gpu": steps(graphed)}, repeats)
        family.add(f"step over the CPU's, width {width}", "ratio", ratios(found["cpu"], found["gpu"]))
    for width in WIDE:
        run = _run(width, graphed=True)
        found = alternate({"step": steps(run), "matmul": lambda w=width: _matmul(w)}, repeats)  # type: ignore[misc]
        rates = [_STEPS * len(run.active) * flops(width) / seconds for seconds in found["step"]]
        most = [_STEPS * 2 * width**3 / seconds for seconds in found["matmul"]]
        family.add(
            f"step over matmul, width {width}", "ratio", [a / b for a, b in zip(rates, most, strict=True)],
            at_least(0.6), "6PB count; float32 without TF32",
        )  # fmt: skip
    return family


def _run(width: int, *, graphed: bool) -> Run:
    run = run_of(planned(net(width), "cuda"), "cuda")
    run.descent = descent_of(run.start, run.optimizer, graphed=graphed)
    return run


def steps(run: Run) -> Callable[[], None]:
    """Return what takes some steps and waits for the last."""

    def take() -> None:
        for step in range(_STEPS):
            run.advance(step)
        if run.ensemble.device.type == "cuda":
            torch.cuda.synchronize()

    return take


def _matmul(size: int) -> None:
    one = torch.ones(size, size, device="cuda")
    for _ in range(_STEPS):
        one @ one
    torch.cuda.synchronize()
