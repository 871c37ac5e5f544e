"""Losses and error rates against torch.nn.functional and the loops of the reference."""

import json

import pytest
import reference
import torch
from cells import DIGITS, make_cell
from torch.nn import functional

from runner import data
from runner.models.ensemble import Ensemble
from runner.numerics.losses import LOSSES, cross_entropy, error_rate, mse


def draw(cells, samples, outputs, seed=0):
    return torch.randn(
        cells, samples, outputs, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("outputs", [1, 4])
def test_losses_equal_the_loops(name, outputs):
    f, y = draw(3, 7, outputs), draw(1, 7, outputs, seed=1)
    actual = LOSSES[name](f, y)
    expected = torch.stack([reference.LOSSES[name](f[c], y[0]) for c in range(3)])
    torch.testing.assert_close(actual, expected)


def test_against_torch():
    f, y = draw(2, 9, 5), draw(1, 9, 5, seed=1)
    assert mse(f, y)[0].item() == pytest.approx(0.5 * 5 * functional.mse_loss(f[0], y[0]).item())
    expected = functional.cross_entropy(f[0], y[0].argmax(1)).item()
    assert cross_entropy(f, y)[0].item() == pytest.approx(expected)
    one = functional.binary_cross_entropy_with_logits(f[0, :, 0], (y[0, :, 0] > 0).double()).item()
    assert cross_entropy(f[..., :1], y[..., :1])[0].item() == pytest.approx(one)


def test_error_rate():
    y = torch.tensor([[[1.0], [-1.0], [1.0], [-1.0]]])
    assert error_rate(y.clone() * torch.tensor([1.0, 1, -1, 1])[None, :, None], y).item() == 0.25
    scores = torch.eye(3)[None]
    assert error_rate(scores, scores.flip(2)).item() == pytest.approx(2 / 3)


def test_targets_of_cross_entropy_are_classes():
    """Whoever computes the loss anew from the targets of a measure gets that of torch, not a negative one."""
    settings = {"data": DIGITS, "loss": "cross_entropy", "width": 8}
    ensemble = Ensemble([make_cell(**settings)], *parts_of(make_cell(**settings)), torch.device("cpu"))
    targets, scores = ensemble.targets["train"], ensemble.scores["train"]
    assert set(targets.unique().tolist()) == {0, 1}
    assert (targets.sum(2) == 1).all()
    assert (targets.argmax(2) == scores.argmax(2)).all()
    torch.testing.assert_close(scores.sum(2), torch.zeros_like(scores.sum(2)))
    outputs = torch.randn(1, *targets.shape[1:], dtype=targets.dtype)
    anew = functional.cross_entropy(outputs[0], targets[0])
    torch.testing.assert_close(cross_entropy(outputs, targets)[0], anew)
    squares = Ensemble([make_cell(data=DIGITS)], *parts_of(make_cell(data=DIGITS)), torch.device("cpu"))
    assert all(squares.targets[name] is scores for name, scores in squares.scores.items())


def parts_of(cell):
    sections = json.loads(cell.settings)
    return sections["model"], data.load(sections["data"])
