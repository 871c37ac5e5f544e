"""Learning rates of their own for input, hidden and output weights: one mechanism for steps and kernels."""

import json
import math
from dataclasses import replace

import pytest
import torch
from cells import make_cell
from test_config import composed
from test_optim import ADAM, ADAMW, BASE, SGD, assert_same, section, trained, trained_by_torch
from torch.func import functional_call, jacrev

from runner.errors import UserError
from runner.grid.config import cell_from_config, config_of_cell
from runner.layers import parameters_of
from runner.measures.kernel import empirical_ntk_full, lambda_max
from runner.measures.snapshot import Snapshot
from runner.training.preflight import inspect
from runner.training.train import train_pack

CPU = torch.device("cpu")
FACTORS = {"lr_input": 3.0, "lr_hidden": 0.25, "lr_output": 2.0}
OF_ROLE = {"input": 3.0, "vector": 3.0, "hidden": 0.25, "output": 2.0, "scalar": 2.0}
WIDE = BASE | {"width": 12, "base_width": 4, "parameterization": "mean_field"}


def naive(run):
    """The kernel [sample, sample] of the train split, each parameter's part times k r^(-c), and f - y."""
    model, parameters = run.ensemble.model, dict(run.ensemble.model.named_parameters())
    x = run.ensemble.inputs["train"]
    jacobians = jacrev(lambda p: functional_call(model, p, (x,))[0, :, 0])(parameters)
    ratio, gamma = 3.0, run.ensemble.cells[0].gamma
    kernel = 0
    for path, spec, _, _ in parameters_of(model):
        c = 0 if spec.role == "scalar" else -1  # of mean_field
        rows = jacobians[path].flatten(1)
        kernel = kernel + OF_ROLE[spec.role] * ratio**-c * rows @ rows.T
    f = run.ensemble.function(model(x), "train")[0, :, 0]
    assert gamma == run.ensemble.gamma.item()
    return kernel.detach(), (f - run.ensemble.targets["train"][0, :, 0]).detach()


def test_the_kernel_is_weighted_and_a_step_follows_it():
    lr = 1e-7
    cell = make_cell(**WIDE | {"lr": lr, "gamma": 2.0}, optimizer=section("SGD", **FACTORS))
    run = trained([cell], steps=0)
    kernel, residual = naive(run)
    ensemble = run.ensemble
    x = ensemble.inputs["train"]
    ours = empirical_ntk_full(ensemble.model, ensemble.parameters, x)[0, 0, :, 0, :]
    torch.testing.assert_close(ours.detach(), kernel, rtol=1e-11, atol=1e-12)
    count = len(residual)
    top = torch.linalg.eigvalsh(kernel)[-1].item() / count
    start = Snapshot(ensemble, 0)
    assert lambda_max(start, start).trace["lambda_max"].item() == pytest.approx(top, rel=1e-5)
    before = ensemble.function(ensemble.model(x), "train").detach()
    run.advance(0)
    moved = ensemble.function(ensemble.model(x), "train").detach() - before
    # The loss is the mean of the squared errors, halved.
    torch.testing.assert_close(moved[0, :, 0], -lr * kernel @ residual / count, rtol=1e-4, atol=1e-13)


def test_the_sharpness_is_the_unit_of_that_kernel():
    cell = make_cell(**WIDE | {"lr": 0.5, "lr_unit": "sharpness"}, optimizer=section("SGD", **FACTORS))
    run = trained([cell], steps=0)
    kernel, residual = naive(run)
    top = torch.linalg.eigvalsh(kernel)[-1].item() / len(residual)
    assert run.ensemble.lr.item() == pytest.approx(0.5 / top, rel=1e-5)


KINDS = {
    "SGD": ("SGD", {"momentum": 0.9}, SGD, {"momentum": 0.9}),
    "Adam": ("Adam", {}, ADAM, {}),
    "AdamW": ("AdamW", {"weight_decay": 0.0}, ADAMW, {"weight_decay": 0.0}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_they_are_torchs_groups(kind):
    name, keys, theirs, their_keys = KINDS[kind]
    cell = make_cell(**BASE, lr=0.01, optimizer=section(name, **keys, **FACTORS))

    def make(roles):
        return theirs([{"params": [p], "lr": 0.01 * OF_ROLE[role], **their_keys} for role, p in roles])

    assert_same(trained([cell]).ensemble.parameters, trained_by_torch(cell, make))


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_decay_has_no_part_in_them(name):
    """As it has none in r^(-c): a weight without gradient is forgotten at one rate everywhere."""
    cell = make_cell(**WIDE | {"lr": 0.1}, optimizer=section(name, weight_decay=0.2, **FACTORS))
    run = trained([cell], steps=0)
    parameters = list(run.ensemble.parameters.values())
    start = [p.detach().clone() for p in parameters]
    run.optimizer.step(parameters, [torch.zeros_like(p) for p in parameters])
    for p, q in zip(parameters, start, strict=True):
        torch.testing.assert_close(p.detach(), (1 - 0.1 * 0.2) * q, rtol=1e-12, atol=0)


def test_clipping_measures_the_gradient_as_the_kernel_does():
    """Its norm is the one by whose square the loss falls."""
    cell = make_cell(**BASE | {"lr": 1.0}, optimizer=section("SGD", clip=1e-3, **FACTORS))
    run = trained([cell], steps=0)
    roles = [spec.role for _, spec, _, _ in parameters_of(run.ensemble.model)]
    parameters = list(run.ensemble.parameters.values())
    start = [p.detach().clone() for p in parameters]
    run.optimizer.step(parameters, [torch.ones_like(p) for p in parameters])
    norm = math.sqrt(sum(OF_ROLE[role] * p.numel() for role, p in zip(roles, parameters, strict=True)))
    for role, p, q in zip(roles, parameters, start, strict=True):
        torch.testing.assert_close(
            (q - p).detach(), torch.full_like(q, OF_ROLE[role] * 1e-3 / (norm + 1e-6)), rtol=1e-9, atol=0
        )


@pytest.mark.parametrize("keys", [{}, {"momentum": 0.9}, {"weight_decay": 0.1}, {"clip": 0.5}])
def test_a_factor_is_a_multiplier_split_off(keys):
    """Under SGD, learning k times as fast is being 1/sqrt(k) of the size behind a multiplier sqrt(k)."""
    changes = {**BASE, "base_width": 1, "lr": 0.05, "steps": 20, "model": {"bias": False}}
    cell = make_cell(**changes, optimizer=section("SGD", **keys))
    table = json.loads(cell.exponents)
    power = math.log(4, 16)  # r^power is 4 at this width
    table["a"]["hidden"] -= power / 2
    table["b"]["hidden"] += power / 2
    split = train_pack([replace(cell, exponents=json.dumps(table))], CPU).cells[0]
    faster = train_pack([make_cell(**changes, optimizer=section("SGD", lr_hidden=4.0, **keys))], CPU).cells[0]
    plain = train_pack([cell], CPU).cells[0]
    for key in ("train_loss", "test_loss", "ntk_change", "lambda_max_init"):
        assert faster[key] == pytest.approx(split[key], rel=1e-9 if key != "lambda_max_init" else 1e-5)
        assert faster[key] != pytest.approx(plain[key], rel=1e-6)


def test_lazy_networks_follow_the_kernel_that_has_the_factors():
    measure = {"functions": {"kernel_gd_error": {"_target_": "runner.measures.kernel_gd_error"}}, "points": 2}
    changes = WIDE | {"lr": 0.1, "gamma": 1e-4, "center_output": True, "measure": measure}
    result = train_pack([make_cell(**changes, optimizer=section("SGD", **FACTORS))], CPU)
    assert result.cells[0]["train_loss"] < 0.9 * result.cells[0]["initial_train_loss"]
    assert max(result.trace["kernel_gd_error"]) < 1e-3


def test_ids_have_them_only_where_they_are_not_one():
    config = composed("optimizer=adamw")
    cell = cell_from_config(config)
    optimizer = dict(config["optimizer"])
    assert {"lr_input", "lr_hidden", "lr_output", "independent_decay"} <= optimizer.keys()
    for key in ("lr_input", "lr_hidden", "lr_output", "independent_decay"):
        assert f'"{key}"' not in cell.settings
        assert cell_from_config({**config, "optimizer": {**optimizer, key: None}}) == cell
        del optimizer[key]
    assert cell_from_config({**config, "optimizer": optimizer}).cell_id == cell.cell_id
    for key, value in {"lr_hidden": 2, "independent_decay": True}.items():
        other = cell_from_config({**config, "optimizer": {**optimizer, key: value}})
        assert other.cell_id != cell.cell_id
        assert cell_from_config(config_of_cell(other)) == other


@pytest.mark.parametrize("value", [True, 0, -2.0])
def test_no_wrong_value_passes_for_a_default(value):
    config = composed("optimizer=momentum")
    cell = cell_from_config({**config, "optimizer": {**config["optimizer"], "lr_output": value}})
    with pytest.raises(UserError, match=r"optimizer.lr_output must be a number > 0, got"):
        inspect(cell)
