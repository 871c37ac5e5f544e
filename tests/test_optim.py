"""Optimizers: torch.optim's own on one cell, and the symmetries that say how they scale."""

import json
import math
from dataclasses import replace

import plain_optimizers as plain
import pytest
import torch
from cells import make_cell
from reference import ABC, ROLES
from torch.nn.utils import clip_grad_norm_
from torch.optim import lr_scheduler

from runner import data
from runner.errors import UserError
from runner.layers import parameters_of
from runner.models.ensemble import Ensemble
from runner.numerics import losses
from runner.optim import Optimizer
from runner.optim.checks import below_one, flag, not_negative, two_below_one
from runner.optim.schedule import Schedule
from runner.planning.plan import make_plan
from runner.scaling.parameterization import Scaling
from runner.training.preflight import inspect
from runner.training.run import Run
from runner.training.train import train_pack

CPU = torch.device("cpu")
STEPS = 25
BASE = {
    "width": 16, "base_width": 16, "parameterization": "mup", "lr_unit": "absolute", "steps": STEPS,
    "model": {"bias": True, "sigma_bias": 0.3},
    "measure": {
        "points": 2,
        "functions": {n: {"_target_": f"runner.measures.{n}"} for n in ("ntk_change", "feature_movement")},
    },
}  # fmt: skip


def section(name, **keys):
    return {"_target_": f"runner.optim.{name}", **keys}


def trained(cells, steps=None):
    """Train a pack and return it with its parameters as they are."""
    sections = json.loads(cells[0].settings)
    run = Run(cells, sections, data.load(sections["data"]), CPU)
    for step in range(cells[0].steps if steps is None else steps):
        run.advance(step)
    return run


def trained_by_torch(cell, make, schedule=None, clip=None):
    """Train one cell with an optimizer of torch's: ``make`` takes (path, role, parameter) triples."""
    sections = json.loads(cell.settings)
    ensemble = Ensemble([cell], sections["model"], data.load(sections["data"]), CPU)
    parameters = list(ensemble.parameters.values())
    optimizer = make([(spec.role, parameter) for _, spec, parameter, _ in parameters_of(ensemble.model)])
    scheduler = schedule(optimizer) if schedule else None
    loss_of = losses.LOSSES[cell.loss]
    for _ in range(cell.steps):
        optimizer.zero_grad()
        f = ensemble.function(ensemble.model(ensemble.inputs["train"]), "train")
        loss_of(f, ensemble.targets["train"]).sum().backward()
        if clip:
            clip_grad_norm_(parameters, clip)
        optimizer.step()
        if scheduler:
            scheduler.step()
    return ensemble.parameters


def assert_same(actual, expected, rel=1e-12):
    """Compare parameters, each relative to its own size."""
    for path, value in expected.items():
        torch.testing.assert_close(
            actual[path],
            value,
            rtol=rel,
            atol=rel * value.abs().max().item(),
            msg=lambda m, p=path: f"{p}: {m}",
        )


def warm(after):
    """A scheduler of torch's with 5 steps of warm-up, then ``after`` over the other 20."""

    def schedule(optimizer):
        rising = lr_scheduler.LinearLR(optimizer, start_factor=1 / 5, total_iters=4)
        return lr_scheduler.SequentialLR(optimizer, [rising, after(optimizer)], milestones=[5])

    return schedule


def cosine(optimizer, steps=20):
    return lr_scheduler.CosineAnnealingLR(optimizer, steps)


def linear(optimizer, steps=20):
    return lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)


SGD, ADAM, ADAMW = torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW
CASES = {  # ours, lr, torch's class and keys, torch's scheduler, clip
    "plain": (section("SGD"), 0.1, SGD, {}, None, None),
    "decay": (section("SGD", weight_decay=0.3), 0.1, SGD, {"weight_decay": 0.3}, None, None),
    "momentum": (section("SGD", momentum=0.9), 0.02, SGD, {"momentum": 0.9}, None, None),
    "nesterov, decay": (
        section("SGD", momentum=0.8, nesterov=True, weight_decay=0.1), 0.02,
        SGD, {"momentum": 0.8, "nesterov": True, "weight_decay": 0.1}, None, None,
    ),
    "momentum, clip, cosine": (
        section("SGD", momentum=0.9, clip=0.5, schedule="cosine"), 0.1,
        SGD, {"momentum": 0.9}, lambda optimizer: cosine(optimizer, STEPS), 0.5,
    ),
    "warm-up, cosine": (
        section("SGD", warmup=5, schedule="cosine"), 0.1, SGD, {}, warm(cosine), None,
    ),
    "warm-up of a fifth, linear, decay, clip": (
        section("SGD", warmup=0.2, schedule="linear", weight_decay=0.2, clip=0.3), 0.1,
        SGD, {"weight_decay": 0.2}, warm(linear), 0.3,
    ),
    "adam": (section("Adam"), 0.02, ADAM, {}, None, None),
    "adam, eps, betas": (
        section("Adam", eps=1e-3, betas=[0.5, 0.9]), 0.02,
        ADAM, {"eps": 1e-3, "betas": (0.5, 0.9)}, None, None,
    ),
    "adam, coupled decay, clip": (
        section("Adam", weight_decay=0.1, clip=0.5), 0.02, ADAM, {"weight_decay": 0.1}, None, 0.5,
    ),
    "adamw": (section("AdamW"), 0.02, ADAMW, {}, None, None),
    "adamw, warm-up, cosine, clip": (
        section("AdamW", weight_decay=0.5, warmup=5, schedule="cosine", clip=0.5), 0.05,
        ADAMW, {"weight_decay": 0.5}, warm(cosine), 0.5,
    ),
    "lion": (section("Lion"), 0.01, plain.Lion, {"betas": (0.9, 0.99)}, None, None),
    "lion, betas, decay, clip, cosine": (
        section("Lion", betas=[0.5, 0.8], weight_decay=0.3, clip=0.5, schedule="cosine"), 0.01,
        plain.Lion, {"betas": (0.5, 0.8), "weight_decay": 0.3},
        lambda optimizer: cosine(optimizer, STEPS), 0.5,
    ),
    "atan2": (
        section("AdamAtan2"), 0.02, plain.AdamAtan2, {"betas": (0.9, 0.999), "a": 1.0, "b": 1.0}, None, None,
    ),
    "atan2, a, b, betas, decay, clip": (
        section("AdamAtan2", a=1.27, b=2, betas=[0.5, 0.9], weight_decay=0.3, clip=0.5), 0.02,
        plain.AdamAtan2, {"betas": (0.5, 0.9), "a": 1.27, "b": 2.0, "weight_decay": 0.3}, None, 0.5,
    ),
    "signs": (section("SignSGD"), 0.01, ADAM, {"betas": (0.0, 0.0), "eps": 0.0}, None, None),
    "signs, decay, linear": (
        section("SignSGD", weight_decay=0.3, schedule="linear"), 0.01,
        ADAMW, {"betas": (0.0, 0.0), "eps": 0.0, "weight_decay": 0.3},
        lambda optimizer: linear(optimizer, STEPS), None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_each_is_torchs_own_on_one_cell(case):
    ours, lr, kind, keys, schedule, clip = CASES[case]
    cells = [
        make_cell(**BASE, lr=lr * share, seed=seed, optimizer=ours) for seed, share in ((0, 1), (1, 0.5))
    ]
    run = trained(cells)
    for position, cell in enumerate(cells):
        expected = trained_by_torch(
            cell,
            lambda roles, lr=cell.lr: kind([parameter for _, parameter in roles], lr=lr, **keys),
            schedule,
            clip,
        )
        assert_same(
            {path: value[position : position + 1] for path, value in run.ensemble.parameters.items()},
            expected,
        )


def exponent(name, letter, role):
    return 0.0 if role == "scalar" else ABC[name][letter][ROLES.index("input" if role == "vector" else role)]


SCALED = {  # ours, torch's class, its keys beside lr, given r, gamma and the exponents c of SGD and of Adam
    "sgd": (
        section("SGD", momentum=0.9, weight_decay=0.1), SGD,
        lambda r, gamma, c, c_adam: {
            "lr": gamma**2 * r**-c, "weight_decay": 0.1 * r**c, "momentum": 0.9,
        },
    ),
    "adam": (
        section("Adam", eps=1e-3, weight_decay=0.1), ADAM,
        lambda r, gamma, c, c_adam: {
            "lr": gamma * r**-c_adam, "weight_decay": 0.1 * r**c, "eps": 1e-3 * r ** (c - c_adam) / gamma,
        },
    ),
    "adamw": (
        section("AdamW", eps=1e-3, weight_decay=0.1), ADAMW,
        lambda r, gamma, c, c_adam: {
            "lr": gamma * r**-c_adam, "weight_decay": 0.1 * r**c_adam,
            "eps": 1e-3 * r ** (c - c_adam) / gamma,
        },
    ),
    "signs": (
        section("SignSGD"), ADAM,
        lambda r, gamma, c, c_adam: {"lr": gamma * r**-c_adam, "eps": 0.0, "betas": (0.0, 0.0)},
    ),
    "lion": (
        section("Lion", weight_decay=0.1), plain.Lion,
        lambda r, gamma, c, c_adam: {
            "lr": gamma * r**-c_adam, "betas": (0.9, 0.99), "weight_decay": 0.1 * r**c_adam,
        },
    ),
    "atan2": (
        section("AdamAtan2"), plain.AdamAtan2,
        lambda r, gamma, c, c_adam: {"lr": gamma * r**-c_adam, "betas": (0.9, 0.999), "a": 1.0, "b": 1.0},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ABC)
@pytest.mark.parametrize("case", SCALED)
def test_scales_are_those_of_the_table(case, name):
    ours, kind, keys_of = SCALED[case]
    ratio, gamma, lr = 4, 2.0, 0.01
    changes = {**BASE, "parameterization": name, "base_width": 4, "gamma": gamma, "lr": lr}
    cell = make_cell(**changes, optimizer=ours)

    def make(roles):
        groups = []
        for role, parameter in roles:
            keys = keys_of(ratio, gamma, exponent(name, "c", role), exponent(name, "c_adam", role))
            groups.append({"params": [parameter], **keys, "lr": lr * keys["lr"]})
        return kind(groups)

    assert_same(trained([cell]).ensemble.parameters, trained_by_torch(cell, make))


@pytest.mark.parametrize("name", ["AdamW", "SignSGD", "Lion", "AdamAtan2", "Muon"])
def test_independent_decay_is_the_schedule_s_alone(name):
    """Of weights without gradient: lr, gamma and width do not matter."""
    keys = {"weight_decay": 0.1, "independent_decay": True, "warmup": 2, "schedule": "linear"}
    cells = [
        make_cell(
            **{**BASE, "base_width": 4, "steps": 5, "lr": lr, "gamma": gamma}, optimizer=section(name, **keys)
        )
        for lr, gamma in ((0.1, 1.0), (0.02, 7.0))
    ]
    run = trained(cells, steps=0)
    parameters = list(run.ensemble.parameters.values())
    start = [p.detach().clone() for p in parameters]
    for _ in range(5):
        run.optimizer.step(parameters, [torch.zeros_like(p) for p in parameters])
    left = math.prod(1 - 0.1 * factor for factor in (0.5, 1, 1, 2 / 3, 1 / 3))
    for p, q in zip(parameters, start, strict=True):
        torch.testing.assert_close(p.detach(), left * q, rtol=1e-12, atol=0)


def test_independent_decay_is_adamws_with_another_number():
    ours = section("AdamW", weight_decay=0.01, independent_decay=True, schedule="cosine")
    theirs = section("AdamW", weight_decay=0.01 / 0.05, schedule="cosine")
    one, other = (
        trained([make_cell(**BASE, lr=0.05, optimizer=o)]).ensemble.parameters for o in (ours, theirs)
    )
    assert_same(one, other)


def test_signum_is_the_sign_of_a_running_mean():
    cell = make_cell(**BASE, lr=0.01, optimizer=section("SignSGD", momentum=0.8))
    run = trained([cell], steps=0)
    start = {path: value.detach().clone() for path, value in run.ensemble.parameters.items()}
    slots = run.optimizer.slots
    generator = torch.Generator().manual_seed(0)
    means = [0.0] * len(slots)
    expected = list(start.values())
    for _ in range(10):
        gradients = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in expected]
        means = [0.8 * mean + 0.2 * g for mean, g in zip(means, gradients, strict=True)]
        expected = [p - 0.01 * mean.sign() for p, mean in zip(expected, means, strict=True)]
        run.optimizer.step(list(run.ensemble.parameters.values()), gradients)
    assert_same(run.ensemble.parameters, dict(zip(start, expected, strict=True)))


class HalfSGD(Optimizer):
    """An optimizer of one's own, with a key of its own."""

    def __init__(self, model, cells, lr, *, share=0.5, weight_decay=0.0, clip=None, schedule="constant"):
        super().__init__(model, cells, lr, weight_decay=weight_decay, clip=clip, schedule=schedule)
        self.share = share

    def update(self, slot, parameter, gradient):
        parameter.addcmul_(gradient, slot.rate, value=self.share)


class OldSGD(Optimizer):
    """As one was written before slot.rate held all that differs between steps."""

    def update(self, slot, parameter, gradient, factor):
        parameter.addcmul_(gradient, slot.minus_lr, value=factor)


def test_an_optimizer_of_an_older_form_is_refused_before_training():
    with pytest.raises(UserError, match=r"update\(slot, parameter, gradient\), got .*factor"):
        inspect(make_cell(**BASE, optimizer={"_target_": f"{__name__}.OldSGD"}))


def test_an_optimizer_of_ones_own():
    keys = {"weight_decay": 0.1, "clip": 0.5, "schedule": "linear"}
    own = make_cell(**BASE, lr=0.1, optimizer={"_target_": f"{__name__}.HalfSGD", **keys})
    half = make_cell(**BASE, lr=0.05, optimizer=section("SGD", **keys))
    inspect(own)
    assert_same(trained([own]).ensemble.parameters, trained([half]).ensemble.parameters)
    with pytest.raises(UserError, match=r"optimizer.momentum must be one of"):
        inspect(make_cell(**BASE, optimizer={"_target_": f"{__name__}.HalfSGD", "momentum": 0.9}))


FULL = {  # every part that has a scale
    "sgd": section("SGD", weight_decay=0.05, clip=0.5),
    "momentum": section("SGD", momentum=0.9, weight_decay=0.05, clip=0.5, warmup=0.2, schedule="cosine"),
    "nesterov": section("SGD", momentum=0.9, nesterov=True, weight_decay=0.05, clip=0.5),
    "adam": section("Adam", eps=0.01, weight_decay=0.05, clip=0.5),
    "adamw": section("AdamW", eps=0.01, weight_decay=0.05, clip=0.5, schedule="linear"),
    "signs": section("SignSGD", weight_decay=0.05),
    "signum": section("SignSGD", momentum=0.5, weight_decay=0.05, clip=0.5),
    "lion": section("Lion", weight_decay=0.05, clip=0.5, schedule="cosine"),
    "atan2": section("AdamAtan2", weight_decay=0.01, independent_decay=True, clip=0.5),
    "muon": section("Muon", eps=0.01, weight_decay=0.05, clip=0.5, warmup=0.2),
    "flow": section("Flow", weight_decay=0.05),
}
INVARIANT = ("train_loss", "test_loss", "ntk_change", "feature_movement")


def shifted(cell):
    """a + t, b - t with c - 2t under SGD and c - t under Adam, another t per role."""
    table = json.loads(cell.exponents)
    for role, t in (("input", 0.3), ("hidden", -0.7), ("output", 0.25)):
        table["a"][role] += t
        table["b"][role] -= t
        table["c"]["sgd"][role] -= 2 * t
        table["c"]["adam"][role] -= t
    return replace(cell, exponents=json.dumps(table))


@pytest.mark.parametrize("case", FULL)
def test_the_symmetry_of_the_exponents_holds(case):
    """However a weight is split: mup is mean_field and a shifted table, with decay, clipping and eps."""
    optimizer, lr = FULL[case], 0.05 if "sgd" in case else 0.01
    changes = {**BASE, "base_width": 2, "gamma": 3.0, "lr": lr, "steps": 30, "optimizer": optimizer}
    mup, mean_field = (make_cell(**changes | {"parameterization": name}) for name in ("mup", "mean_field"))
    rows = train_pack([mup, mean_field, shifted(mup)], CPU).cells
    assert rows[0]["train_loss"] < rows[0]["initial_train_loss"]
    for row in rows[1:]:
        assert {key: row[key] for key in INVARIANT} == pytest.approx(
            {key: rows[0][key] for key in INVARIANT}, rel=1e-9
        )


@pytest.mark.parametrize("case", FULL)
def test_parameterizations_coincide_at_base_width(case):
    lr = 0.05 if "sgd" in case else 0.01
    cells = [make_cell(**BASE | {"parameterization": n, "lr": lr, "optimizer": FULL[case]}) for n in ABC]
    rows = train_pack(cells, CPU).cells
    for row in rows[1:]:
        assert [row[key] for key in INVARIANT] == pytest.approx([rows[0][key] for key in INVARIANT], rel=1e-9)


@pytest.mark.parametrize("case", [name for name in FULL if name != "signs"])
def test_the_first_step_changes_f_alike_at_any_gamma(case):
    """To first order in lr; clipping and eps bite at this size, decay is off: it pulls on h, not on f."""
    optimizer = {key: value for key, value in FULL[case].items() if key not in ("weight_decay", "warmup")}
    changes = {**BASE, "lr": 1e-7, "steps": 1, "center_output": True, "optimizer": optimizer}
    rows = train_pack([make_cell(**changes, gamma=gamma) for gamma in (0.1, 1.0, 10.0)], CPU).cells
    falls = [1 - row["train_loss"] / row["initial_train_loss"] for row in rows]
    assert falls[1] > 1e-9
    assert falls == pytest.approx([falls[1]] * 3, rel=1e-5)


def test_each_cell_is_clipped_by_its_own_norm():
    cells = [make_cell(**BASE, lr=1.0, seed=seed, optimizer=section("SGD", clip=1.0)) for seed in (0, 1)]
    run = trained(cells, steps=0)
    parameters = list(run.ensemble.parameters.values())
    before = [p.detach().clone() for p in parameters]
    count = sum(p[0].numel() for p in parameters)
    sizes = torch.tensor([5.0, 0.5], dtype=torch.float64) / count**0.5
    run.optimizer.step(
        parameters, [torch.ones_like(p) * sizes.view(-1, *[1] * (p.dim() - 1)) for p in parameters]
    )
    moved = [
        math.sqrt(sum(((p - q)[i] ** 2).sum().item() for p, q in zip(parameters, before, strict=True)))
        for i in range(2)
    ]
    assert moved == pytest.approx([1.0, 0.5], rel=1e-6)


@pytest.mark.parametrize("name", ABC)
def test_eps_scales_as_the_gradients_do(name):
    """Measured: RMS gradients of centred nets at init from width 32 to 256, against the factor of eps."""
    changes = BASE | {
        "parameterization": name,
        "base_width": 32,
        "center_output": True,
        "model": {"bias": False},
    }
    sizes = []
    for width in (32, 256):
        run = trained([make_cell(**changes | {"width": width}, seed=seed) for seed in range(8)], steps=0)
        f = run.ensemble.function(run.ensemble.model(run.ensemble.inputs["train"]), "train")
        loss = run.loss(f, run.ensemble.targets["train"])
        gradients = torch.autograd.grad(loss.sum(), list(run.ensemble.parameters.values()))
        sizes.append(torch.stack([g.square().mean().sqrt() for g in gradients]))
    measured = (sizes[1] / sizes[0]).log() / math.log(8)
    cell = make_cell(**changes | {"width": 256})
    expected = [math.log(Scaling([cell]).gradient(role).item(), 8) for role in ROLES]
    if name == "sp":  # as PyTorch has it: one eps, though gradients shrink
        assert expected == [0, 0, 0]
    else:
        assert measured.tolist() == pytest.approx(expected, abs=0.1)


def test_a_diverged_cell_takes_its_state_along():
    changes = {**BASE, "optimizer": section("SGD", momentum=0.9, weight_decay=0.1, clip=None)}
    wild, *tame = (make_cell(**changes, lr=lr) for lr in (1e3, 0.01, 0.02))
    rows = train_pack([tame[0], wild, tame[1]], CPU).cells
    assert [row["status"] for row in rows] == ["ok", "diverged", "ok"]
    alone = train_pack(tame, CPU).cells
    for row, other in zip((rows[0], rows[2]), alone, strict=True):
        assert [row[key] for key in INVARIANT] == pytest.approx([other[key] for key in INVARIANT], rel=1e-9)


@pytest.mark.parametrize("case", FULL)
def test_state_goes_on_where_it_was_left(case):
    cells = [make_cell(**BASE, lr=0.01, seed=seed, optimizer=FULL[case]) for seed in (0, 1, 2)]
    through, first, second = trained(cells), trained(cells, steps=10), trained(cells, steps=0)
    kept = torch.tensor([2, 0])
    first.select(kept)
    state = first.optimizer.state_dict()
    assert state["step"] == 10
    assert all(value.shape[0] == 2 for name, value in state.items() if name != "step")
    second.select(kept)
    with torch.no_grad():
        for mine, saved in zip(
            second.ensemble.parameters.values(), first.ensemble.parameters.values(), strict=True
        ):
            mine.copy_(saved)
    first.advance(10)  # a state is a copy: going on does not change it
    second.optimizer.load_state_dict(state)
    for step in range(10, STEPS):
        second.advance(step)
    expected = {path: value[kept] for path, value in through.ensemble.parameters.items()}
    assert_same(second.ensemble.parameters, expected)


def test_state_of_another_pack_is_refused():
    one, two = ([make_cell(**BASE, seed=s, optimizer=FULL["adam"]) for s in range(n)] for n in (1, 2))
    adam, adam_of_two = trained(one, steps=1).optimizer, trained(two, steps=1).optimizer
    momentum = trained([make_cell(**BASE, optimizer=FULL["momentum"])], steps=1).optimizer
    for optimizer, state in ((adam, adam_of_two), (adam, momentum), (momentum, adam)):
        with pytest.raises(ValueError, match="state of another"):
            optimizer.load_state_dict(state.state_dict())


@pytest.mark.gpu
@pytest.mark.parametrize("case", FULL)
def test_cuda_agrees_with_cpu(case):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    lr = 0.05 if "sgd" in case else 0.01
    cells = [make_cell(**BASE | {"parameterization": n, "lr": lr, "optimizer": FULL[case]}) for n in ABC]
    on_cpu, on_cuda = (train_pack(cells, torch.device(device)).cells for device in ("cpu", "cuda"))
    for row, other in zip(on_cuda, on_cpu, strict=True):
        assert [row[key] for key in INVARIANT] == pytest.approx([other[key] for key in INVARIANT], rel=1e-7)


def test_warm_up_and_shapes():
    def factors(*arguments, steps=8):
        schedule = Schedule(*arguments, steps)
        return [schedule.factor(step) for step in range(steps)]

    assert factors("constant", 0) == [1] * 8
    assert factors("constant", 4) == factors("constant", 0.5) == [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]
    assert factors("linear", 4) == [0.25, 0.5, 0.75, 1, 1, 0.75, 0.5, 0.25]
    assert factors("cosine", 6) == pytest.approx([1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1, 1, 0.5])
    assert factors("cosine", 8) == [step / 8 for step in range(1, 9)]


def test_lambda_max_is_a_scale_for_gradient_descent_only():
    for optimizer, known in ((FULL["momentum"], True), (FULL["adam"], False)):
        row = train_pack([make_cell(**BASE, lr=0.01, optimizer=optimizer)], CPU).cells[0]
        assert (row["lr_sharpness"] is not None) == known
        assert row["lambda_max_init"] > 0


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (section("SGD", schedule="cosin"), "optimizer.schedule must be one of .*did you mean 'cosine'"),
        (section("SGD", weight_decay=-1), "optimizer.weight_decay must be a number >= 0, got -1"),
        (section("SGD", momentum=1), "optimizer.momentum must be a number >= 0 and < 1, got 1"),
        (section("SGD", nesterov=True), "optimizer.momentum must be > 0 with optimizer.nesterov=true"),
        (section("SGD", momentun=0.9), "optimizer.momentun must be one of .*did you mean 'momentum'"),
        (section("SGD", betas=[0.9, 0.9]), "optimizer.betas must be one of"),
        (section("SGD", clip=0), "optimizer.clip must be a number > 0, got 0; null is no limit"),
        (section("SGD", warmup=26), "optimizer.warmup must be at most steps = 25, got 26"),
        (
            section("SGD", warmup=2.5),
            "optimizer.warmup must be a number of steps or a fraction below 1, got 2.5",
        ),
        (section("Adam", betas=[0.9, 1.0]), r"optimizer.betas\[1\] must be a number >= 0 and < 1, got 1"),
        (section("Adam", eps=0), "optimizer.eps must be a number > 0, got 0"),
        (section("SignSGD", eps=1), "optimizer.eps must be one of"),
        (section("AdamAtan2", eps=1e-8), "optimizer.eps must be one of"),
        (section("AdamAtan2", a=0), "optimizer.a must be a number > 0, got 0"),
        (section("Lion", betas=[0.9]), r"optimizer.betas must be two numbers, got \[0.9\]"),
        (section("SGD", independent_decay=True), "optimizer.independent_decay must be one of"),
        (
            section("Lion", independent_decay=True, weight_decay=2),
            "optimizer.weight_decay must be below 1 with optimizer.independent_decay=true.*, got 2",
        ),
        (section("SGD", lr_hidden=0), "optimizer.lr_hidden must be a number > 0, got 0"),
        (section("Muon", lr_input=-1), "optimizer.lr_input must be a number > 0, got -1"),
        (section("SGD", lr_hiden=1), "optimizer.lr_hiden must be one of .*did you mean 'lr_hidden'"),
    ],
)
def test_bad_settings_are_refused_before_training(optimizer, message):
    with pytest.raises(UserError, match=message):
        inspect(make_cell(**BASE, optimizer=optimizer))


@pytest.mark.parametrize(
    ("check", "value", "message"),
    [
        (not_negative, "much", "must be a number >= 0, got much"),
        (not_negative, True, "must be a number >= 0, got true"),
        (below_one, None, "must be a number >= 0 and < 1, got null"),
        (flag, 1, "must be true or false, got 1"),
        (two_below_one, 0.9, "must be two numbers, got 0.9"),
        (two_below_one, [0.9], r"must be two numbers, got \[0.9\]"),
    ],
)
def test_values_of_another_type_are_refused(check, value, message):
    with pytest.raises(UserError, match=f"^optimizer.key {message}"):
        check("optimizer.key", value)


def test_what_does_not_fit_a_cell_is_refused_before_training():
    adam = make_cell(**BASE, optimizer=section("Adam"))
    inspect(adam)
    with pytest.raises(UserError, match="lr_unit must be absolute for Adam, got sharpness"):
        inspect(replace(adam, lr_unit="sharpness"))
    table = json.loads(adam.exponents)
    del table["c"]["adam"]
    with pytest.raises(UserError, match=r"parameterization.c must have a row adam .*, got sgd in mup"):
        inspect(replace(adam, exponents=json.dumps(table)))
    sgd = make_cell(**BASE, optimizer=section("SGD"))
    trained([replace(sgd, exponents=json.dumps(table))], steps=2)
    del table["c"]["sgd"]
    table["c"]["adam"] = {"input": 0, "hidden": 0, "output": 0}
    with pytest.raises(UserError, match=r"parameterization.c must have a row sgd .*, got adam in mup"):
        inspect(replace(adam, exponents=json.dumps(table)))


def test_every_kind_of_cell_in_a_pack_is_looked_at():
    cells = [make_cell(**BASE, lr=lr, optimizer=section("Adam")) for lr in (0.01, 0.02)]
    make_plan(cells)
    for last in ({"lr_unit": "sharpness"}, {"exponents": '{"a":{},"b":{},"c":{"sgd":{}}}'}):
        with pytest.raises(UserError, match=r"lr_unit must be absolute|must have a row adam"):
            make_plan([*cells, replace(cells[1], **last)])


@pytest.mark.parametrize(
    ("keys", "plain"),
    [
        ({"momentum": 0, "nesterov": False, "schedule": "constant", "clip": None, "warmup": 0}, True),
        ({"lr_hidden": 4.0}, True),
        ({"momentum": 0.9}, False),
        ({"weight_decay": 0.1}, False),
        ({"schedule": "cosine"}, False),
        ({"clip": 1.0}, False),
    ],
)
def test_kernel_descent_knows_plain_gradient_descent(keys, plain):
    functions = {"kernel_gd_error": {"_target_": "runner.measures.kernel_gd_error"}}
    measure = {"points": 4, "functions": functions}
    cell = make_cell(**BASE | {"measure": measure}, optimizer=section("SGD", **keys))
    if plain:
        inspect(cell)
    else:
        with pytest.raises(UserError, match="optimizer must be plain gradient descent"):
            inspect(cell)
