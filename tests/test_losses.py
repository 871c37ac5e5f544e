"""Losses and error rates against torch.nn.functional and the loops of the reference."""

import pytest
import reference
import torch
from torch.nn import functional

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
