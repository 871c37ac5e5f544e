"""What measures declare: one place, which the tables, the planner and training follow."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from cells import make_cell

import runner
from runner import cli
from runner.errors import UserError
from runner.measures import Cost, Measurement, declare
from runner.measures.catalog import BY_NAME, MEASURES, declaration_of
from runner.measures.schedule import scheduled
from runner.planning.costs import Costs
from runner.planning.machine import USUAL
from runner.schema import SCHEMA_VERSION, TABLES
from runner.training.preflight import inspect
from runner.training.train import train_pack

CPU = torch.device("cpu")
CALLS = []
"""What the measures below were called with: the steps, and how many cells each had."""


def section(**functions):
    return {"points": 3, "functions": functions}


def mine(name, **options):
    return {"_target_": f"test_declarations.{name}", **options}


def ours(name, **options):
    return {"_target_": f"runner.measures.{name}", **options}


def undeclared(now, start):
    CALLS.append(("measure", now.step, len(now.ensemble.cells)))
    return Measurement(trace={"mine": now.raw_outputs("probe")[:, 0, 0]})


def refuse(name, setting):
    if setting.options.get("scale", 1.0) > 2:
        raise UserError(f"scale of {name} must be at most 2")


def at_start(start, *, scale=1.0):
    CALLS.append(("prepare", start.step, len(start.ensemble.cells)))
    start.cached("size", lambda: scale * start.raw_outputs("probe").flatten(1).norm(dim=1))


@declare(
    trace={"size": ("output", "Norm of the outputs over that at init")},
    layers={"depthwise": ("1", "Place of the layer")},
    requires=(refuse,),
    cost=lambda sizes, options: Cost.always("size", 1000 * sizes.passes),
    prepare=at_start,
)
def declared(now, start, *, scale=1.0):
    before = start.cached("size", lambda: pytest.fail("was prepared"))
    names = ("hidden.0", "output")
    ones = torch.ones_like(before)
    return Measurement(
        trace={"size": scale * now.raw_outputs("probe").flatten(1).norm(dim=1) / before},
        layers={"depthwise": {name: place * ones for place, name in enumerate(names)}},
    )


def sharpness(now, start):
    """Shares its name with a costly one of the package."""
    return Measurement()


@pytest.fixture(autouse=True)
def calls():
    CALLS.clear()
    return CALLS


@pytest.mark.parametrize("measure", MEASURES, ids=lambda measure: measure.name)
def test_every_declaration_is_of_a_function_that_keeps_to_it(measure):
    function = getattr(runner.measures, measure.name)
    assert declaration_of(function) is measure
    kept = {column.name for column in (*measure.trace, *measure.layers)}
    cell = make_cell(
        measure=section(x=ours(measure.name)), data={"train_size": 24}, model={"activation": "relu"}, steps=3,
        center_output=True,
    )  # fmt: skip
    inspect(cell)
    tables = train_pack([cell], CPU)
    plain = train_pack([make_cell(measure=section(), model={"activation": "relu"}, steps=3)], CPU)
    found = {*tables.trace, *tables.layers} - {*plain.trace, *plain.layers}
    # Of classification, of many outputs, of attention, of residual branches.
    optional = {
        "kernel_regression_error",
        "ntk_sketch_error",
        "update_logits",
        "logits_bound",
        "branch_linearization_error",
    }
    assert found | {"lambda_max"} >= kept - optional
    assert found <= kept
    assert {f"{column.name}" for column in measure.init} <= {column.name for column in TABLES["cells"]}


def test_no_measure_has_the_name_of_a_module():
    """A module that is imported would take its place in the package."""
    folder = Path(runner.__file__).parent / "measures"
    assert not {path.stem for path in folder.glob("*.py")} & set(BY_NAME)


def test_declarations_need_no_torch():
    code = "import sys, runner.schema; sys.exit(bool({'torch', 'pandas', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_measure_without_a_declaration_is_called_once_a_step(calls):
    cells = [make_cell(lr=lr, measure=section(mine=mine("undeclared")), steps=4) for lr in (0.1, 0.2)]
    tables = train_pack(cells, CPU)
    assert calls == [("measure", step, 2) for step in (0, 1, 4)]
    assert len(tables.trace["mine"]) == 6


def test_what_the_start_gives_is_prepared_once_for_cells_that_start_alike(calls):
    cells = [
        make_cell(lr=lr, seed=seed, measure=section(size=mine("declared", scale=2.0)), steps=4)
        for lr in (0.1, 0.2)
        for seed in (0, 1)
    ]
    row = train_pack(cells, CPU).cells[0]
    assert calls == [("prepare", 0, 2)]
    assert row["size"] == pytest.approx(1.0, rel=0.5)


def test_requirements_of_ones_own_are_checked_before_training():
    with pytest.raises(UserError, match="scale of size must be at most 2"):
        inspect(make_cell(measure=section(size=mine("declared", scale=3.0))))


def seconds(**functions):
    cell = make_cell(measure=section(**functions))
    shape = replace(inspect(cell), flops_per_step=1e9)
    return float(Costs(cell, shape, USUAL).seconds(1))


def test_the_planner_counts_what_a_measure_says_it_costs():
    nothing = seconds()
    assert seconds(size=mine("declared")) > 20 * nothing
    assert seconds(sharpness=ours("sharpness")) > 1.1 * nothing
    assert seconds(sharpness=mine("sharpness")) == nothing


def test_measures_share_what_they_name_alike():
    one, other = seconds(a=ours("ntk_change")), seconds(a=ours("kernel_distance"))
    both = seconds(a=ours("ntk_change"), b=ours("kernel_distance"))
    assert one == other == both
    kernel, gain = seconds(a=ours("kernel_regression")), seconds(a=ours("ntk_gain"))
    assert gain < kernel == seconds(a=ours("kernel_regression"), b=ours("ntk_gain"))


def test_the_schedule_knows_how_often():
    (measure,) = scheduled(section(x=ours("sharpness", at="ends"))).values()
    assert (measure.times(12), measure.due(0, 9), measure.due(3, 9), measure.due(9, 9)) == (
        1,
        True,
        False,
        True,
    )


def test_units_and_meanings_of_ones_own_are_in_the_files(tmp_path, monkeypatch):
    """They outlive compaction, which happens at the end of each sweep."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    line = [
        "sweep", "width=8", "depth=1", "steps=3", "workers=1", "data.train_size=16", "data.probe_size=8",
        "store=out", "+measure.functions.size={_target_: test_declarations.declared}",
    ]  # fmt: skip
    assert cli.main([*line, "seed=0,1"]) == 0
    assert cli.main([*line, "seed=2,3"]) == 0
    for table, name, unit, meaning in (
        ("cells", "size", "output", "Norm of the outputs over that at init"),
        ("trace", "size", "output", "Norm of the outputs over that at init"),
        ("layers", "depthwise", "1", "Place of the layer"),
    ):
        (path,) = Path("out", table).glob("*.parquet")
        entries = pq.read_schema(path).field(name).metadata
        assert (entries[b"unit"].decode(), entries[b"meaning"].decode()) == (unit, meaning)
        again = runner.load("out").table(table).schema.field(name).metadata
        assert again[b"meaning"].decode() == meaning
    assert json.loads(pq.read_schema(path).metadata[b"schema_version"]) == SCHEMA_VERSION
