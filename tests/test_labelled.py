"""Choosing, relabelling and scaling labelled samples: one pipeline for every source of them."""

import dataclasses

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from runner import data
from runner.data.dataset import one_hot
from runner.data.labelled import Choice, Labelled, Samples, classification
from runner.errors import UserError
from runner.layers import generator

SIZES = {"seed": 0, "train_size": 200, "test_size": 60, "probe_size": 40}
CLASSES = np.arange(300) % 5
# Sample i is (i, class), so that every test can tell which one it sees.
NUMBERED = Samples(np.stack([np.arange(300), CLASSES], 1), CLASSES)
POOL = Labelled("pool", NUMBERED, None, 5, second=(0, 1))
HELD = Labelled("held", NUMBERED, Samples(1000 + NUMBERED.inputs, CLASSES), 5, second=(0, 1))


def choose(source=POOL, **keys):
    return classification(source, Choice(**SIZES | {"standardize": False} | keys))


def labels_of(split):
    return split.targets.argmax(1) if split.targets.shape[1] > 1 else (split.targets[:, 0] > 0).long()


def ids(split):
    return split.inputs[:, 0].long().tolist()


def truth(split):
    return split.inputs[:, 1].long()


def test_digits_by_default_are_what_they_were_before_there_were_keys():
    bunch = load_digits()
    order = torch.randperm(1797, generator=generator(3, "digits/split"))
    images, labels = torch.from_numpy(bunch.images)[order, None], torch.from_numpy(bunch.target)[order]
    train = images[50:120]
    d = data.digits(seed=3, train_size=70, test_size=30, probe_size=20)
    for split, rows in ((d.test, slice(0, 30)), (d.probe, slice(30, 50)), (d.train, slice(50, 120))):
        assert torch.equal(split.inputs, (images[rows] - train.mean()) / train.std())
        assert torch.equal(split.targets, one_hot(labels[rows], 10))
        assert torch.equal(split.second[:, 0], (1.0 - 2.0 * (labels[rows] % 2)).double())


@pytest.mark.parametrize("source", [POOL, HELD], ids=["one pool", "own test set"])
@pytest.mark.parametrize("keys", [{}, {"classes": [4, 1], "train_size": 20, "test_size": 20}])
def test_a_larger_training_set_extends_a_smaller_one(source, keys):
    large = choose(source, **keys, label_noise=0.3)
    small = choose(source, **keys | {"train_size": 10}, label_noise=0.3)
    assert ids(large.train)[:10] == ids(small.train)
    assert torch.equal(large.train.targets[:10], small.train.targets)
    for name in ("test", "probe"):
        assert ids(getattr(large, name)) == ids(getattr(small, name))
    everything = ids(large.train) + ids(large.test) + ids(large.probe)
    assert len(set(everything)) == len(everything)
    assert ids(choose(source, **keys, seed=1).train) != ids(large.train)


def test_the_test_split_comes_from_the_test_set():
    d = choose(HELD, train_size=260, test_size=300)
    assert sorted(ids(d.test)) == list(range(1000, 1300))
    assert sorted(ids(d.train) + ids(d.probe)) == list(range(300))


def test_classes_are_kept_in_the_order_given():
    d = choose(classes=[4, 1], train_size=50, test_size=20)
    assert d.outputs == 2
    for split in (d.train, d.test, d.probe):
        assert torch.equal(truth(split), torch.tensor([4, 1])[labels_of(split)])
        assert torch.equal(split.targets, one_hot(labels_of(split), 2))
    assert set(truth(d.train).tolist()) == {1, 4}


def test_a_filter_leaves_the_order_of_what_it_keeps():
    everything = choose(train_size=300 - 2, test_size=1, probe_size=1)
    whole = ids(everything.test) + ids(everything.probe) + ids(everything.train)
    some = choose(classes=[0, 2], train_size=100, test_size=10, probe_size=10)
    kept = [i for i in whole if CLASSES[i] in (0, 2)]
    assert ids(some.test) + ids(some.probe) + ids(some.train) == kept


def test_binary_labels():
    d = choose(binary=[[4, 0], [1]], train_size=100, test_size=40)
    assert d.outputs == 1
    assert torch.equal(d.train.targets[:, 0], torch.where(truth(d.train) == 1, 1.0, -1.0).double())
    assert set(truth(d.train).tolist()) == {0, 1, 4}
    d = choose(binary="parity")
    assert torch.equal(d.train.targets[:, 0], torch.where(truth(d.train) % 2 == 0, 1.0, -1.0).double())
    d = choose(binary="parity", classes=[3, 4], train_size=40, test_size=20)
    assert set(zip(truth(d.train).tolist(), d.train.targets[:, 0].tolist(), strict=True)) == {(3, -1), (4, 1)}


@pytest.mark.parametrize("binary", [None, "parity"])
def test_noise_is_in_the_training_labels_alone(binary):
    clean, some, more = (choose(HELD, binary=binary, train_size=260, label_noise=p) for p in (0.0, 0.2, 0.5))
    wrong, also = (labels_of(d.train) != labels_of(clean.train) for d in (some, more))
    for found, p in ((wrong, 0.2), (also, 0.5)):
        assert found.double().mean().item() == pytest.approx(p, abs=4 * (p * (1 - p) / 260) ** 0.5)
    assert bool((also | ~wrong).all())
    if binary is None:  # every other class is as likely
        shift = (labels_of(more.train) - labels_of(clean.train))[also] % 5
        assert torch.bincount(shift, minlength=5)[1:].min() > 15
    for noisy in (some, more):
        assert torch.equal(noisy.train.second, clean.train.second)
        for name in ("test", "probe"):
            assert torch.equal(getattr(noisy, name).targets, getattr(clean, name).targets)
    assert labels_of(choose(label_noise=1.0).train).ne(truth(choose().train)).all()


def test_inputs_are_scaled_by_the_training_set():
    raw, scaled = choose(), choose(standardize=True)
    mean, std = raw.train.inputs.mean(), raw.train.inputs.std()
    for name in ("train", "test", "probe"):
        expected = (getattr(raw, name).inputs - mean) / std
        assert torch.equal(getattr(scaled, name).inputs, expected)


@pytest.mark.parametrize(
    ("keys", "has"),
    [
        ({}, True),
        ({"classes": [0, 2]}, False),  # the same two classes again
        ({"classes": [0, 1]}, False),  # all of one sign
        ({"classes": [0, 1, 2]}, True),
        ({"binary": [[0, 2], [1, 3]]}, True),
        ({"binary": [[0], [3, 4]]}, False),
    ],
)
def test_a_second_labelling_says_something_new(keys, has):
    d = choose(train_size=40, test_size=20, probe_size=20, **keys)
    assert (d.train.second is not None) == (d.test.second is not None) == has
    if has:
        assert torch.equal(d.train.second[:, 0], torch.where(truth(d.train) < 2, 1.0, -1.0).double())


def test_another_second_labelling_where_the_first_labelling_is_the_same():
    d = choose(dataclasses.replace(POOL, second=range(0, 5, 2)), binary="parity")
    assert torch.equal(d.train.second[:, 0], torch.where(truth(d.train) >= 2, 1.0, -1.0).double())


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"train_size": 201},
            r"data.train_size \+ data.probe_size \+ data.test_size must be at most 300, .*got 301",
        ),
        (
            {"classes": [0, 1]},
            "must be at most 120, the samples of the chosen classes, got 300; make one smaller",
        ),
        ({"classes": []}, r"data.classes must list different classes from 0 to 4, got \[\]"),
        ({"classes": [0, 5]}, r"data.classes must list different classes from 0 to 4, got \[0, 5\]"),
        ({"classes": [0, 0]}, "data.classes must list different classes"),
        ({"classes": "3"}, "data.classes must list different classes"),
        ({"classes": 3}, "data.classes must list different classes"),
        ({"classes": [3]}, r"data.classes must name two classes or more, got \[3\]"),
        ({"binary": "even"}, "data.binary must be null, parity or two groups of classes, got 'even'"),
        ({"binary": [[0], [1], [2]]}, "data.binary must be null, parity or two groups"),
        ({"binary": [[0], []]}, "data.binary must list different classes"),
        ({"binary": [0, 1]}, "data.binary must list different classes"),
        ({"binary": [[0, 1], [1, 2]]}, "data.binary must divide the classes into two groups that share none"),
        ({"binary": "parity", "classes": [1, 3]}, "data.binary must divide the classes into two groups"),
        ({"binary": [[0], [1]], "classes": [0, 1]}, "data.classes must be null beside two groups"),
        ({"label_noise": 1.5}, "data.label_noise must be a number from 0 to 1, got 1.5"),
        ({"label_noise": "some"}, "data.label_noise must be a number"),
        ({"label_noise": float("nan")}, "data.label_noise must be a number"),
        ({"standardize": "yes"}, "data.standardize must be true or false, got 'yes'"),
    ],
)
def test_mistakes_are_named(keys, message):
    with pytest.raises(UserError, match=message) as caught:
        choose(**keys)
    assert "\n" not in str(caught.value)


def test_more_than_the_test_set_holds():
    with pytest.raises(UserError, match=r"data.test_size must be at most 300, .*got 301"):
        choose(HELD, test_size=301)
    with pytest.raises(UserError, match=r"data.train_size \+ data.probe_size must be at most 300"):
        choose(HELD, train_size=270)


def test_constant_inputs_cannot_be_scaled():
    source = Labelled("flat", Samples(np.ones((300, 2)), CLASSES), None, 5, second=())
    with pytest.raises(UserError, match=r"data.train_size must give inputs that vary"):
        choose(source, standardize=True)
