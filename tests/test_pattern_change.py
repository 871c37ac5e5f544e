"""Activation patterns against a count by hand, in float64."""

import json

import pytest
import torch
from cells import DIGITS, make_cell
from test_engine import CPU, train_reference

from runner import data
from runner.training.train import train_pack

PATTERN = {"points": 3, "functions": {"pattern_change": {"_target_": "runner.measures.pattern_change"}}}
RELU = {
    "measure": PATTERN,
    "width": 12,
    "lr": 0.5,
    "steps": 30,
    "center_output": True,
    "model": {"activation": "relu"},
}


def rows_of(cell, others=()):
    """Return the row of ``cells`` and the last rows of ``layers`` of a cell, trained beside others."""
    tables = train_pack([*others, cell], CPU)
    names = tables.layers["layer"]
    last = [
        place
        for place, (cell_id, step) in enumerate(
            zip(tables.layers["cell_id"], tables.layers["step"], strict=True)
        )
        if (cell_id, step) == (cell.cell_id, cell.steps)
    ]
    column = tables.layers.get("pattern_change", [None] * len(names))
    return tables.cells[-1], {names[place]: column[place] for place in last}


def counted(network, x):
    """Count, layer by layer, unit by unit and sample by sample, the signs that changed."""
    shares = []
    before, after = (network.hidden(raw, x)[0] for raw in (network.start, network.raw))
    for old, new in zip(before, after, strict=True):
        changed = [
            (new[i, j].item() > 0) != (old[i, j].item() > 0)  # relu keeps the sign of what it is given
            for i in range(old.shape[0])
            for j in range(old.shape[1])
        ]
        shares.append(sum(changed) / len(changed))
    return shares


@pytest.mark.parametrize("name", ["ntk", "mup"])
@pytest.mark.parametrize("depth", [1, 3])
def test_equals_a_count_by_hand(name, depth):
    cell = make_cell(parameterization=name, depth=depth, **RELU)
    beside = make_cell(parameterization=name, depth=depth, **RELU | {"lr": 0.01})
    row, by_layer = rows_of(cell, [beside, make_cell(parameterization="sp", depth=depth, seed=1, **RELU)])
    probes = data.load(json.loads(cell.settings)["data"]).probe.inputs
    expected = counted(train_reference(cell), probes)
    assert 0 < expected[-1] < 1
    assert [value for value in by_layer.values() if value is not None] == pytest.approx(expected, abs=1e-12)
    assert row["pattern_change"] == pytest.approx(expected[-1], abs=1e-12)
    assert list(by_layer.values())[-1] is None  # the readout has no activation


def test_nothing_has_changed_at_init():
    tables = train_pack([make_cell(**RELU)], CPU)
    assert tables.trace["pattern_change"][0] == 0
    assert [value for value in tables.layers["pattern_change"][:3] if value is not None] == [0, 0]


@pytest.mark.parametrize("activation", ["tanh", "gelu", "linear"])
def test_is_null_without_a_threshold(activation):
    row, by_layer = rows_of(make_cell(**RELU | {"model": {"activation": activation}}))
    assert "pattern_change" not in row
    assert set(by_layer.values()) == {None}


@pytest.mark.parametrize(
    ("model", "layers"),
    [("CNN", 2), ("ResNet", 5), ("ResidualMLP", 2), ("Transformer", 2)],
)
def test_every_architecture_with_relus_has_it(model, layers):
    settings = {"_target_": f"runner.models.{model}", "activation": "relu"}
    changes = RELU | {"model": settings, "data": DIGITS, "width": 8, "depth": 2, "lr": 1.0, "steps": 40}
    row, by_layer = rows_of(make_cell(**changes))
    found = [value for value in by_layer.values() if value is not None]
    assert len(found) == layers
    assert all(0 <= value < 0.5 for value in found)
    assert max(found) > 0
    assert row["pattern_change"] == found[-1]


def test_lazier_networks_change_fewer_signs():
    cells = [make_cell(**RELU | {"gamma": gamma, "width": 64}) for gamma in (0.01, 1.0, 4.0)]
    changed = [row["pattern_change"] for row in train_pack(cells, CPU).cells]
    assert changed == sorted(changed)
    assert changed[0] < 0.1 * changed[2]


def test_a_selected_pack_keeps_its_patterns():
    """A cell that diverges leaves the pack; the others' patterns at init stay theirs."""
    cells = [make_cell(**RELU | {"lr": lr, "seed": seed}) for lr, seed in ((1e9, 0), (0.5, 1), (0.5, 2))]
    together = train_pack(cells, CPU).cells
    assert together[0]["status"] == "diverged"
    for cell, row in zip(cells[1:], together[1:], strict=True):
        alone = train_pack([cell], CPU).cells[0]
        torch.testing.assert_close(row["pattern_change"], alone["pattern_change"], rtol=0, atol=1e-12)
