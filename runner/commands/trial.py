"""Statements put to the test: what their experiments lack is trained, then they are judged, printed, written.

Each experiment is an ordinary sweep into a store of its own: `runner status`, `phase` and `fit` read it,
and the same command again trains only what is missing.
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from runner.analysis.claims import judge
from runner.analysis.claims.verdict import Claim
from runner.analysis.columns import plain, records
from runner.commands.options import Parser, add_json
from runner.commands.quiet import train
from runner.errors import UserError
from runner.grid.config import load_experiment, quick_words
from runner.views.claims import claims_table
from runner.views.terminal import console


@dataclass(frozen=True, slots=True)
class Trial:
    """A command that judges statements.

    Attributes:
        name: Of the command and of its files.
        noun: What is judged, in the plural.
        open: From the store of an experiment to what the rules read.
        markdown: From the verdicts, the checks, what was read and the command line to the file for people.
        columns: Of a check, beside those that all have.
        config_dir: A folder of experiments of one's own.
    """

    name: str
    noun: str
    open: Callable[[Path], Any]
    markdown: Callable[[pd.DataFrame, pd.DataFrame, Mapping[str, Any], str], str]
    columns: Sequence[str] = ()
    config_dir: Path | None = None

    def run(
        self,
        claims: Sequence[Claim],
        options: argparse.Namespace,
        words: Sequence[str],
        keys: Sequence[str] = (),
    ) -> int:
        """Train and judge, and return the exit code: 0 if every cell has a result, 1 if some failed.

        Args:
            options: With ``quick``, ``json`` and ``out``.
            words: What follows the command's name, to quote it.
            keys: Overrides of every experiment.

        Raises:
            UserError: If an experiment cannot be run at all.
        """
        began = time.monotonic()
        opened, seconds, code = {}, {}, 0
        for name in dict.fromkeys(name for claim in claims for name in claim.experiments):
            start = time.monotonic()
            code = max(code, self._sweep(name, options.out / name, options.quick, keys))
            opened[name] = self.open(options.out / name)
            seconds[name] = time.monotonic() - start
        table, checks = judge(claims, opened, self.columns)
        command = " ".join([f"runner {self.name}", *words, *(["--quick"] if options.quick else [])])
        table.to_parquet(options.out / f"{self.name}.parquet", index=False)
        checks.to_parquet(options.out / "checks.parquet", index=False)
        text = self.markdown(table, checks, opened, command)
        (options.out / f"{self.name}.md").write_text(text, encoding="utf-8")
        if options.json:
            rows = [{key: plain(value) for key, value in row.items()} for row in records(table)]
            print(json.dumps({"command": command, "seconds": seconds, "rows": rows}, indent=1))
            return code
        out = console()
        out.print(claims_table(table, out.width))
        counts = (
            (word, int((table["verdict"] == word).sum())) for word in ("holds", "fails", "inconclusive")
        )
        said = ", ".join(f"{count} {word}" for word, count in counts)
        noun = self.noun if len(table) != 1 else self.noun[:-1]
        print(f"{len(table)} {noun}: {said}; {time.monotonic() - began:.0f} s")
        print(f"tables  {options.out / self.name}.md, {self.name}.parquet, checks.parquet (every check)")
        return code

    def _sweep(self, experiment: str, store: Path, quick: bool, keys: Sequence[str]) -> int:
        """Train what is missing; what the sweep would print of its diagram goes to a log."""
        smaller = quick_words(load_experiment(experiment, self.config_dir)) if quick else []
        flags = ["--config-dir", str(self.config_dir)] if self.config_dir else []
        code = train([*flags, f"+experiment={experiment}", *smaller, *keys], store, experiment)
        if code == 2:
            raise UserError(f"experiment must run, got an error from +experiment={experiment} (above)")
        return code


def add_trial_options(parser: Parser, out: Path, quick: str) -> None:
    """Add the options of a command that judges.

    Args:
        out: Folder of the results.
        quick: How long the smaller grids take.
    """
    parser.add_argument("--quick", action="store_true", help=f"smaller grids: {quick} on two cores")
    add_json(parser)
    parser.add_argument("--out", type=Path, default=out, metavar="DIR", help=f"folder of the results ({out})")


class Flat(argparse.Action):
    """Gathers words separated by spaces or commas."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Set the words, each once."""
        setattr(namespace, self.dest, tuple(dict.fromkeys(name for part in values for name in part)))
