"""Steps without autograd: the chain's gradients and what optimizers make of them equal autograd's."""

import json

import pytest
import torch
from cells import DIGITS, make_cell
from tolerance import TOLERANCE

from runner import data
from runner.data.order import Batch
from runner.layers import ACTIVATIONS, chain, compiled_steps, parameters_of
from runner.models import MLP
from runner.models.descent import AutogradDescent, CompiledDescent, GraphedDescent
from runner.numerics import compiled, losses
from runner.optim import SGD, AdamW, Muon, has_compiled_steps
from runner.training.descent import OriginOfBatch, descent_of
from runner.training.run import Run

CPU = torch.device("cpu")
EXACT = TOLERANCE["cpu", "float64"]


def run_of(cells):
    sections = json.loads(cells[0].settings)
    if cells[0].lr_unit == "absolute":
        sections["measure"]["functions"] = {}  # lambda_max of convolutions in float64 takes long
    return Run(cells, sections, data.load(sections["data"]), CPU)


def pack(**changes):
    """Cells of every parameterization, with several lr, gamma and seeds."""
    return [
        make_cell(parameterization=name, seed=seed, lr=lr, gamma=gamma, base_width=4, **changes)
        for name, seed, lr, gamma in (
            ("sp", 0, 0.5, 1.0), ("ntk", 1, 0.3, 2.0), ("mup", 0, 0.7, 0.5), ("mean_field", 2, 0.1, 1.0),
        )
    ]  # fmt: skip


@pytest.fixture(params=["compiled", "plain"])
def products(request, monkeypatch):
    """Both kinds of chains; without a compiler both are plain."""
    if request.param == "plain":
        monkeypatch.setattr(compiled, "LARGEST", 0)
    return request.param


NETS = {
    "one hidden layer": {"depth": 1},
    "three hidden layers, bias": {"depth": 3, "model": {"bias": True, "sigma_bias": 0.3}},
    "ten outputs": {"data": DIGITS},
    "scaled inputs": {"model": {"normalize_input": True}},
    "thirty hidden layers": {"depth": 30, "width": 16},
}


@pytest.mark.usefixtures("products")
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("alike", [False, True])
def test_gradients_equal_autograd(net, activation, alike):
    changes = NETS[net]
    changes = changes | {"model": {"activation": activation, **changes.get("model", {})}}
    # Multipliers that all cells share go into the products.
    ensemble = run_of(pack(**changes)[1:2] * 2 if alike else pack(**changes)).ensemble
    x = ensemble.inputs["train"]
    expected = ensemble.model(x)
    layers = ensemble.model.chain(x.shape[1])
    torch.testing.assert_close(
        layers.forward(ensemble.model.flat(x)), expected.detach(), rtol=EXACT, atol=EXACT
    )
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(0), dtype=expected.dtype)
    parameters = dict(ensemble.parameters)
    by_autograd = torch.autograd.grad(expected, list(parameters.values()), weights)
    found = {
        path: gradient
        if isinstance(gradient, torch.Tensor)
        else gradient.factor * gradient.left @ gradient.right
        for path, gradient in layers.backward(weights.clone())
    }
    assert found.keys() == parameters.keys()
    for path, gradient in zip(parameters, by_autograd, strict=True):
        torch.testing.assert_close(
            found[path], gradient, rtol=EXACT, atol=EXACT * gradient.abs().max().item()
        )


def test_factors_wait_while_features_stay_moderate():
    factors = [torch.tensor([1.0, 2.0**-5]).view(2, 1, 1)] * 20
    kept = chain.postponed(factors)
    assert torch.equal(torch.stack(kept).prod(0), torch.stack(factors).prod(0))
    behind = torch.stack(factors).cumprod(0) / torch.stack(kept).cumprod(0)
    assert behind.min() > 2.0**-20
    assert [place for place, factor in enumerate(kept) if (factor != 1).any()] == [3, 7, 11, 15, 19]


def optimizer(name, **keys):
    return {"optimizer": {"_target_": f"runner.optim.{name}", **keys}}


CONVOLUTIONS = {"_target_": "runner.models.CNN"}
IMAGES = {"data": {**DIGITS, "train_size": 12}, "width": 6, "lr_unit": "absolute"}
RESIDUAL = {"_target_": "runner.models.ResidualMLP"}
ATTENTION = {"_target_": "runner.models.Transformer", "heads": 1}
SYMBOLS = {
    "model": {**ATTENTION, "causal": True, "readout": "every"},
    "loss": "cross_entropy", "lr_unit": "absolute",
    "data": {
        "_target_": "runner.data.text", "seed": 0, "context": 3, "size": 400, "train_size": 12,
        "test_size": 6, "probe_size": 4,
    },
}  # fmt: skip
RELU = {"model": {"activation": "relu"}}
SETTINGS = {
    "plain": {},
    "linear": {"model": {"activation": "linear"}, "center_output": True},
    "relu": RELU,
    "relu, warmup": {**RELU, **optimizer("SGD", warmup=5)},
    "relu, ten classes": {**RELU, "data": DIGITS, "center_output": True},
    "relu, centred minibatches": {**RELU, "batch_size": 7, "center_output": True},
    "relu, cross-entropy": {**RELU, "data": DIGITS, "loss": "cross_entropy", "batch_size": 7},
    "relu, centred fresh samples": {**RELU, "batch_size": 8, "data": {"online": True}, "center_output": True},
    "minibatches": {"batch_size": 8},
    "centred minibatches": {"batch_size": 8, "center_output": True},
    "relu, cross-entropy, one output": {
        **RELU, "data": {"linear": 0.0, "standardize": False}, "loss": "cross_entropy", "center_output": True,
    },
    "relu, fresh samples, cross-entropy": {
        **RELU, "data": {"online": True, "linear": 0.0, "standardize": False}, "loss": "cross_entropy",
        "batch_size": 8,
    },
    "fresh samples": {"batch_size": 8, "data": {"online": True}},
    "centred fresh samples": {"batch_size": 8, "data": {"online": True}, "center_output": True},
    "cross-entropy, ten classes": {"data": DIGITS, "loss": "cross_entropy"},
    "cross-entropy, one output, minibatches": {
        "data": {"linear": 0.0, "standardize": False}, "loss": "cross_entropy", "batch_size": 6,
    },
    "momentum": optimizer("SGD", momentum=0.9),
    "nesterov, decay, schedule": optimizer(
        "SGD", momentum=0.9, nesterov=True, weight_decay=0.1, schedule="cosine", warmup=3
    ),
    "decay": optimizer("SGD", weight_decay=0.1),
    "adam": optimizer("Adam") | {"lr_unit": "absolute"},
    "adamw, schedule": optimizer("AdamW", schedule="linear") | {"lr_unit": "absolute"},
    "signs": optimizer("SignSGD", momentum=0.5, weight_decay=0.1) | {"lr_unit": "absolute"},
    "lion, decay": optimizer("Lion", weight_decay=0.1) | {"lr_unit": "absolute"},
    "atan2": optimizer("AdamAtan2", weight_decay=0.1, independent_decay=True) | {"lr_unit": "absolute"},
    "muon, decay": optimizer("Muon", weight_decay=0.1) | {"lr_unit": "absolute"},
    "bias": {"model": {"bias": True, "activation": "gelu"}},
    "residual": {"model": RESIDUAL},
    "residual, two layers, bias": {
        "model": {**RESIDUAL, "block_layers": 2, "bias": True, "activation": "tanh"}, "batch_size": 7,
    },
    "residual, decay": {"model": {**RESIDUAL, "activation": "erf"}, **optimizer("SGD", weight_decay=0.1)},
    "convolutions": {"model": CONVOLUTIONS, **IMAGES},
    "convolutions, minibatches, tanh": {
        "model": {**CONVOLUTIONS, "activation": "tanh", "kernel_size": 5}, **IMAGES, "batch_size": 7,
        "center_output": True,
    },
    "residual convolutions": {"model": {"_target_": "runner.models.ResNet"}, **IMAGES},
    "residual convolutions, gelu, momentum": {
        "model": {"_target_": "runner.models.ResNet", "activation": "gelu", "block_layers": 1}, **IMAGES,
        **optimizer("SGD", momentum=0.5),
    },
    "convolutions of sixteen channels": {
        "model": {**CONVOLUTIONS, "activation": "tanh"}, **IMAGES, "width": 16, "batch_size": 7,
    },
    "residual convolutions of sixteen channels": {
        "model": {"_target_": "runner.models.ResNet", "block_layers": 1}, **IMAGES, "width": 16,
    },
    "convolutions that pool": {"model": {**CONVOLUTIONS, "pool": 2}, **IMAGES},
    "convolutions that pool, remainders, tanh": {
        "model": {**CONVOLUTIONS, "pool": 3, "activation": "tanh"}, **IMAGES, "batch_size": 7,
    },
    "convolutions with strides": {"model": {**CONVOLUTIONS, "stride": 2}, **IMAGES},
    "convolutions of one pixel": {"model": {**CONVOLUTIONS, "kernel_size": 1}, **IMAGES},
    "convolutions, bias": {"model": {**CONVOLUTIONS, "bias": True, "sigma_bias": 0.3}, **IMAGES},
    "residual convolutions, bias, minibatches": {
        "model": {"_target_": "runner.models.ResNet", "bias": True, "sigma_bias": 0.3, "activation": "tanh"},
        **IMAGES, "batch_size": 7,
    },
    "attention": {"model": ATTENTION, "data": DIGITS},
    "attention, bias, two": {
        "model": {**ATTENTION, "heads": 2, "bias": True, "sigma_bias": 0.3, "activation": "tanh"},
        "data": DIGITS, "batch_size": 7,
    },
    "attention, the last of those before": {
        "model": {**ATTENTION, "causal": True, "readout": "last", "activation": "relu"}, "data": DIGITS,
        "center_output": True,
    },
    "symbols": SYMBOLS,
    "symbols, centred minibatches, adam": {
        **SYMBOLS, "batch_size": 7, "center_output": True, **optimizer("Adam"),
    },
    "symbols, fresh windows": {**SYMBOLS, "batch_size": 4, "data": {**SYMBOLS["data"], "online": True}},
    "symbols, tied": {**SYMBOLS, "model": {**SYMBOLS["model"], "tied": True}},
    "attention, momentum": {"model": ATTENTION, "data": DIGITS, **optimizer("SGD", momentum=0.5)},
}  # fmt: skip
NOT_COMPILED = {
    "convolutions with strides",
    "symbols, tied",
    "atan2",
    "muon, decay",
    "relu, atan2",
    "relu, muon, decay",
}
# The same optimizers where steps can be compiled.
SETTINGS |= {
    f"relu, {name}": {**RELU, **keys}
    for name, keys in SETTINGS.items()
    if "optimizer" in keys and "model" not in keys
}


@pytest.mark.parametrize("blocks", [False, True])
@pytest.mark.parametrize("case", SETTINGS)
def test_steps_equal_autograd(case, products, blocks, monkeypatch):
    """Of batches as a whole, and cut into blocks of different sizes."""
    if blocks:
        if products == "plain":
            pytest.skip("no blocks in torch")
        monkeypatch.setattr(compiled_steps, "block_of", lambda *_: 5)
    cells = pack(**SETTINGS[case])
    chained, reference = run_of(cells), run_of(cells)
    reference.descent = AutogradDescent(
        reference.ensemble, reference.optimizer, OriginOfBatch(reference.start)
    )
    for step in range(15):
        reference.advance(step)
    taken = 0
    while taken < 15:
        taken = chained.advance(taken, min(taken + 4, 15))
    if products == "compiled" and case not in NOT_COMPILED:
        assert isinstance(chained.descent, CompiledDescent)
    torch.testing.assert_close(chained.peak, reference.peak, rtol=EXACT, atol=EXACT)
    for path, value in reference.ensemble.parameters.items():
        tolerance = EXACT * value.abs().max().item()
        torch.testing.assert_close(chained.ensemble.parameters[path], value, rtol=EXACT, atol=tolerance)


@pytest.mark.parametrize("batch_size", [None, 3])
@pytest.mark.parametrize("momentum", [0, 0.5])
def test_steps_in_one_go_are_those_one_by_one(batch_size, momentum):
    """To the last bit, with cells that diverge on the way and rates that change."""
    runs = []
    for most in (1, 5):
        changes = {
            "batch_size": batch_size,
            "steps": 40,
            **RELU,
            **optimizer("SGD", warmup=7, momentum=momentum),
        }
        cells = [make_cell(lr=lr, seed=seed, **changes) for lr in (0.5, 2.2, 30.0) for seed in (0, 1)]
        run, step = run_of(cells), 0
        while step < 40 and run.active:
            step = run.advance(step, min(step + most, 40))
            assert run.descent is None or (run.descent.at_once > 1) == (compiled.who() == "runner")
        run.recorder.peak(run.active, run.peak)
        runs.append(run)
    one, several = runs
    assert one.active == several.active
    assert 0 < len(one.active) < 6
    assert one.recorder.tables(0.0, CPU).cells == several.recorder.tables(0.0, CPU).cells
    for path, value in one.ensemble.parameters.items():
        assert torch.equal(several.ensemble.parameters[path], value)


@pytest.mark.skipif(compiled.who() == "torch", reason="no C compiler here, or no AVX2")
@pytest.mark.parametrize("model", ["MLP", "ResidualMLP", "CNN", "ResNet", "Transformer"])
@pytest.mark.parametrize("blocks", [False, True])
def test_a_cell_is_the_same_beside_one_that_diverges(model, blocks, monkeypatch):
    """To the last bit, though cells share their memory."""
    if blocks:
        monkeypatch.setattr(compiled_steps, "block_of", lambda *_: 5)
    changes = {"model": {"_target_": f"runner.models.{model}", "activation": "linear"}, **IMAGES, "width": 8}
    lost, cell = (make_cell(**changes, lr=lr, seed=seed) for seed, lr in enumerate((1e300, 0.1)))
    alone, beside = run_of([cell]), run_of([lost, cell])
    for run in (alone, beside):
        run.descent = descent_of(run.start, run.optimizer)
        assert isinstance(run.descent, CompiledDescent)
        run.descent.several([Batch()] * 5)
    parameters = beside.ensemble.parameters
    assert not all(value[0].isfinite().all() for value in parameters.values())
    for path, value in alone.ensemble.parameters.items():
        assert torch.equal(parameters[path][1], value[0])


def test_plain_descent_forms_no_gradient(monkeypatch):
    """The product goes into the weight: nothing as large as a weight is written besides."""
    run = run_of(pack())
    run.advance(0)
    for slot in run.optimizer.slots:
        slot.product.fill_(7.0)
        slot.scratch.fill_(7.0)
    run.advance(1)
    assert all((slot.product == 7.0).all() and (slot.scratch == 7.0).all() for slot in run.optimizer.slots)


class OwnMLP(MLP):
    """May compute anything in its forward."""


def test_only_what_is_known_to_be_a_chain_is_trained_as_one():
    own = run_of(pack(model={"_target_": f"{__name__}.OwnMLP"}))
    clipped = run_of(pack(**optimizer("SGD", clip=0.5)))
    for run in (own, clipped):
        assert isinstance(descent_of(run.start, run.optimizer), AutogradDescent)


class OwnSGD(SGD):
    """May do anything in its update."""

    def update(self, slot, parameter, gradient):
        parameter.add_(gradient, alpha=-1e-3)


def test_only_optimizers_that_say_so_have_compiled_steps():
    assert not has_compiled_steps(OwnSGD, {})
    assert not has_compiled_steps(Muon, {})  # whose class of Adam has them
    assert has_compiled_steps(AdamW, {"weight_decay": 0.1})
    assert not has_compiled_steps(AdamW, {"clip": 1.0})


def test_looking_at_the_losses_later_finds_the_same():
    cells = [make_cell(lr=lr, seed=seed, steps=40) for lr in (0.5, 2.2, 3.0, 20.0) for seed in (0, 1)]
    often, seldom = run_of(cells), run_of(cells)
    seldom.look_every = 4
    for run in (often, seldom):
        for step in range(40):
            if step in (0, 17):
                run.measure(step)
            run.advance(step)
        run.measure(40)
        run.recorder.peak(run.active, run.peak)
    tables = [run.recorder.tables(0.0, CPU) for run in (often, seldom)]
    assert tables[0].cells == tables[1].cells
    assert {row["status"] for row in tables[0].cells} == {"ok", "diverged"}
    assert {row["diverged_step"] for row in tables[0].cells if row["status"] == "diverged"} - {17, 40}


@pytest.mark.gpu
@pytest.mark.parametrize("case", SETTINGS)
def test_a_replayed_recording_takes_the_same_steps(case):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    cells = pack(**SETTINGS[case])
    sections = json.loads(cells[0].settings)
    runs = [Run(cells, sections, data.load(sections["data"]), torch.device("cuda")) for _ in range(2)]
    eager, graphed = runs
    eager.descent = descent_of(eager.start, eager.optimizer, graphed=False)
    for step in range(15):
        for run in runs:
            run.advance(step)
    assert isinstance(graphed.descent, GraphedDescent)
    for path, value in eager.ensemble.parameters.items():
        torch.testing.assert_close(graphed.ensemble.parameters[path], value, rtol=EXACT, atol=EXACT)


@pytest.mark.parametrize("loss", losses.LOSSES)
@pytest.mark.parametrize("outputs", [1, 3])
def test_gradients_of_losses(loss, outputs):
    generator = torch.Generator().manual_seed(0)
    f = torch.randn(4, 5, outputs, generator=generator, dtype=torch.float64, requires_grad=True)
    targets = torch.randn(1, 5, outputs, generator=generator, dtype=torch.float64)
    (expected,) = torch.autograd.grad(losses.LOSSES[loss](f, targets).sum(), f)
    torch.testing.assert_close(losses.GRADIENTS[loss](f.detach(), targets), expected, rtol=EXACT, atol=EXACT)
    per_cell = targets.expand(4, -1, -1)
    torch.testing.assert_close(losses.GRADIENTS[loss](f.detach(), per_cell), expected, rtol=EXACT, atol=EXACT)


def test_parameters_of_a_chain_are_those_of_the_model():
    run = run_of(pack(model={"bias": True}))
    paths = [path for path, _, _, _ in parameters_of(run.ensemble.model)]
    assert [slot.path for slot in run.optimizer.slots] == paths
