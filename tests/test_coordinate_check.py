"""`runner.coordinate_check`: the parts against the formula, planted faults, and what it can be given."""

import copy
from types import SimpleNamespace

import mup
import numpy as np
import pytest
import torch
from pages import EXAMPLES
from plain_nets import Transformer, optimizer, sequences
from torch import nn

import runner
from runner.coordinates.watch import Watch
from runner.errors import UserError

ONCE = {"widths": (32, 64, 128, 256), "seeds": 4, "steps": 1}
SGD, ADAM = torch.optim.SGD, torch.optim.Adam
KINDS = pytest.mark.parametrize("kind", [SGD, ADAM], ids=["sgd", "adam"])


def rms(x):
    return float(np.sqrt(np.mean(np.square(x.detach().numpy()))))


def moved(model):
    """Watch a model, change all its parameters, and return its changes."""
    torch.manual_seed(1)
    x = torch.randn(5, 4, 6, dtype=torch.float64)
    watch = Watch(model, lambda module: module(x))
    before = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return x, before, watch.changes(), watch


# -- the numbers -----------------------------------------------------------------------------------------


def test_the_parts_are_those_of_the_formula():
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double().train()
    x, before, found, watch = moved(model)
    assert watch.names == ["0", "2"]
    x_0, x_t = before[1](before[0](x)), model[1](model[0](x))
    assert found["0"]["update_own"] == pytest.approx(rms(model[0](x) - before[0](x)), rel=1e-12)
    assert found["0"]["update_passed"] == 0
    assert found["2"]["update_own"] == pytest.approx(rms(model[2](x_t) - before[2](x_t)), rel=1e-12)
    assert found["2"]["update_passed"] == pytest.approx(rms(before[2](x_t) - before[2](x_0)), rel=1e-12)
    assert found["2"]["update_size"] == pytest.approx(rms(model(x) - before(x)), rel=1e-12)
    assert model.training


class Inner(nn.Module):
    """Parameters beside layers, a layer used without being called, one called twice, and one weight twice."""

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.randn(6))
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.twice = nn.Linear(6, 6)
        self.tied = nn.Linear(6, 6, bias=False)
        self.tied.weight = self.twice.weight

    def forward(self, x):
        x = x + self.shift
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return 0.25 * self.tied(self.twice(self.twice(x)).relu_())


def test_the_parts_of_what_is_no_plain_layer():
    x, before, found, watch = moved(Inner().double())
    model = watch._model
    assert watch.names == ["(top)", "attention", "attention.out_proj", "attention.logits", "twice", "tied"]
    # Of parameters beside layers the own part alone: what they are given is what the layers inside make.
    back = copy.deepcopy(model)
    back.shift.data = before.shift.data
    assert found["(top)"] == {"update_own": pytest.approx(rms(model(x) - back(x)), rel=1e-12)}

    def mix(module, z):
        return module.attention(z, z, z, need_weights=False)[0]

    back = copy.deepcopy(model)
    back.attention.out_proj = before.attention.out_proj
    z = x + model.shift
    own = found["attention.out_proj"]["update_own"]
    assert own == pytest.approx(rms(mix(model, z) - mix(back, z)), rel=1e-10)
    # The last call of a layer counts, at the input that it had before it was written to.
    y_0, y_t = (m.twice(x + m.shift + mix(m, x + m.shift)) for m in (before, model))
    assert found["twice"]["update_own"] == pytest.approx(rms(model.twice(y_t) - before.twice(y_t)), rel=1e-10)
    passed = found["twice"]["update_passed"]
    assert passed == pytest.approx(rms(before.twice(y_t) - before.twice(y_0)), rel=1e-10)
    # A factor after the last layer is the layer's.
    z_t = model.twice(y_t).relu()
    assert found["tied"]["update_own"] == pytest.approx(
        0.25 * rms(model.tied(z_t) - before.tied(z_t)), rel=1e-10
    )


def test_roles_are_told_by_what_grows():
    x, y = sequences()
    found = runner.coordinate_check(
        Transformer, optimizer(ADAM), [(x, y)], widths=(8, 16, 32), steps=1, seeds=2
    )
    roles = found.table.drop_duplicates("layer").set_index("layer")["role"]
    assert roles["embed"] == "input"
    assert roles["attention.q_proj"] == roles["down"] == "hidden"
    assert roles["norm"] == "vector"
    assert roles["head"] == "output"
    assert roles.isna()["attention.logits"]
    assert list(roles.index) == [
        "embed", "attention_norm", "attention.q_proj", "attention.k_proj", "attention.v_proj",
        "attention.logits", "attention.o_proj", "norm", "up", "down", "head",
    ]  # fmt: skip


# -- verdicts --------------------------------------------------------------------------------------------


@KINDS
def test_maximal_update_passes(kind):
    found = runner.coordinate_check(Transformer, optimizer(kind), [sequences()], **ONCE)
    assert found.verdict == "pass", str(found)
    assert found.blame is None
    assert "PASS. All 11 layers" in str(found)


FAULTS = {
    "attention": (lambda width: Transformer(width, exponent=0.5), "", "attention.logits", "1/sqrt(d_head)"),
    "readout": (
        lambda width: Transformer(width, multiplier=False), "", "head", "a readout without its 1/width"
    ),
    "rate": (Transformer, "up.weight", "up", "is it treated as an input weight?"),
}  # fmt: skip


@KINDS
@pytest.mark.parametrize("case", FAULTS)
def test_a_planted_fault_is_found_and_its_layer_named(case, kind):
    make_model, fault, layer, words = FAULTS[case]
    found = runner.coordinate_check(make_model, optimizer(kind, fault), [sequences()], **ONCE)
    assert found.verdict == "fail"
    assert found.blame["layer"] == layer
    assert words in found.blame["why"]


def perceptron(readout):
    """A network by microsoft/mup, the outside witness."""

    def net(width):
        head = mup.MuReadout(width, 1, bias=False) if readout else nn.Linear(width, 1, bias=False)
        return nn.Sequential(nn.Linear(10, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), head)

    def make(width):
        model = net(width)
        mup.set_base_shapes(model, net(16), delta=net(32), do_assert=readout)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                mup.init.normal_(parameter, std=0.25)
        return model

    return make


@pytest.mark.parametrize("readout", [True, False])
@KINDS
def test_mup_passes_and_without_its_readout_fails_there(readout, kind):
    makers = {
        SGD: lambda m: mup.MuSGD(m.parameters(), lr=0.02),
        ADAM: lambda m: mup.MuAdam(m.parameters(), lr=3e-3),
    }
    x = torch.randn(32, 10, generator=torch.Generator().manual_seed(0))
    batch = x, (x[:, :1] * x[:, 1:2]).sign()
    found = runner.coordinate_check(
        perceptron(readout), makers[kind], [batch], widths=(64, 128, 256, 512), steps=3
    )
    if readout:
        assert found.verdict == "pass", str(found)
    else:
        assert found.verdict == "fail"
        assert found.blame["layer"] == "4"


# -- what it can be given --------------------------------------------------------------------------------


def small(width):
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 3))


def plain(model):
    return SGD(model.parameters(), 0.1)


X = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
CLASSES = torch.arange(8) % 3
FEW = {"widths": (4, 8, 16), "seeds": 2, "steps": 2}


class Keywords(nn.Module):
    """Takes keywords and returns an object with a loss, as transformers do."""

    def __init__(self, width):
        super().__init__()
        self.net = small(width)

    def forward(self, features, labels=None):
        logits = self.net(features)
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return SimpleNamespace(logits=logits, loss=loss)


class Wrapped(Keywords):
    def forward(self, features, labels=None):
        found = super().forward(features, labels)
        return {"logits": found.logits} if labels is None else {"loss": found.loss, "logits": found.logits}


def train(model):
    stepper = plain(model)
    for _ in range(3):
        stepper.zero_grad()
        nn.functional.cross_entropy(model(X), CLASSES).backward()
        stepper.step()


def test_batches_of_all_forms_and_a_training_function_agree():
    usual = runner.coordinate_check(small, plain, [(X, CLASSES)], **FEW).table
    keywords = runner.coordinate_check(Keywords, plain, [{"features": X, "labels": CLASSES}], **FEW).table
    wrapped = runner.coordinate_check(
        Wrapped, plain, [{"features": X, "labels": CLASSES}], **FEW,
        loss=lambda found, batch: nn.functional.cross_entropy(found["logits"], batch["labels"]),
    ).table  # fmt: skip
    several = runner.coordinate_check(small, plain, [([X], CLASSES)], **FEW).table
    own = runner.coordinate_check(small, None, train, probe=X, **FEW).table
    for other in (keywords, wrapped, several, own):
        for part in ("update_own", "update_passed", "update_size"):
            assert other[part].to_numpy() == pytest.approx(usual[part].to_numpy(), rel=1e-5)


def test_a_training_function_without_an_optimizer_of_torchs():
    def by_hand(model):
        nn.functional.cross_entropy(model(X), CLASSES).backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.1 * parameter.grad

    found = runner.coordinate_check(small, None, by_hand, probe=X, **FEW).table
    one = runner.coordinate_check(small, plain, [(X, CLASSES)], **{**FEW, "steps": 1}).table
    assert found["update_own"].to_numpy() == pytest.approx(one["update_own"].to_numpy())


def test_the_random_state_is_left_alone_and_runs_repeat():
    torch.manual_seed(7)
    expected = torch.get_rng_state()
    first, second = (runner.coordinate_check(small, plain, [(X, CLASSES)], **FEW) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), expected)
    assert first.table.equals(second.table)
    assert str(first) == str(second)


def test_networks_that_diverge_are_no_error():
    found = runner.coordinate_check(
        small, lambda m: SGD(m.parameters(), 1e12), [(X, torch.randn(8, 3))], **{**FEW, "steps": 9}
    )
    assert "diverges" in str(found)


def test_the_figure_is_written(tmp_path):
    found = runner.coordinate_check(small, plain, [(X, CLASSES)], **FEW)
    caption = found.save(tmp_path / "check.svg")
    assert "Coordinate check" in caption.read_text()
    assert "<svg" in (tmp_path / "check.svg").read_text()
    assert found.figure().to_dict()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"widths": (4, 8)}, "widths must be at least 3 whole numbers"),
        ({"seeds": 1}, "seeds must be at least 2 whole numbers"),
        ({"steps": 0}, "widths and steps must be at least 1"),
        ({"batches": []}, "batches must hold at least one batch"),
        ({"batches": [X]}, "batches must hold pairs"),
        ({"batches": [{"input": X}]}, "loss must be given for batches without labels"),
        ({"batches": train}, "probe must be given with a training function"),
        ({"batches": [(X, torch.randn(8, 2))]}, "targets must have the shape of the outputs"),
        ({"optimizer": None}, "optimizer must be a function of the model"),
        ({"optimizer": lambda m: 3}, "optimizer must return a torch optimizer"),
        ({"optimizer": lambda m: SGD(m.parameters(), 0.0)}, "optimizer must train the model"),
        ({"make_model": lambda n: n}, "make_model must return a torch.nn.Module"),
        ({"make_model": lambda n: nn.ReLU()}, "make_model must return a torch.nn.Module with parameters"),
        (
            {"make_model": lambda n: nn.Sequential(nn.Linear(4, n), *[nn.Linear(n, n)] * (n // 8))},
            "make_model must give the same layers at every width",
        ),
    ],
)
def test_bad_arguments_are_refused_in_a_line(changes, message):
    given = {"make_model": small, "optimizer": plain, "batches": [(X, CLASSES)], **FEW, **changes}
    with pytest.raises(UserError, match=message) as error:
        runner.coordinate_check(
            given.pop("make_model"), given.pop("optimizer"), given.pop("batches"), **given
        )
    assert "\n" not in str(error.value)


def test_the_example_of_the_docs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    exec(compile((EXAMPLES / "my_check.py").read_text("utf-8"), "my_check.py", "exec"), {})
    assert "Adam: FAIL. To blame is 2: unstable" in capsys.readouterr().out
    assert (tmp_path / "check.svg").is_file()
