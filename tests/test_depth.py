"""Residual branches that scale with depth: against plain torch on one cell, and in any pack."""

import json
import math

import modules
import paper_worlds
import pytest
import torch
from cells import DIGITS, make_cell
from sweeping import cells_of
from torch import nn

from runner import data
from runner.analysis.predictions import verdict_in_depth
from runner.analysis.theory import predicted_edge, predicted_slope
from runner.errors import UserError
from runner.measures import Snapshot
from runner.measures.blocks import branch_linearization_error
from runner.measures.kernel import empirical_ntk
from runner.models.ensemble import Ensemble
from runner.optim import Muon
from runner.training.train import train_pack
from runner.views.fit import fit

CPU = torch.device("cpu")
XOR = {"train_size": 12, "test_size": 6, "probe_size": 5}
SMALL = DIGITS | {"train_size": 12, "test_size": 6, "probe_size": 5}
DEPTH, BASE, WIDTH = 4, 2, 6
ALPHA = {"completep": 1.0, "depth_mup": 0.5}
RESMLP = {"_target_": "runner.models.ResidualMLP", "activation": "tanh", "bias": True, "sigma_bias": 0.3}
OPTIMIZERS = {
    "sgd": {"_target_": "runner.optim.SGD"},
    "adamw": {"_target_": "runner.optim.AdamW", "eps": 0.01, "weight_decay": 0.3},
}


def cell_of(name="completep", block_layers=2, optimizer="adamw", **keys):
    model = keys.pop("model", RESMLP | {"block_layers": block_layers})
    return make_cell(
        **{
            "parameterization": name, "depth": DEPTH, "base_depth": BASE, "width": WIDTH, "base_width": WIDTH,
            "steps": 4, "lr": 0.05, "lr_unit": "absolute", "data": SMALL, "center_output": False,
            "model": model, "optimizer": OPTIMIZERS[optimizer], "measure": {"functions": {}}, **keys,
        }
    )  # fmt: skip


def ensemble_of(cells):
    sections = json.loads(cells[0].settings)
    return Ensemble(cells, sections["model"], data.load(sections["data"]), CPU)


class Plain(nn.Module):
    """The network of a cell at base width, written out."""

    def __init__(self, parameters, block_layers, factor):
        super().__init__()
        self.raw = nn.ParameterDict({name.replace(".", "/"): p[0].clone() for name, p in parameters.items()})
        self.block_layers, self.factor = block_layers, factor

    def linear(self, name, x):
        bias = self.raw[f"{name}/bias"]
        return x @ self.raw[f"{name}/weight"] + bias

    def forward(self, x):
        x = self.linear("input", x.flatten(1) / math.sqrt(64))
        for place in range(DEPTH if self.block_layers == 2 else DEPTH - 1):
            if self.block_layers == 2:
                branch = self.linear(
                    f"hidden/{place}/second", torch.tanh(self.linear(f"hidden/{place}/first", x))
                )
            else:
                branch = self.linear(f"hidden/{place}", torch.tanh(x))
            x = x + self.factor * branch
        return self.linear("output", torch.tanh(x))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("block_layers", [1, 2])
@pytest.mark.parametrize("name", ALPHA)
def test_training_equals_plain_torch(name, block_layers, optimizer):
    """Dey et al., table 1: branches and eps s^-alpha, Adam's rates s^(alpha - 1).

    SGD's are s^(2 alpha - 1), for its gradient is s^-alpha of what it is without the factor.
    """
    alpha, s, lr = ALPHA[name], DEPTH / BASE, 0.05
    cells = [cell_of(name, block_layers, optimizer, seed=seed) for seed in (0, 1)]
    ensemble = ensemble_of(cells)
    x, y = ensemble.inputs["train"][0], ensemble.targets["train"][0]
    plain = Plain(ensemble.parameters, block_layers, s**-alpha / math.sqrt(BASE))
    blocks = [p for path, p in plain.raw.items() if path.startswith("hidden")]
    rest = [p for path, p in plain.raw.items() if not path.startswith("hidden")]
    if optimizer == "sgd":
        stepper = torch.optim.SGD(
            [{"params": rest, "lr": lr}, {"params": blocks, "lr": lr * s ** (2 * alpha - 1)}]
        )
    else:
        keys = {"eps": 0.01, "weight_decay": 0.3}
        in_blocks = {
            "lr": lr * s ** (alpha - 1),
            "eps": 0.01 * s**-alpha,
        }  # and lr * decay as s^(alpha - 1), too
        stepper = torch.optim.AdamW([{"params": rest}, {"params": blocks} | in_blocks], lr=lr, **keys)
    for _ in range(4):
        stepper.zero_grad()
        (0.5 * (plain(x) - y).square().sum(1).mean()).backward()
        stepper.step()
    expected = float((0.5 * (plain(x) - y).square().sum(1).mean()).detach())
    assert train_pack(cells, CPU).cells[0]["train_loss"] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    "model",
    [
        RESMLP,
        RESMLP | {"block_layers": 2},
        {"_target_": "runner.models.ResNet", "block_layers": 1},
        {"_target_": "runner.models.Transformer", "heads": 2, "bias": True},
    ],
)
def test_a_cell_alone_equals_it_in_a_pack_of_any_tables(model):
    tables = (("mup", None), ("completep", 2), ("depth_mup", 2), ("completep", 1))
    cells = [cell_of(name, base_depth=base, model=model, width=8) for name, base in tables]
    together = train_pack(cells, CPU).cells
    assert len({row["train_loss"] for row in together}) == 4
    for cell, row in zip(cells, together, strict=True):
        assert train_pack([cell], CPU).cells[0]["train_loss"] == pytest.approx(row["train_loss"], rel=1e-9)


def test_at_its_base_depth_completep_is_mup():
    for name in ALPHA:
        deep, flat = (cell_of(one, base_depth=DEPTH if one == name else None) for one in (name, "mup"))
        found = [row["train_loss"] for row in train_pack([deep, flat], CPU).cells]
        assert found[0] == pytest.approx(found[1], rel=1e-12)


@pytest.mark.parametrize("name", ALPHA)
def test_a_step_of_muon_scales_in_blocks_as_one_of_adam(name):
    deep, flat = (cell_of(one, model=RESMLP, base_depth=base) for one, base in ((name, BASE), ("mup", None)))
    rates = []
    for cell in (deep, flat):
        ensemble = ensemble_of([cell])
        optimizer = Muon(ensemble.model, [cell], torch.tensor([0.05]))
        rates.append({slot.path: float(slot.minus_lr.flatten()[0]) for slot in optimizer.slots})
    for path, rate in rates[0].items():
        power = ALPHA[name] - 1 if path.startswith("hidden") else 0
        assert rate == pytest.approx(rates[1][path] * (DEPTH / BASE) ** power, rel=1e-6)


def test_the_linearization_of_a_branch_is_that_of_one_weight():
    (cell,) = [cell_of()]
    ensemble = ensemble_of([cell])
    start = Snapshot(ensemble, 0, keep=True)
    generator = torch.Generator().manual_seed(1)
    for parameter in ensemble.parameters.values():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    found = branch_linearization_error(Snapshot(ensemble, 1), start).layers["branch_linearization_error"]
    assert list(found) == [f"hidden.{place}.{name}" for place in range(DEPTH) for name in ("first", "second")]
    old = {name: p[0] for name, p in start.parameters.items()}
    x = ensemble.inputs["probe"][0].flatten(1) / math.sqrt(64) @ old["input.weight"] + old["input.bias"]
    for place in range(DEPTH):
        w, b, v, c = (
            old[f"hidden.{place}.{name}"]
            for name in ("first.weight", "first.bias", "second.weight", "second.bias")
        )
        dw = ensemble.parameters[f"hidden.{place}.first.weight"][0].detach() - w
        before = torch.tanh(x @ w + b)
        linear = ((1 - before**2) * (x @ dw)) @ v  # the derivative of V tanh(W x)
        beyond = (torch.tanh(x @ (w + dw) + b) - before) @ v - linear
        assert float(found[f"hidden.{place}.first"]) == pytest.approx(
            float(beyond.norm() / linear.norm()), rel=1e-9
        )
        assert float(found[f"hidden.{place}.second"]) < 1e-12
        x = x + BASE**-0.5 * (DEPTH / BASE) ** -1.0 * (before @ v + c)


def test_a_number_of_layers_that_no_block_has_is_one_line():
    with pytest.raises(UserError, match=r"model\.block_layers must be 1 or 2, got 3"):
        ensemble_of([cell_of(block_layers=3)])


# -- modules of one's own ------------------------------------------------------------------------------


def wrapped(*branches):
    return {
        "_target_": "runner.models.TorchModule", "sigma_bias": 0.3, "branches": list(branches),
        "module": {"_target_": "modules.Blocks"},
    }  # fmt: skip


def plain_blocks(ensemble, factor):
    """The module, with the cell's parameters, whose branches are multiplied by hand."""
    x = ensemble.inputs["train"][0]
    module = modules.Blocks(WIDTH, DEPTH, tuple(x.shape[1:]), ensemble.targets["train"].shape[2]).double()
    for name, parameter in module.named_parameters():
        raw = ensemble.parameters[name][0].detach()
        linear = parameter.dim() == 2
        parameter.data = raw.T.clone() if linear else raw.clone()
    for block in module.blocks:
        block.mix.register_forward_hook(lambda _, given, output: factor * output)
    return module


@pytest.mark.parametrize("pattern", ["blocks.*.mix", "blocks.*.mix.2"])  # what is added, or its last layer
@pytest.mark.parametrize("name", ALPHA)
def test_branches_of_a_module_scale_with_depth(name, pattern):
    alpha, s, lr = ALPHA[name], DEPTH / BASE, 0.05
    cells = [cell_of(name, model=wrapped(pattern), data=XOR, seed=seed) for seed in (0, 1)]
    ensemble = ensemble_of(cells)
    x, y = ensemble.inputs["train"][0], ensemble.targets["train"][0]
    module = plain_blocks(ensemble, s**-alpha)
    # Where the branch lies deeper than the norm, that is no part of its block.
    block = "blocks" if pattern.endswith("mix") else "mix"
    inside = [p for path, p in module.named_parameters() if block in path]
    outside = [p for p in module.parameters() if all(p is not one for one in inside)]
    stepper = torch.optim.AdamW(
        [{"params": outside}, {"params": inside, "lr": lr * s ** (alpha - 1), "eps": 0.01 * s**-alpha}],
        lr=lr, eps=0.01, weight_decay=0.3,
    )  # fmt: skip

    def loss():
        return 0.5 * (module(x) - y).square().sum(1).mean()

    kernel = sum(
        (s ** (2 * alpha - 1) if any(p is one for one in inside) else 1) * jacobian @ jacobian.T
        for p, jacobian in jacobians(module, ensemble.inputs["probe"][0])
    )
    torch.testing.assert_close(
        empirical_ntk(ensemble.model, ensemble.parameters, ensemble.inputs["probe"])[0],
        kernel,
        rtol=1e-9,
        atol=1e-9,
    )
    for _ in range(4):
        stepper.zero_grad()
        loss().backward()
        stepper.step()
    together = train_pack(cells, CPU).cells[0]["train_loss"]
    assert together == pytest.approx(float(loss().detach()), rel=1e-9)
    assert train_pack(cells[:1], CPU).cells[0]["train_loss"] == pytest.approx(together, rel=1e-9)


def jacobians(module, x):
    """Of every parameter, the gradients of the single output for each sample."""
    for parameter in module.parameters():
        rows = [torch.autograd.grad(module(one[None])[0, 0], parameter)[0].flatten() for one in x]
        yield parameter, torch.stack(rows)


def test_a_branch_that_is_none_is_one_line():
    with pytest.raises(UserError, match=r"a pattern of model\.branches must be one of"):
        ensemble_of([cell_of(model=wrapped("block.*"), data=XOR)])


# -- theory --------------------------------------------------------------------------------------------


def theory_of(name, optimizer, model="resmlp", **keys):
    return {
        "exponents": json.dumps(json.loads(cell_of(name).exponents)), "optimizer": optimizer, "model": model,
        "lr_unit": "absolute", "loss": "cross_entropy", "depth": 4, "model.activation": "gelu", **keys,
    }  # fmt: skip


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize(
    ("name", "model", "update", "sgd_update", "edge", "sgd_edge"),
    [
        ("completep", "resmlp", 0.0, 0.0, 0.0, 0.0),
        ("depth_mup", "resmlp", -0.5, -0.5, 0.0, 0.0),
        ("completep", "transformer", 0.0, 0.0, 0.0, 0.0),
        ("mup", "resmlp", 0.0, -0.5, -0.5, 0.0),  # branches over sqrt(depth), rates that do not scale
        ("sp", "transformer", 0.0, -0.5, -0.5, 0.0),  # norms divide by the root of as many branches
        ("sp", "mlp", None, None, None, None),
    ],
)
def test_theory_in_depth(optimizer, name, model, update, sgd_update, edge, sgd_edge):
    """Adam changes a weight by L^-c, SGD by L^(-c - alpha), L blocks their sum by L^(1 - alpha) as much."""
    cell = theory_of(name, optimizer, model)
    expected = (update, edge) if optimizer == "adam" else (sgd_update, sgd_edge)
    for metric in ("movement_frobenius", "branch_linearization_error"):
        assert predicted_slope(metric, "hidden", cell, "depth") == expected[0]
    assert predicted_edge(cell, "depth") == expected[1]


def test_theory_in_depth_is_silent_where_activations_explode():
    cell = theory_of("mup", "adam", **{"model.depth_scaling": False})
    assert predicted_slope("movement_frobenius", "hidden", cell, "depth") is None
    assert verdict_in_depth(cell).startswith("theory is silent: branches are larger than depth^(-1/2)")


def test_kinks_halve_the_exponent_of_the_linearization():
    cell = theory_of("depth_mup", "adam", **{"model.activation": "relu"})
    assert predicted_slope("branch_linearization_error", "hidden", cell, "depth") == -0.25


def test_the_kernel_has_a_limit_in_depth():
    for name in ALPHA:
        assert predicted_slope("lambda_max_init", None, theory_of(name, "sgd"), "depth") == 0


def test_fit_sets_theory_beside_slopes_in_depth(monkeypatch):
    """Of a measure per layer, too, in a store whose slopes are as published."""
    store = paper_worlds.completep2025(
        cells_of(monkeypatch, "+experiment=completep2025", "seed=0,1"), true=True
    )
    asked = {"x": "depth", "pieces": 1, "facet": "parameterization", "where": "model.activation=gelu"}
    found = fit(store, metric="branch_linearization_error@hidden.0.first", **asked).table
    found = found.set_index("parameterization")
    assert found["theory"].to_dict() == {"completep": 0, "depth_mup": -0.5}
    assert (found["slope"] - found["theory"]).abs().max() < 0.05
