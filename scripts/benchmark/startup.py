"""How long it takes until something is on the screen."""

from __future__ import annotations

import tempfile

from benchmark.lines import Family, at_most
from benchmark.timed import runner, timed

TINY = ("sweep", "width=32", "lr=0.1", "steps=20", "name=tiny")


def measure(quick: bool) -> Family:
    """Return the family's lines."""
    family = Family("start-up")
    repeats = 2 if quick else 5
    with tempfile.TemporaryDirectory() as folder:
        timed(runner(*TINY), folder)
        tiny = [timed(runner(*TINY, f"seed={seed}"), folder).wall for seed in range(1, repeats + 1)]
        family.add("runner sweep of one tiny cell", "s", tiny, at_most(4.0), "the whole process")
        for command in (["--help"], ["status"], ["schema"]):
            seconds = [timed(runner(*command), folder).wall for _ in range(repeats)]
            family.add(f"runner {' '.join(command)}", "s", seconds, at_most(0.4), "the whole process")
    return family
