"""Splits, seeds and labels of the data sets."""

import inspect
import math

import pytest
import torch
import yaml
from sklearn.datasets import load_digits

from runner import data
from runner.data.digits import digit_images
from runner.data.order import BatchOrder
from runner.errors import UserError
from runner.grid.config import conf_dir
from runner.grid.instantiate import resolve

MAKERS = {
    "digits": data.digits,
    "xor": data.xor,
    "single_index": data.single_index,
    "polynomial": data.polynomial,
    "staircase": data.staircase,
    "parity": data.parity,
    "teacher": data.teacher,
}
SIZES = {"train_size": 50, "test_size": 30, "probe_size": 20}


@pytest.mark.parametrize("path", sorted((conf_dir() / "data").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_yaml_says_what_the_function_does(path):
    settings = yaml.safe_load(path.read_text("utf-8"))
    assert settings.pop("name") == path.stem
    parameters = inspect.signature(resolve("data", settings)).parameters
    settings = {key: value for key, value in settings.items() if key not in ("_target_", "online")}
    # The default grid sets the size of the training set.
    assert {"seed", "train_size", "probe_size"} <= settings.keys() <= parameters.keys()
    differing = {key for key, value in settings.items() if parameters[key].default != value}
    assert differing <= {"dataset"}


@pytest.mark.parametrize("name", MAKERS)
def test_shapes_and_seeds(name):
    one, again, other = (MAKERS[name](seed=s, **SIZES) for s in (0, 0, 1))
    for split, size in (("train", 50), ("test", 30), ("probe", 20)):
        a, b, c = (getattr(d, split) for d in (one, again, other))
        assert a.inputs.shape[0] == a.targets.shape[0] == size
        assert a.inputs.dtype == torch.float64
        assert torch.equal(a.inputs, b.inputs)
        assert torch.equal(a.targets, b.targets)
        assert not torch.equal(a.inputs, c.inputs)


@pytest.mark.parametrize("name", MAKERS)
def test_splits_share_no_sample(name):
    d = MAKERS[name](**SIZES)
    rows = torch.cat([s.inputs.flatten(1) for s in (d.train, d.test, d.probe)])
    if name in ("staircase", "parity"):
        rows = MAKERS[name](inputs="gaussian", **SIZES).train.inputs
    assert torch.unique(rows, dim=0).shape[0] == rows.shape[0]


@pytest.mark.parametrize("name", ["xor", "single_index", "polynomial", "staircase", "parity"])
def test_a_larger_training_set_extends_a_smaller_one(name):
    small, large = (MAKERS[name](**SIZES | {"train_size": size}) for size in (20, 60))
    assert torch.equal(large.train.inputs[:20], small.train.inputs)
    assert torch.equal(large.train.targets[:20], small.train.targets)
    assert torch.equal(large.test.inputs, small.test.inputs)
    assert torch.equal(large.test.targets, small.test.targets)


def test_digits_are_the_real_ones_with_zero_mean_targets():
    d = data.digits(train_size=1000, test_size=500, probe_size=297)
    assert d.input_shape == (1, 8, 8)
    assert d.train.inputs.mean().abs() < 1e-12
    assert d.train.inputs.std().item() == pytest.approx(1)
    assert torch.equal(d.train.targets.sum(1).round(decimals=12), torch.zeros(1000, dtype=torch.float64))
    counts = sum(torch.bincount(s.targets.argmax(1), minlength=10) for s in (d.train, d.test, d.probe))
    assert counts.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_labels_by_hand():
    x = data.xor(dim=5, **SIZES)
    assert torch.equal(x.train.targets[:, 0], (x.train.inputs[:, 0] * x.train.inputs[:, 1]).sign())
    assert torch.allclose(x.train.inputs.norm(dim=1), torch.tensor(math.sqrt(5), dtype=torch.float64))
    s = data.staircase(dim=5, degree=3, **SIZES)
    a, b, c = s.train.inputs[:, 0], s.train.inputs[:, 1], s.train.inputs[:, 2]
    assert torch.allclose(s.train.targets[:, 0], (a + a * b + a * b * c) / math.sqrt(3))
    p = data.parity(dim=5, degree=3, **SIZES)
    assert torch.equal(p.train.targets[:, 0], p.train.inputs[:, :3].prod(1))


@pytest.mark.parametrize("degree", [1, 2, 3, 4])
def test_single_index_has_unit_variance(degree):
    d = data.single_index(degree=degree, dim=10, train_size=200_000, test_size=1, probe_size=1)
    y = d.train.targets
    five_sigma = 5 * ((y**4).mean().item() / len(y)) ** 0.5  # of the mean of y^2; it covers the mean of y too
    assert y.mean().item() == pytest.approx(0, abs=five_sigma)
    assert y.var().item() == pytest.approx(1, abs=five_sigma)


def test_polynomial_is_half_the_square_of_one_direction():
    d = data.polynomial(dim=10, train_size=2000, test_size=1, probe_size=1)
    x, y = d.train.inputs, d.train.targets[:, 0]
    # The gradient of <w, x>^2 / 2 is w <w, x>: by Stein's lemma E[y (x x^T - 1)] = w w^T.
    values, vectors = torch.linalg.eigh((x * y[:, None]).T @ x / len(x) - y.mean() * torch.eye(10))
    direction = vectors[:, -1]
    assert values[-1].item() == pytest.approx(1, abs=0.3)
    assert values[:-1].abs().max() < 0.3
    projected = torch.linalg.lstsq(x, (2 * y).sqrt()[:, None] * d.train.second).solution[:, 0]
    assert torch.allclose((x @ projected).square() / 2, y)
    assert projected.norm().item() == pytest.approx(1)
    assert abs(float(projected @ direction)) > 0.95
    assert d.task == "regression"


@pytest.mark.parametrize("p", [2, 7, 10])
def test_modular_addition_is_every_pair_once(p):
    probes = p // 2
    d = data.modular_addition(p=p, train_fraction=0.5, probe_size=probes)
    assert d.input_shape == (2, p)
    assert d.outputs == p
    assert (len(d.train), len(d.probe)) == (round(p * p / 2), probes)
    seen = []
    for split in (d.train, d.test, d.probe):
        assert torch.equal(split.inputs.unique(), torch.tensor([0.0, p**0.5], dtype=torch.float64))
        assert torch.equal((split.inputs > 0).sum(2), torch.ones(len(split), 2, dtype=torch.int64))
        assert torch.allclose(split.inputs.flatten(1).norm(dim=1), torch.tensor(2.0 * p).double().sqrt())
        a, b = split.inputs.argmax(2).T
        assert torch.equal(split.targets.argmax(1), (a + b) % p)
        assert torch.equal(split.second[:, 0] > 0, (a + b) % p >= p / 2)
        seen += zip(a.tolist(), b.tolist(), strict=True)
    assert sorted(seen) == [(a, b) for a in range(p) for b in range(p)]


def test_a_larger_fraction_extends_a_smaller_one():
    small, large = (data.modular_addition(train_fraction=fraction) for fraction in (0.3, 0.4))
    assert torch.equal(large.train.inputs[: len(small.train)], small.train.inputs)
    assert len(data.modular_addition(train_size=400).test) == 1
    assert torch.equal(large.probe.inputs, small.probe.inputs)
    assert not torch.equal(data.modular_addition(seed=1).probe.inputs, large.probe.inputs)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"p": 1}, "data.p must be an integer >= 2, got 1"),
        ({"p": 257}, "data.p must be an integer from 2 to 256, got 257"),
        ({"train_fraction": 0.0}, "data.train_fraction must be between 0 and 1, got 0.0"),
        ({"train_fraction": 0.9}, r"must be less than the p\^2 = 529 pairs, .* got 476 \+ 128; lower one"),
        ({"train_fraction": math.nan}, "data.train_fraction must be between 0 and 1, got nan"),
        ({"train_size": 401}, r"must be less than the p\^2 = 529 pairs"),
    ],
)
def test_impossible_divisions_of_the_pairs_are_refused(keys, message):
    with pytest.raises(UserError, match=message):
        data.modular_addition(**keys)


def test_standardised_on_the_training_set():
    d = data.xor(dim=10, linear=0.5, standardize=True, train_size=24, test_size=10, probe_size=10)
    assert d.task == "regression"
    assert d.train.targets.mean().item() == pytest.approx(0, abs=1e-12)
    assert d.train.targets.var(correction=0).item() == pytest.approx(1)


def test_batches_cover_an_epoch_and_depend_on_the_seed_alone():
    device = torch.device("cpu")
    pack = BatchOrder([3, 5, 3], samples=10, batch_size=3, device=device)
    alone = BatchOrder([5], samples=10, batch_size=3, device=device)
    for _ in range(3):
        batches = [pack.next().places for _ in range(3)]
        epoch = torch.cat(batches, 1)
        assert all(len(set(row.tolist())) == 9 for row in epoch)
        assert torch.equal(epoch[0], epoch[2])
        assert torch.equal(epoch[1:2], torch.cat([alone.next().places for _ in range(3)], 1))
    pack.select(torch.tensor([1]))
    assert torch.equal(pack.next().places, alone.next().places)


def test_digits_are_those_that_the_library_loads():
    pixels, labels = digit_images()
    expected = load_digits()
    assert (pixels == expected.data).all()
    assert (labels == expected.target).all()
