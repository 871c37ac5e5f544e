"""Derived slopes against trained networks of random tables: a minute, so a file of its own."""

import random
from dataclasses import replace

import pandas as pd
import pytest
import torch
from cells import make_cell
from synthetic import frames, grid

from runner.analysis.beside import SMALL, why_off
from runner.analysis.exponents import fit
from runner.analysis.theory import predicted_slope
from runner.grid.cell import canonical_json
from runner.scaling.derivation import derive, network
from runner.training.train import train_pack

TABLES = 10
WIDTHS = (128, 512, 2048)
SEEDS = (0, 1)
TOLERANCE = 0.15
METRICS = ("ntk_change", "feature_movement")
MEASURE = {"points": 2, "functions": {name: {"_target_": f"runner.measures.{name}"} for name in METRICS}}


def random_tables():
    """Stable tables in quarters, with activations of order one, each shifted along the symmetry."""
    rng = random.Random(0)

    def quarters(low, high):
        return rng.randrange(round(4 * low), round(4 * high) + 1) / 4

    found = []
    while len(found) < TABLES:
        roles = ("input", "hidden", "output")
        a = {"input": 0.0, "hidden": 0.5, "output": 0.5 + quarters(0, 0.5)}
        b, rates = dict.fromkeys(roles, 0.0), {role: quarters(-1, 1) for role in roles}
        plain = canonical_json([a, rates])
        for role in roles:
            shift = quarters(-0.5, 0.5)
            a[role], b[role], rates[role] = a[role] + shift, b[role] - shift, rates[role] - 2 * shift
        table = {"a": a, "b": b, "c": {"sgd": rates}}
        sizes = derive(network(table, 2, homogeneous=False))
        if max(sizes.feature_change) <= 0 and sizes.critical <= sizes.lambda_max:
            found.append((plain, canonical_json(table)))
    return found


def measured(exponents):
    """What :func:`fit` says of the changes of kernel and last features of networks trained with a table."""
    rows = []
    for width in WIDTHS:
        cells = [
            replace(
                make_cell(
                    width=width, seed=seed, lr=0.2, steps=10, dtype="float32", center_output=True,
                    data={"dim": 10, "probe_size": 32}, measure=MEASURE,
                ),
                exponents=exponents,
            )
            for seed in SEEDS
        ]  # fmt: skip
        trained = train_pack(cells, torch.device("cpu")).cells
        rows += [{**cell.row(), **row} for cell, row in zip(cells, trained, strict=True)]
    cells, trace, layers = frames(grid(width=WIDTHS, seed=SEEDS))
    cells = pd.DataFrame(rows).assign(
        cell_id=cells["cell_id"], **{"model.activation": "tanh", "model.bias": False}
    )
    return fit(cells, trace, layers, METRICS, facets=())


@pytest.mark.slow
def test_random_tables():
    """At fixed lr * lambda_max slopes are theory's where changes are small, and where not, it is said.

    A change of order one saturates, and at these widths terms that fall a little faster are still of the size
    of those that theory keeps.
    """
    near, shifted = 0, {}
    for plain, exponents in random_tables():
        # Tables that differ by the symmetry are the same networks: trained once.
        rows = shifted.setdefault(plain, measured(exponents) if plain not in shifted else None)
        cell = {"exponents": exponents, "depth": 2, "optimizer": "sgd", "lr_unit": "sharpness"}
        kernel, features = (row for _, row in rows.iterrows())
        for row in (kernel, features):
            theory = predicted_slope(row["metric"], None, cell | {"model.activation": "tanh"})
            assert row["theory"] == pytest.approx(theory, abs=1e-9), exponents
        off = [abs(row["slope"] - row["theory"]) for row in (kernel, features)]
        near += max(off) < TOLERANCE
        if kernel["largest"] < SMALL:
            assert max(off) < TOLERANCE, (exponents, rows)
        elif off[0] >= TOLERANCE:
            assert "theory's slope is that of small changes" in why_off(kernel), (exponents, rows)
    assert near >= TABLES // 2, near
