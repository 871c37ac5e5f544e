"""``runner reproduce``: train what is missing, set published numbers beside measured ones, draw figures."""

import argparse
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from runner.commands.command import Command
from runner.commands.options import Parser
from runner.commands.trial import Flat, Trial, add_trial_options
from runner.errors import UserError
from runner.literature import Paper, as_claim, choose_papers
from runner.literature.markdown import literature_markdown
from runner.store import Store, load
from runner.views.pictures import picture_of

OUT = Path("outputs/reproduce")


def run(options: argparse.Namespace) -> int:
    """Run ``runner reproduce`` and return the exit code: 0 if every cell has a result, 1 if some failed.

    Raises:
        UserError: If there is no such paper, or an experiment cannot be run at all.
    """
    if options.config_dir and not (options.config_dir / "experiment").is_dir():
        raise UserError(f"--config-dir must hold a folder experiment, got {options.config_dir}")
    keys = [word for word in options.names if "=" in word]
    chosen = choose_papers(tuple(word for word in options.names if "=" not in word), options.config_dir)
    trial = Trial(
        "reproduce", "papers", load, partial(_markdown, chosen, options.out), ("published", "source"),
        options.config_dir,
    )  # fmt: skip
    return trial.run([as_claim(paper) for paper in chosen], options, options.names, keys)


def _markdown(
    papers: Sequence[Paper], out: Path, table: pd.DataFrame, checks: pd.DataFrame,
    stores: Mapping[str, Store], command: str,
) -> str:  # fmt: skip
    """Draw the figure of each paper and return the verdicts, with every number behind them."""
    drawn = {paper.name: _draw(paper, stores[paper.name], out / f"{paper.name}.svg") for paper in papers}
    return literature_markdown(papers, table, checks, drawn, command)


def _draw(paper: Paper, store: Store, path: Path) -> Path | str:
    """Draw a paper's figure and return where it is, or why there is none."""
    if paper.figure is None:
        return "the experiment names no figure"
    asked = {key: value for key, value in paper.figure.items() if key not in ("from", "inches")}
    try:
        view = picture_of(paper.figure["from"]).make(store, **asked)
        view.save(path, float(paper.figure.get("inches", 6.75)))
    except UserError as error:
        return str(error)
    return path


def _options(parser: Parser) -> None:
    parser.add_argument(
        "names", nargs="*", type=_names, action=Flat, metavar="NAMES",
        help="papers (all); KEY=VALUE changes every experiment, data=cifar10 for one",
    )  # fmt: skip
    add_trial_options(parser, OUT, "under 15 minutes")
    parser.add_argument(
        "--config-dir", type=Path, metavar="FOLDER", help="look for experiments in a folder of yours, too"
    )


def _names(text: str) -> tuple[str, ...]:
    return (text,) if "=" in text else tuple(part.strip() for part in text.split(",") if part.strip())


COMMAND = Command(
    "reproduce",
    "Put published figures to the test: each paper an experiment, its numbers and a verdict. Trains what is "
    f"missing into {OUT}; tables and a figure for each go there, too.",
    (
        "runner reproduce --quick",
        "runner reproduce luo2021 cohen2021",
        "runner reproduce kalra2023 data=cifar10",
    ),
    _options,
    run,
)
