"""Limits of infinite width that cells are measured against: solved before the first of these cells trains."""

from collections.abc import Callable, Sequence
from pathlib import Path

from runner.launching.progress import Progress
from runner.planning.packs import Pack
from runner.preemption import Stopped


def solve_limits(packs: Sequence[Pack], store: Path, progress: Progress, stop: Callable[[], object]) -> None:
    """Solve what some packs need and the store lacks, with all cores.

    Args:
        progress: Told how far it is, and what of a limit was not reached.
        stop: Says whether to stop.

    Raises:
        Stopped: Soon after ``stop()`` is true; replicas that were finished are kept.
    """
    named = [pack for pack in packs if '"limit_distance"' in pack.cells[0].settings]
    if not named:
        return
    import torch

    from runner.measures.infinite_width import wanted_limit
    from runner.numerics.threads import threads
    from runner.store.limits import stored_limit

    wanted = {}
    for pack in named:
        for cell in pack.cells:
            if (asked := wanted_limit(cell)) is not None:
                wanted[asked[0].key()] = asked
    for place, (problem, sampling) in enumerate(wanted.values(), 1):
        of = f"{problem.activation}, depth {problem.depth}, gamma {problem.gamma:g}"
        what = f"limit {place}/{len(wanted)}: {of}"
        last = problem.steps[-1]

        def before_step(replica: int, step: int, what: str = what, last: int = last) -> None:
            if stop():
                raise Stopped
            progress.preparing(f"{what}, sample {replica + 1}, step {step}/{last}")

        # Of linear networks matrices are small: a second thread would wait at barriers.
        with threads(1 if problem.exact else torch.get_num_threads()):
            limit = stored_limit(store, problem, sampling, before_step)
        if trouble := limit.unreached(sampling):
            progress.note(f"note: limit of {of}: {trouble}")
    progress.preparing("")
