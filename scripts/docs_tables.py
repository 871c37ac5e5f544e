"""Write the tables of measured results that the docs show, from what was measured.

runner sweep +experiment=width_scaling      # outputs/width_scaling
runner claims --quick                       # outputs/claims
runner reproduce                            # outputs/reproduce
python scripts/bench.py                     # outputs/bench.parquet
python scripts/docs_tables.py               # those of them that are there -> docs/results/
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import pandas as pd

import runner
from runner.analysis.columns import records
from runner.analysis.exponents import fit
from runner.analysis.selection import choose, default_facets

OUTPUTS = Path("outputs")
RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"
PICTURES = RESULTS.parent / "pages" / "images" / "papers"
UNITS = ("s", "ms", "MiB", "cells", "steps", "cells x steps/s")
"""Of the benchmark, those that a reader is told."""
DEPTH = 2
PARAMETERIZATIONS = ("ntk", "mup", "sp")
ROWS = (
    ("`lambda_max_init`", "lambda_max_init", None),
    ("`ntk_change`", "ntk_change", None),
    ("`feature_movement`", "feature_movement", None),
    ("`movement_frobenius`, input", "movement_frobenius", "input"),
    ("`movement_frobenius`, hidden", "movement_frobenius", "hidden"),
    ("`movement_frobenius`, output", "movement_frobenius", "output"),
    ("`movement_spectral`, hidden", "movement_spectral", "hidden"),
)


def scaling(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the table of exponents, from the store of ``+experiment=width_scaling``."""
    store = runner.load(path)
    cells = choose(store, [f"depth={DEPTH}"])
    facets = default_facets(store, ("width",))
    fits = fit(cells, store.trace, store.layers, facets=facets)
    fits = fits.set_index(["metric", "role", "model.activation", "parameterization"]).sort_index()
    heads = " | ".join(f"`{name}` | theory" for name in PARAMETERIZATIONS)
    lines = [f"| quantity | activation | {heads} |", "|---" * (2 + 2 * len(PARAMETERIZATIONS)) + "|"]
    for title, metric, role in ROWS:
        for activation in ("tanh", "relu"):
            one_metric = fits.xs(metric)
            by_role = one_metric.xs(role) if role else one_metric.droplevel("role")
            found = [
                _slope_and_theory(by_role.loc[[(activation, name)]].iloc[0]) for name in PARAMETERIZATIONS
            ]
            lines.append(f"| {title if activation == 'tanh' else ''} | {activation} | {' | '.join(found)} |")
    yield "scaling.md", "\n".join(lines) + "\n"


def claims(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the verdicts, and every check with the two regimes side by side, as `runner claims` has them."""
    verdicts, _, rest = (path / "claims.md").read_text("utf-8").partition("\n## ")
    yield "claims.md", verdicts[verdicts.index("\n|") :].strip() + "\n"
    yield "checks.md", f"## {rest.strip()}\n"


def papers(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the verdicts on papers, then each with its numbers and figure, as `runner reproduce` has them."""
    verdicts, _, rest = (path / "reproduce.md").read_text("utf-8").partition("\n## ")
    yield "papers.md", verdicts[verdicts.index("\n|") :].strip() + "\n"
    yield "papers_numbers.md", re.sub(r"\]\((\w+\.svg)\)", r"](../images/papers/\1)", f"## {rest.strip()}\n")
    for figure in sorted(path.glob("*.svg")):
        shutil.copy(figure, PICTURES / figure.name)


def speed(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the table of the benchmark, and that of the rivals in JAX and compiled torch by itself."""
    rows = pd.read_parquet(path)
    against = rows["family"] == "jax"
    for name, chosen in (("speed.md", rows[~against]), ("rivals.md", rows[against])):
        if len(chosen):
            yield name, _lines(chosen)


def _lines(rows: pd.DataFrame) -> str:
    lines = ["| what | target | median (least to most) | holds |", "|---|---|---|---|"]
    for row in records(rows):
        unit = f" {row['unit']}" if row["unit"] in UNITS else ""
        asked = row["target"] if isinstance(row["target"], str) else ""
        target = f"{asked}{unit}".replace(">=", "≥").replace("<=", "≤") if asked else ""
        spread = f" ({_figure(row['low'])} to {_figure(row['high'])})" if row["repeats"] > 1 else ""
        holds = {"pass": "yes", "FAIL": "no"}.get(str(row["verdict"]), "")
        lines.append(f"| {row['what']} | {target} | {_figure(row['figure'])}{unit}{spread} | {holds} |")
    return "\n".join(lines) + "\n"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


SOURCES: dict[str, Callable[[Path], Iterator[tuple[str, str]]]] = {
    "width_scaling": scaling,
    "claims": claims,
    "reproduce": papers,
    "bench.parquet": speed,
}


def main() -> None:
    """Write the tables whose measurements are in ``outputs``."""
    for source, tables in SOURCES.items():
        if not (OUTPUTS / source).exists():
            print(f"{OUTPUTS / source}: not there, its tables stay as they are")
            continue
        for name, text in tables(OUTPUTS / source):
            (RESULTS / name).write_text(text, encoding="utf-8")
            print(RESULTS / name)


def _slope_and_theory(found: pd.Series) -> str:
    theory = "" if pd.isna(found.theory) else str(Fraction(found.theory))
    return f"{found.slope:.2f} [{found.low:.2f}, {found.high:.2f}] | {theory}"


if __name__ == "__main__":
    main()
