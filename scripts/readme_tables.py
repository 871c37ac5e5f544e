"""Print the README's table of exponents, from the store of ``runner sweep +experiment=width_scaling``.

usage: python scripts/readme_tables.py [STORE]
"""

from __future__ import annotations

import sys
from fractions import Fraction

import pandas as pd

import runner
from runner.analysis.exponents import fit
from runner.analysis.selection import choose, default_facets

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


def slope_and_theory(found: pd.Series) -> str:
    theory = "" if pd.isna(found.theory) else str(Fraction(found.theory))
    return f"{found.slope:.2f} [{found.low:.2f}, {found.high:.2f}] | {theory}"


def main(path: str) -> None:
    store = runner.load(path)
    cells = choose(store, [f"depth={DEPTH}"])
    facets = default_facets(store, ("width",))
    fits = fit(cells, store.trace, store.layers, facets=facets)
    fits = fits.set_index(["metric", "role", "model.activation", "parameterization"]).sort_index()
    heads = " | ".join(f"`{name}` | theory" for name in PARAMETERIZATIONS)
    print(f"| quantity | activation | {heads} |")
    print("|---" * (2 + 2 * len(PARAMETERIZATIONS)) + "|")
    for title, metric, role in ROWS:
        for activation in ("tanh", "relu"):
            one_metric = fits.xs(metric)
            by_role = one_metric.xs(role) if role else one_metric.droplevel("role")
            found = [
                slope_and_theory(by_role.loc[[(activation, name)]].iloc[0]) for name in PARAMETERIZATIONS
            ]
            print(f"| {title if activation == 'tanh' else ''} | {activation} | {' | '.join(found)} |")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "outputs/width_scaling")
