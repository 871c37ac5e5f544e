"""The claims about lazy and feature-learning training, and the rules that judge them from tables alone."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from runner.analysis.claims import infinite, kernel, rates, regimes, tasks, width
from runner.analysis.claims.verdict import Check, Claim, headline, verdict_of
from runner.errors import unknown

WIDTH, LIMIT, RICHNESS = "claim_width", "claim_limit", "claim_richness"
KERNEL, TASKS = "claim_kernel", "claim_tasks"
CLAIMS: tuple[Claim, ...] = (
    Claim("C1", "Lazy: parameters stay close to their start", (WIDTH,), width.lazy_parameters),
    Claim("C2", "Lazy: the output is its linear expansion", (WIDTH,), width.linear_in_parameters),
    Claim("C3", "Lazy: training is fixed-kernel regression", (KERNEL,), kernel.fixed_kernel),
    Claim("C4", "The wide kernel has a limit and keeps it", (LIMIT, WIDTH), width.deterministic_kernel),
    Claim("C5", "lambda_min > 0 gives a rate of convergence", (KERNEL,), kernel.convergence_rate),
    Claim("C6", "Rich: kernel, features move at every width", (WIDTH,), width.features_move),
    Claim("C7", "Wide ntk and sp are lazy, wide mup is rich", (WIDTH,), regimes.width_and_scaling),
    Claim("C8", "Larger lr is richer; sp's edge is 1/width", ("claim_edges",), rates.larger_is_richer),
    Claim("C9", "Parameterization decides the limit", (WIDTH, "claim_adam"), width.parameterization_decides),
    Claim("C10", "Short training is lazy, long forms features", (KERNEL,), regimes.time_makes_features),
    Claim("C11", "Features win on structure, lazy does not", (TASKS,), tasks.features_win),
    Claim("C12", "The gap to the NTK measures features", (TASKS,), tasks.gap_is_feature_learning),
    Claim("C13", "The first kernel governs early times", (KERNEL,), kernel.early_kernel),
    Claim("C14", "A badly conditioned kernel won't train", ("claim_depth",), tasks.conditioning),
    Claim("C15", "Rich features transfer, lazy ones do not", (TASKS,), tasks.transfer),
    Claim("C16", "Under mup the best lr transfers in width", ("claim_best_lr",), rates.best_lr_transfers),
    Claim("C17", "Width alone does not decide", (WIDTH, RICHNESS), regimes.width_does_not_decide),
    Claim("C18", "Lazy and rich nets go to mean-field limits", ("claim_infinite",), infinite.mean_field),
)
COLUMNS = ("claim", "text", "check", "predicted", "measured", "low", "high", "cells", "verdict", "note")


def choose_claims(ids: Iterable[str]) -> tuple[Claim, ...]:
    """Return the claims of these ids in their own order; all of them if none is named.

    Raises:
        UserError: If there is no such claim.
    """
    wanted = {name.upper() for name in ids}
    known = [claim.id for claim in CLAIMS]
    for name in sorted(wanted):
        if name not in known:
            raise unknown("IDS", name, known)
    return tuple(claim for claim in CLAIMS if not wanted or claim.id in wanted)


def judge(
    claims: Sequence[Claim], read: Mapping[str, Any], more: Sequence[str] = ()
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the verdict on each claim, and every check behind it.

    Args:
        read: What the rules read of each experiment, by its name.
        more: Further columns of a check: ``published``, ``source``.

    Returns:
        One row per claim, showing the check that decided it, and one row per check; both with the columns
        ``claim``, ``text``, ``check``, ``predicted``, ``measured``, ``low``, ``high`` (95 %), ``cells``,
        ``verdict`` and ``note``. A claim holds if all its checks do and fails if one of them does.
    """
    rows, all_checks = [], []
    for claim in claims:
        checks = claim.check(read)
        rows.append(_row(claim, headline(checks), _note(checks)) | {"verdict": verdict_of(checks)})
        all_checks += [_row(claim, check, check.note) for check in checks]
    numbers = dict.fromkeys(("measured", "low", "high"), "float64")
    names = [*COLUMNS[:-1], *more, COLUMNS[-1]]
    table, behind = (pd.DataFrame(part, columns=names).astype(numbers) for part in (rows, all_checks))
    return table, behind


def _row(claim: Claim, check: Check, note: str) -> dict[str, object]:
    return asdict(check) | {"claim": claim.id, "text": claim.text, "check": check.name, "note": note}


def _note(checks: Sequence[Check]) -> str:
    """Return how many checks held, and the reason of the one that is shown."""
    held = sum(check.verdict == "holds" for check in checks)
    why = headline(checks).note
    return f"{held} of {len(checks)} checks hold" + (f"; {why}" if why else "")
