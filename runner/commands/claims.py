"""``runner claims``: train what is missing, judge the claims, print and write the table.

Each experiment is an ordinary sweep into a store of its own: `runner status`, `phase` and `fit` read it,
and the same command again trains only what is missing.
"""

import argparse
import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from runner.analysis.claims import choose_claims, judge
from runner.analysis.columns import plain, records
from runner.analysis.estimate import Tables
from runner.analysis.regime_table import regime_table
from runner.commands.command import Command
from runner.commands.options import Parser, add_json
from runner.commands.quiet import train
from runner.errors import UserError
from runner.store import load
from runner.views.claims import claims_markdown, claims_table
from runner.views.terminal import console

OUT = Path("outputs/claims")
QUICK: Mapping[str, tuple[str, ...]] = {
    "claim_limit": ("seed=range(8)",),
    "claim_width": ("seed=range(3)",),
    "claim_adam": ("seed=range(3)", "width=64,128,256,512"),
    "claim_kernel": ("seed=range(2)", "width=64,128,256,512"),
    "claim_edges": ("seed=range(2)", "lr=logspace(-3,0,16)"),
    "claim_best_lr": ("seed=range(4)",),
    "claim_richness": ("seed=range(4)", "width=64,256,1024"),
    "claim_tasks": ("seed=range(2)",),
    "claim_depth": ("seed=range(2)", "depth=1,4,8"),
}
"""The smaller grid of each experiment: axes laid over its own."""


def run(options: argparse.Namespace) -> int:
    """Run ``runner claims`` and return the exit code: 0 if every cell has a result, 1 if some failed.

    Raises:
        UserError: If there is no such claim, or an experiment cannot be run at all.
    """
    claims = choose_claims(options.ids)
    began = time.monotonic()
    frames, seconds, code = {}, {}, 0
    for name in dict.fromkeys(name for claim in claims for name in claim.experiments):
        start = time.monotonic()
        code = max(code, sweep(name, options.out / name, options.quick))
        frames[name] = tables_of(options.out / name)
        seconds[name] = time.monotonic() - start
    table, checks = judge(claims, frames)
    command = " ".join(["runner claims", *options.ids, *(["--quick"] if options.quick else [])])
    took = time.monotonic() - began
    table.to_parquet(options.out / "claims.parquet", index=False)
    checks.to_parquet(options.out / "checks.parquet", index=False)
    text = claims_markdown(table, checks, side_by_side(frames), command)
    (options.out / "claims.md").write_text(text, encoding="utf-8")
    if options.json:
        rows = [{key: plain(value) for key, value in row.items()} for row in records(table)]
        print(json.dumps({"command": command, "seconds": seconds, "rows": rows}, indent=1))
        return code
    out = console()
    out.print(claims_table(table, out.width))
    words = ", ".join(
        f"{int((table['verdict'] == word).sum())} {word}" for word in ("holds", "fails", "inconclusive")
    )
    print(f"{len(table)} claims: {words}; {took:.0f} s")
    print(f"tables  {options.out / 'claims.md'}, claims.parquet, checks.parquet (every check)")
    return code


def sweep(experiment: str, store: Path, quick: bool) -> int:
    """Train what is missing of an experiment; what the sweep would print of its diagram goes to a log.

    Raises:
        UserError: If the sweep could not begin.
    """
    code = train(
        [f"+experiment={experiment}", *(QUICK.get(experiment, ()) if quick else ())], store, experiment
    )
    if code == 2:
        raise UserError(f"experiment must run, got an error from +experiment={experiment} (above)")
    return code


def tables_of(store: Path) -> Tables:
    """Return the tables of the newest launch of a store: a smaller grid is not judged with a larger one's."""
    opened = load(store)
    ids = set(opened.launch_cells())
    return Tables(
        *(frame[frame["cell_id"].isin(ids)] for frame in (opened.cells, opened.trace, opened.layers))
    )


def side_by_side(frames: Mapping[str, Tables]) -> Any:
    """Return lazy and rich cells beside each other, from the experiment on tasks; None without it."""
    return regime_table(frames["claim_tasks"]) if "claim_tasks" in frames else None


def _options(parser: Parser) -> None:
    parser.add_argument("ids", nargs="*", type=_ids, action=_Flat, metavar="IDS", help="C1 to C17 (all)")
    parser.add_argument("--quick", action="store_true", help="smaller grids: under 5 minutes on two cores")
    add_json(parser)
    parser.add_argument("--out", type=Path, default=OUT, metavar="DIR", help=f"folder of the results ({OUT})")


class _Flat(argparse.Action):
    """Gathers ids separated by spaces or commas."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Set the ids, each once."""
        namespace.ids = tuple(dict.fromkeys(name for part in values for name in part))


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
