"""Limits of infinite width that cells are measured against: solved before the first of these cells trains."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from runner.planning.packs import Pack
from runner.preemption import Stopped

_log = logging.getLogger(__name__)


def solve_limits(
    packs: Sequence[Pack], store: Path, say: Callable[[str], None], stop: Callable[[], object]
) -> None:
    """Solve what some packs need and the store lacks, with all cores.

    Args:
        say: Told how far it is; an empty text at the end.
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

        def progress(replica: int, step: int, what: str = what, last: int = last) -> None:
            if stop():
                raise Stopped
            say(f"{what}, sample {replica + 1}, step {step}/{last}")

        # Of linear networks matrices are small: a second thread would wait at barriers.
        with threads(1 if problem.exact else torch.get_num_threads()):
            limit = stored_limit(store, problem, sampling, progress)
        if trouble := limit.unreached(sampling):
            _log.warning(
                "limit of %s: %s; raise units or replicas of measure.functions.limit_distance", of, trouble
            )
    say("")
