"""``runner claims``: train what is missing, judge the claims, print and write the table."""

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from runner.analysis.claims import choose_claims
from runner.analysis.estimate import Tables
from runner.analysis.regime_table import regime_table
from runner.commands.command import Command
from runner.commands.options import Parser
from runner.commands.trial import Flat, Trial, add_trial_options
from runner.store import load
from runner.views.claims import claims_markdown

OUT = Path("outputs/claims")


def run(options: argparse.Namespace) -> int:
    """Run ``runner claims`` and return the exit code: 0 if every cell has a result, 1 if some failed.

    Raises:
        UserError: If there is no such claim, or an experiment cannot be run at all.
    """
    trial = Trial("claims", "claims", tables_of, _markdown)
    return trial.run(choose_claims(options.ids), options, options.ids)


def tables_of(store: Path) -> Tables:
    """Return the tables of the newest launch of a store: a smaller grid is not judged with a larger one's."""
    opened = load(store)
    ids = set(opened.launch_cells())
    return Tables(
        *(frame[frame["cell_id"].isin(ids)] for frame in (opened.cells, opened.trace, opened.layers))
    )


def _markdown(table: pd.DataFrame, checks: pd.DataFrame, frames: Mapping[str, Tables], command: str) -> str:
    """Return the verdicts and, from the experiment on tasks, lazy and rich cells beside each other."""
    beside = regime_table(frames["claim_tasks"]) if "claim_tasks" in frames else None
    return claims_markdown(table, checks, beside, command)


def _options(parser: Parser) -> None:
    parser.add_argument("ids", nargs="*", type=_ids, action=Flat, metavar="IDS", help="C1 to C18 (all)")
    add_trial_options(parser, OUT, "under 5 minutes")


def _ids(text: str) -> Iterable[str]:
    return tuple(part.strip().upper() for part in text.split(",") if part.strip())


COMMAND = Command(
    "claims",
    "Put the theory to the test: each claim an experiment, a rule and a verdict. Trains what is missing "
    f"into {OUT}; the table goes there as Markdown and Parquet, too.",
    ("runner claims --quick", "runner claims C8 C16", "runner claims C1,C6 --quick --json"),
    _options,
    run,
)
