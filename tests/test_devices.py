"""The engine on a device that is not the CPU: nothing is left behind, and the numbers are the CPU's.

Without a GPU, by pretending: see :mod:`pretended_cuda`. What is tested is read from ``conf/`` and from the
catalog of measures.
"""

import contextlib
import functools
import json
from pathlib import Path

import modules
import pytest
import torch
from cells import DIGITS, make_cell
from omegaconf import OmegaConf
from pretended_cuda import pretended_cuda
from sweeping import TINY
from test_checkpoint import CASES as CHECKPOINTED
from test_checkpoint import StopAt, cells_of
from tolerance import TOLERANCE

import runner
from runner import cli
from runner.coordinates.watch import Watch
from runner.errors import UserError
from runner.layers import kernel_memory
from runner.measures.catalog import MEASURES
from runner.measures.snapshot import Measurement
from runner.numerics import compiled
from runner.preemption import Stopped
from runner.training.checkpoint import Checkpoint
from runner.training.preflight import inspect
from runner.training.train import train_pack

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
CONF = Path(__file__).resolve().parents[1] / "conf"
IMAGES = DIGITS | {"train_size": 12, "test_size": 6, "probe_size": 5}
PAIRS = {"_target_": "runner.data.modular_addition", "seed": 0, "p": 4, "train_size": 8, "probe_size": 4}
TEXT = {
    "_target_": "runner.data.text", "seed": 0, "context": 2, "size": 400,
    "train_size": 5, "test_size": 4, "probe_size": 4,
}  # fmt: skip


def section(group, name):
    given = OmegaConf.to_container(OmegaConf.load(CONF / group / f"{name}.yaml"))
    return {key: value for key, value in given.items() if key != "name"}


def names(group):
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def torch_module(target, **keys):
    return section("model", "torch") | {"module": {"_target_": target} | keys}


PACKS = {name: {"model": section("model", name)} for name in names("model")}
PACKS["own"]["model"]["_target_"] = "cells.TiedModel"
PACKS["torch"] = {"model": torch_module("modules.Perceptron")}
PACKS["cnn"] |= {"data": IMAGES}
PACKS["resnet"] |= {"data": IMAGES, "depth": 1}
PACKS["transformer"] |= {"depth": 1}
PACKS["classes"] = {"model": PACKS["mlp"]["model"], "data": IMAGES, "loss": "cross_entropy", "batch_size": 5}
PACKS["text"] = {
    "model": PACKS["transformer"]["model"] | {"causal": True, "readout": "every", "tied": True},
    "data": TEXT, "loss": "cross_entropy", "depth": 1,
}  # fmt: skip
PACKS["linear"] = {"model": PACKS["mlp"]["model"] | {"activation": "linear"}, "center_output": True}
BASELINES = [name for name, pack in PACKS.items() if "baselines" in pack["model"].get("_target_", "")]
OPTIONS = {"flow_distance": {"tolerance": 0.1}}
"""What makes a measure quick."""
FOLLOWED = {"linear", "resmlp"}
"""Packs whose flow is followed: hundreds of gradients of a model, as its steps take them, too."""


def cells(changes, steps=5):
    """Cells that start differently, and cells that start alike."""
    given = {"width": 8, "base_width": 4, "lr_unit": "absolute", "steps": steps, **changes}
    return [
        make_cell(**given | {"parameterization": name, "lr": lr, "gamma": gamma})
        for name, lr, gamma in (("ntk", 0.02, 1.0), ("mup", 0.02, 0.5), ("mup", 0.01, 2.0))
    ]


def section_of(functions, points=2):
    return {"points": points, "functions": functions}


@functools.cache
def measured(name):
    """Every measure that has a meaning for a pack."""
    functions = {}
    for measure in MEASURES:
        if measure.name == "flow_distance" and name not in FOLLOWED:
            continue
        one = {measure.name: {"_target_": f"runner.measures.{measure.name}", **OPTIONS.get(measure.name, {})}}
        with contextlib.suppress(UserError):
            inspect(cells(PACKS[name] | {"measure": section_of(one)})[0])
            functions |= one
    return functions


def rows(tables):
    """All numbers of a pack but the time that it took."""
    drop = {"train_seconds", "device"}
    rows = [{key: value for key, value in row.items() if key not in drop} for row in tables.cells]
    return json.loads(json.dumps([rows, tables.trace, tables.layers]))


def agree(found, expected, rel=20 * TOLERANCE["cpu", "float64"]):
    """Numbers are equal but for the order of sums."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        found, expected = list(found.values()), list(expected.values())
    if isinstance(expected, list):
        for one, other in zip(found, expected, strict=True):
            agree(one, other, rel)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=rel, abs=rel, nan_ok=True)
    else:
        assert found == expected


@pytest.fixture(autouse=True)
def products_of_torch(monkeypatch):
    """A pretended device has no others, and a regression without a ridge tells rounding apart."""
    monkeypatch.setattr(compiled, "LARGEST", 0)


def check(pack, device=CUDA):
    """A pack on a pretended device against the same one on the CPU."""
    expected = rows(train_pack(pack, CPU))
    with pretended_cuda():
        tables = train_pack(pack, device)
    assert {row["device"] for row in tables.cells} <= {"pretended", "cuda"}
    agree(rows(tables), expected, 20 * TOLERANCE["cpu", pack[0].dtype])


# -- the engine ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PACKS)
def test_models_and_measures(name):
    measure = {} if name in BASELINES else {"measure": section_of(measured(name))}
    check(cells(PACKS[name] | measure))


def test_every_measure_is_taken():
    taken = {measure for name in PACKS if name not in BASELINES for measure in measured(name)}
    assert taken == {measure.name for measure in MEASURES}


OPTIMIZERS = {name: section("optimizer", name) for name in names("optimizer")}
PARTS = {"weight_decay": 0.05, "clip": 0.5, "warmup": 2, "schedule": "cosine"}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers(name):
    check(cells({"optimizer": OPTIMIZERS[name], "measure": section_of({})}))


@pytest.mark.parametrize("name", [name for name, keys in OPTIMIZERS.items() if "clip" in keys])
def test_parts_of_optimizers(name):
    check(cells({"optimizer": OPTIMIZERS[name] | PARTS, "batch_size": 7, "measure": section_of({})}))


SETTINGS = {
    "minibatches": {"batch_size": 7},
    "fresh samples": {"batch_size": 7, "data": {"online": True}},
    "fresh samples, centred": {"batch_size": 7, "data": {"online": True}, "center_output": True},
    "fresh text": {
        **PACKS["text"], "data": TEXT | {"online": True}, "batch_size": 3,
        "model": PACKS["text"]["model"] | {"tied": False},
    },
    "centred minibatches of images": {**PACKS["cnn"], "batch_size": 5, "center_output": True},
    "pairs": {"symmetric_init": True},
    "pairs, transformer": {**PACKS["transformer"], "symmetric_init": True},
    "in units of the sharpness": {"lr_unit": "sharpness"},
    "cells end before the last step": {"stop": {"train_loss": 0.3}},
    "classes end before the last step": {**PACKS["classes"], "stop": {"train_error": 0.5, "margin": 0.1}},
    "in single precision": {"dtype": "float32"},
    "kernels in blocks": {
        "data": IMAGES, "measure": section_of({"ntk_change": {"_target_": "runner.measures.ntk_change"}}),
    },
    "kernels from gathered gradients": {
        **PACKS["cnn"], "measure": section_of({"ntk_change": {"_target_": "runner.measures.ntk_change"}}),
    },
    "a measure of one's own": {
        "measure": section_of({"own": {"_target_": f"{__name__}.own_measure"}}),
    },
    "its own init": {"model": torch_module("modules.Convolutional") | {"init": "own"}, "data": IMAGES},
    "a loop of torch": {"model": torch_module("modules.Recurrent", kind="GRU"), "data": IMAGES},
    "attention of torch": {"model": torch_module("handed.TorchTransformer"), "data": IMAGES},
    "branches of torch": {"model": torch_module("modules.Blocks") | {"branches": ["blocks.*.mix"]}},
    "a module that torch cannot batch": {"model": torch_module("modules.Branching")},
    "wide matrices": {"width": 48, "steps": 2},
    "two classes": {"data": {"linear": 0.0, "standardize": False}, "loss": "cross_entropy"},
    "a shared weight": {"model": torch_module("modules.TiedTokens"), "data": IMAGES},
    "kernels from random vectors": {
        "data": IMAGES, "measure": section_of({
            "ntk_change": {"_target_": "runner.measures.ntk_change", "sketch": 3},
            "cka": {"_target_": "runner.measures.cka", "sketch": 3}}),
    },
}  # fmt: skip

MEMORY = {"kernels in blocks": 0.005, "kernels from gathered gradients": 1.0}
"""Megabytes."""


def own_measure(now, start):
    moved = [now.parameters[path] - start.parameters[path] for path in now.parameters]
    return Measurement(trace={"own": sum(change.flatten(1).norm(dim=1) for change in moved)})


@pytest.mark.parametrize("name", SETTINGS)
def test_settings(name):
    with kernel_memory(MEMORY.get(name)):
        check(cells(SETTINGS[name]))


@pytest.mark.parametrize("name", CHECKPOINTED)
def test_stopped_and_gone_on_with(tmp_path, name):
    pack = cells_of(CHECKPOINTED[name])
    expected = rows(train_pack(pack, CPU))
    with pretended_cuda():
        checkpoint = Checkpoint(tmp_path, pack, CUDA, stop=StopAt(9))
        with pytest.raises(Stopped):
            train_pack(pack, CUDA, checkpoint=checkpoint)
        assert checkpoint.load().step == 9
        agree(rows(train_pack(pack, CUDA, checkpoint=Checkpoint(tmp_path, pack, CUDA))), expected)


def test_a_second_device():
    """Where another one is current, so that nothing may be asked of ``cuda`` at large."""
    check(cells({"batch_size": 7}), torch.device("cuda", 1))


def test_a_sweep(tmp_path, capsys):
    store = tmp_path / "store"
    grid = [*TINY, "width=8", "depth=1", "lr=0.1,1000", "lr_unit=absolute", f"store={store}"]
    with pretended_cuda():
        assert cli.main(["sweep", *grid, "device=auto"]) == 0
        assert cli.main(["verify", str(store), "--rerun", "2"]) == 0
    assert set(runner.load(store).cells["device"]) == {"pretended"}


def test_a_module_in_a_loop_of_ones_own():
    def found(device):
        torch.manual_seed(0)
        x, y = torch.randn(6, 5).to(device), torch.randn(6, 2).to(device)

        def train(model, steps):
            optimizer = torch.optim.SGD(model.parameters(), 0.1)
            for _ in range(steps):
                optimizer.zero_grad()
                (model(x) - y).square().mean().backward()
                optimizer.step()

        watch = Watch(model := modules.Perceptron(8, (5,), 2).to(device), lambda module: module(x))
        train(model, 2)
        return watch.changes()

    expected = found(CPU)
    with pretended_cuda():
        agree(found(CUDA), expected)
