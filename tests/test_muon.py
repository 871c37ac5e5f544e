"""Muon: its authors' steps at base width, steps of one spectral norm at any width."""

import json
import math
from dataclasses import replace

import pytest
import torch
from cells import make_cell
from plain_optimizers import Muon, newton_schulz
from reference import ABC
from test_optim import BASE, assert_same, cosine, section, trained, trained_by_torch

from runner.analysis.predictions import verdict
from runner.analysis.theory import predicted_slope
from runner.errors import UserError
from runner.layers import parameters_of
from runner.optim.muon import orthogonalize
from runner.training.preflight import inspect
from runner.training.train import train_pack

CPU = torch.device("cpu")
WIDE = BASE | {"width": 24, "base_width": 6}
IMAGES = {
    "model": {"_target_": "runner.models.CNN", "activation": "tanh", "bias": True, "sigma_weight": 1.0,
              "sigma_bias": 0.3},
    "data": {"_target_": "runner.data.digits", "seed": 0, "train_size": 20, "test_size": 10, "probe_size": 5},
    "width": 6, "base_width": 6, "steps": 6,
}  # fmt: skip
HEAVY = {"nesterov": False, "momentum": 0.5}
CASES = {  # ours, the authors' of matrices, of all, keys of the cells, schedule
    "their own": ({}, {}, {}, {}, None),
    "plain momentum": (HEAVY, HEAVY, {}, {}, None),
    "max_one, decay, cosine": (
        {"scale": "max_one", "weight_decay": 0.3, "schedule": "cosine"}, {"scale": "max_one"},
        {"weight_decay": 0.3}, {}, lambda optimizer: cosine(optimizer, BASE["steps"]),
    ),
    "match_rms, images": ({"scale": "match_rms"}, {"scale": "match_rms"}, {}, IMAGES, None),
    "images": ({"adam_lr": 0.5}, {}, {"adam_lr": 0.5}, IMAGES, None),
}  # fmt: skip


def orthogonal(matrices):
    small = min(matrices.shape[1:])
    grams = matrices.new_empty(2, len(matrices), small, small)
    return orthogonalize(matrices.clone(), torch.empty_like(matrices), grams)


@pytest.mark.parametrize("case", CASES)
def test_it_is_its_authors_at_base_width(case):
    keys, theirs, both, changes, schedule = CASES[case]
    cells = [
        make_cell(**BASE | changes, lr=lr, seed=seed, optimizer=section("Muon", **{"adam_lr": 0.3} | keys))
        for seed, lr in ((0, 0.05), (1, 0.02))
    ]
    run = trained(cells)
    for position, cell in enumerate(cells):

        def make(roles, lr=cell.lr):
            decay = both.get("weight_decay", 0.0)
            matrices = {"momentum": 0.95, "nesterov": True, "scale": "spectral"} | theirs
            adam = {"betas": (0.9, 0.95), "eps": 1e-10}
            groups = [
                {"params": [p], "lr": lr, **matrices}
                if role == "hidden"
                else {"params": [p], "lr": lr * both.get("adam_lr", 0.3), **adam}
                for role, p in roles
            ]
            return Muon(groups, weight_decay=decay)

        values = {path: value[position : position + 1] for path, value in run.ensemble.parameters.items()}
        assert_same(values, trained_by_torch(cell, make, schedule), rel=1e-9)


@pytest.mark.parametrize("shape", [(3, 20, 20), (2, 40, 10), (2, 10, 40)])
def test_singular_values_come_near_one(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = orthogonal(matrices)
    torch.testing.assert_close(found, newton_schulz(matrices), rtol=1e-12, atol=1e-12)
    left, values, right = torch.linalg.svd(matrices, full_matrices=False)
    near = left.mT @ found @ right.mT  # diagonal: singular vectors stay
    assert (near - torch.diag_embed(near.diagonal(dim1=1, dim2=2))).abs().max() < 1e-12
    not_lost = values >= 0.002 * torch.linalg.vector_norm(matrices, dim=(1, 2))[:, None]
    assert not_lost.float().mean() > 0.9
    ours = near.diagonal(dim1=1, dim2=2)
    assert ((ours > 0) & (ours < 1.5)).all()
    assert (ours[not_lost] > 0.5).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_scale_of_a_gradient_matters_and_zero_stays(dtype):
    one = torch.randn(1, 6, 4, generator=torch.Generator().manual_seed(0), dtype=dtype)
    found = orthogonal(torch.cat([one, 1e-12 * one, 1e12 * one, 0 * one, 1e-30 * one]))
    for other in found[1:3]:
        torch.testing.assert_close(other, found[0], rtol=1e-4, atol=1e-5)
    assert (found[3] == 0).all()
    assert found.isfinite().all()


@pytest.mark.parametrize("scale", ["spectral", "max_one", "match_rms"])
@pytest.mark.parametrize("name", ABC)
def test_a_step_of_a_weight_in_force_has_the_same_spectral_norm_in_every_table(name, scale):
    gamma, lr = 3.0, 0.01
    cell = make_cell(
        **WIDE | {"parameterization": name, "gamma": gamma, "lr": lr},
        optimizer=section("Muon", scale=scale, lr_hidden=0.5),
    )
    run = trained([cell], steps=0)
    layers = [layer for _, spec, _, layer in parameters_of(run.ensemble.model) if spec.role == "hidden"]
    before = [layer.weight.detach().clone() for layer in layers]
    run.advance(0)
    for layer, start in zip(layers, before, strict=True):
        moved = layer.scale("weight", layer.weight - start)
        size = {"match_rms": 0.2 * math.sqrt(24)}.get(scale, 1.0)
        largest = torch.linalg.svdvals(moved.detach()).max().item() / (lr * gamma * 0.5 * size)
        assert 0.68 < largest < 1.21


def test_hidden_weights_train_alike_in_every_table_and_the_others_as_adams():
    """At another width than the base's, a step of every parameter against one at base width."""
    cells = [
        make_cell(**WIDE | {"parameterization": name, "lr": 0.01}, optimizer=section("Muon")) for name in ABC
    ]
    for cell in cells:
        run, adam = trained([cell], steps=1), trained(
            [make_cell(**WIDE | {"parameterization": cell.parameterization, "lr": 0.01},
                       optimizer=section("AdamW", weight_decay=0.0, betas=[0.9, 0.95], eps=1e-10))], steps=1,
        )  # fmt: skip
        theirs = adam.ensemble.parameters
        others = {
            path: theirs[path]
            for path, spec, _, _ in parameters_of(run.ensemble.model)
            if spec.role != "hidden"
        }
        assert_same(run.ensemble.parameters, others)


def test_state_is_momentum_for_matrices_and_adams_for_the_rest():
    run = trained([make_cell(**BASE, optimizer=section("Muon"))], steps=1)
    kept = {}
    for name in run.optimizer.state_dict():
        state, _, path = name.partition("/")
        kept.setdefault(path, []).append(state)
    kept.pop("")
    roles = {path: spec.role for path, spec, _, _ in parameters_of(run.ensemble.model)}
    assert kept == {
        path: ["momentum"] if role == "hidden" else ["mean", "square"] for path, role in roles.items()
    }


def test_the_planner_counts_the_products_of_the_iterations():
    muon, adam = (inspect(make_cell(**BASE, optimizer=section(name))) for name in ("Muon", "Adam"))
    assert adam.optimizer_flops == 0
    assert muon.optimizer_flops == 5 * 3 * 2 * 16**3  # one hidden matrix, three products in each of five
    assert muon.flops_per_step == adam.flops_per_step
    images = inspect(make_cell(**BASE | IMAGES, optimizer=section("Muon")))
    small, large = 6, 6 * 9
    products = small * small * large + small**3 + small * small * large
    assert images.optimizer_flops == 5 * 2 * products


def test_theory_knows_that_only_input_and_output_have_an_exponent():
    """Under ntk hidden features move by order one, so that outputs of a fixed lr have no limit."""
    row = {"optimizer": "muon", "lr_unit": "absolute", "depth": 3, "model.activation": "tanh", "loss": "mse",
           "center_output": True}  # fmt: skip
    tables = {name: make_cell(parameterization=name).exponents for name in ABC}
    for name in ("mup", "mean_field"):
        cell = row | {"exponents": tables[name]}
        assert verdict(cell).startswith("stable, feature learning")
        assert predicted_slope("update_own", "hidden", cell) == 0
        assert predicted_slope("movement_spectral", "hidden", cell) == 0
        assert predicted_slope("movement_frobenius", "hidden", cell) is None
        assert predicted_slope("movement_frobenius", "input", cell) == 0
        assert "no stable limit" in verdict(cell | {"optimizer.scale": "match_rms"})
    assert "no stable limit" in verdict(row | {"exponents": tables["ntk"]})


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"scale": "spectrum"}, "optimizer.scale must be one of .*did you mean 'spectral'"),
        ({"momentum": 1}, "optimizer.momentum must be a number >= 0 and < 1, got 1"),
        ({"adam_lr": 0}, "optimizer.adam_lr must be a number > 0, got 0"),
        ({"eps": 0}, "optimizer.eps must be a number > 0, got 0"),
    ],
)
def test_bad_settings_are_refused_before_training(keys, message):
    with pytest.raises(UserError, match=message):
        inspect(make_cell(**BASE, optimizer=section("Muon", **keys)))


def test_a_table_without_adams_row_is_refused():
    cell = make_cell(**BASE, optimizer=section("Muon"))
    inspect(cell)
    table = json.loads(cell.exponents)
    del table["c"]["adam"]
    with pytest.raises(UserError, match=r"parameterization.c must have a row adam"):
        inspect(replace(cell, exponents=json.dumps(table)))


def test_a_net_without_hidden_matrices_is_adamws():
    changes = BASE | {"depth": 1, "lr": 0.01, "steps": 10}
    keys = {"weight_decay": 0.1, "eps": 1e-6, "betas": [0.9, 0.95]}
    muon, adamw = (
        train_pack([make_cell(**changes, optimizer=section(name, **keys))], CPU).cells[0]
        for name in ("Muon", "AdamW")
    )
    assert muon["train_loss"] == pytest.approx(adamw["train_loss"], rel=1e-12)
