"""A phase diagram in words: how its boundaries scale."""

from typing import Any

import pandas as pd

from runner.analysis.boundary.places import seed_places, why_absent
from runner.analysis.boundary.properties import property_of
from runner.analysis.boundary.scaling import exponents
from runner.analysis.broken import LEAST
from runner.analysis.columns import groups, numeric_column, plain, records
from runner.analysis.phase import Axes, is_log
from runner.analysis.selection import facet_label
from runner.errors import UserError
from runner.store import Store
from runner.views.laws import law_words

_RATES = ("lr", "lr_absolute", "lr_sharpness")


def boundary_words(store: Store, cells: pd.DataFrame, axes: Axes) -> list[str]:
    """Return, per facet of a diagram, how its edge of divergence and its lazy-rich crossover scale, in words.

    One straight line each, with interval and theory; none where the diagram is not over a learning rate or
    the richness, and why not where its grid cannot tell.

    Args:
        axes: Of the diagram: x is what they scale with.
    """
    if axes.y not in (*_RATES, "gamma") or axes.color != "regime":
        return []
    log = all(is_log(numeric_column(cells, key, "").dropna().to_numpy(), key) for key in (axes.x, axes.y))
    if not log or cells[axes.x].nunique() < LEAST:
        return []
    found: dict[tuple[Any, ...], list[str]] = {}
    for of, text in (("diverged", "diverges from"), ("lazy_rich", "rich from")):
        if of == "diverged" and axes.y not in _RATES:
            continue
        try:
            what = property_of(store, cells, of)
            seeds = seed_places(cells, what, axes.y, [axes.x, *axes.facets])
        except UserError:
            continue
        laws = exponents(seeds, cells, of, axes.y, axes.x, axes.facets, most=1)
        laws = laws[laws["change"] == "begins"]
        of_facet = dict(groups(laws, [laws[facet] for facet in axes.facets]))
        for values, part in groups(seeds, [seeds[facet] for facet in axes.facets]):
            law = records(of_facet.get(values, laws.iloc[:0]))
            if law and plain(law[0]["slope"]) is not None:
                said = f"{text} {axes.y} ~ {axes.x}^{law_words(law[0], axes.x)}"
            else:
                said = f"{text} unknown {axes.y}: " + (
                    law[0]["reason"] if law else why_absent(part[part["where"].notna()], what.smooth)
                )
            found.setdefault(values, []).append(said)
    return [
        f"{facet_label(axes.facets, values) or 'all'}: {'; '.join(parts)}" for values, parts in found.items()
    ]
