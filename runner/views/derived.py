"""What theory derives for the networks of a sweep: a section of the page, beside what was measured."""

import pandas as pd

from runner.analysis.columns import groups, plain, records
from runner.analysis.phase import Axes
from runner.analysis.predictions import predictions, verdict
from runner.analysis.selection import facet_label
from runner.store import Store
from runner.views.picture import Part, Section

_OPTIONS = {"depth": "depth", "optimizer": "optimizer", "loss": "loss", "model.activation": "activation"}
"""Keys of a cell to the options of ``runner theory`` that mean the same."""


def _theory(store: Store, cells: pd.DataFrame, axes: Axes) -> Part | None:
    """Return what follows from the table of each facet's first cell, and the commands that derive it."""
    rows: list[list[str]] = []
    commands: dict[str, None] = {}
    verdicts: list[str] = []
    for values, part in groups(cells, [cells[facet] for facet in axes.facets]):
        cell = records(part.head(1))[0]
        label = facet_label(axes.facets, values) or str(cell["parameterization"])
        verdicts.append(f"{label}: {verdict(cell)}.")
        for one in predictions(cell):
            slope = "silent" if one.slope is None else f"{round(one.slope, 4) + 0.0:g}"
            quantity = one.quantity + (f", {one.of}" if one.of else "")
            rows.append([label, quantity, one.against, slope, one.why])
        commands[_command(cell)] = None
    return Part(
        None,
        "At a fixed learning rate, as width grows. " + " ".join(verdicts),
        "\n".join(commands),
        ("", "quantity", "against", "slope", "why"),
        rows,
    )


def _command(cell: dict[str, object]) -> str:
    name = str(cell["parameterization"]).partition(" ")[0]
    options = [
        f"--{option} {cell[key]}" for key, option in _OPTIONS.items() if plain(cell.get(key)) is not None
    ]
    return " ".join([f"runner theory {name}", *options, f"--lr-unit {cell['lr_unit']}"])


SECTIONS = (
    Section(
        "theory",
        "What theory says",
        "Slopes of logarithms that follow from the exponents of the parameterization, of networks trained "
        "to a loss of order one, and the term that decides each.",
        _theory,
        (0, 0, 0),
    ),
)
