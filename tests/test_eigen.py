"""Lanczos and the spectral norm against LAPACK."""

import pytest
import torch

from runner.numerics.eigen import FEW_COLUMNS, decomposition, spectra, spectral_norm
from runner.numerics.lanczos import top_eigenvalue


def matrices(cells, rows, columns, dtype=torch.float64):
    return torch.randn(cells, rows, columns, generator=torch.Generator().manual_seed(0), dtype=dtype)


@pytest.mark.parametrize("size", [1, 2, 5, 24, 150])
def test_top_eigenvalue_equals_lapack(size):
    m = matrices(3, size, size)
    gram = m @ m.mT
    top = top_eigenvalue(lambda v: (gram @ v[:, :, None])[:, :, 0], gram[:, 0])
    torch.testing.assert_close(top, torch.linalg.eigvalsh(gram)[:, -1], rtol=1e-8, atol=0)


@pytest.mark.parametrize("shape", [(1, 1), (7, 1), (1, 7), (30, 40), (200, 60)])
@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_spectral_norm_equals_svd(shape, scale):
    m = matrices(4, *shape) * scale
    torch.testing.assert_close(spectral_norm(m), torch.linalg.svdvals(m)[:, 0], rtol=1e-7, atol=0)


def test_spectral_norm_of_low_rank_and_zero():
    u = matrices(1, 50, 2)
    low = u @ u.mT
    both = torch.cat([low, torch.zeros_like(low)])
    norm = spectral_norm(both)
    torch.testing.assert_close(norm[0], torch.linalg.svdvals(low)[0, 0], rtol=1e-9, atol=0)
    assert norm[1] == 0


def test_a_cell_does_not_depend_on_its_neighbours():
    m = matrices(5, 60, 60)
    torch.testing.assert_close(spectral_norm(m)[2:3], spectral_norm(m[2:3]), rtol=1e-8, atol=0)


def test_a_cell_that_is_not_finite_gives_nan_alone():
    m = matrices(2, 20, 20)
    m[0, 3, 3] = float("inf")
    norm = spectral_norm(m)
    assert norm[0].isnan()
    torch.testing.assert_close(norm[1], torch.linalg.svdvals(m[1])[0], rtol=1e-7, atol=0)


def test_float32_keeps_small_movements():
    m = matrices(2, 40, 40, torch.float32) * 1e-25
    torch.testing.assert_close(spectral_norm(m), torch.linalg.svdvals(m)[:, 0], rtol=1e-3, atol=0)


def test_a_matrix_that_is_not_finite_does_not_end_the_others():
    good = torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
    both = torch.stack([good, torch.full_like(good, torch.inf), -torch.eye(2, dtype=torch.float64)])
    values, vectors = decomposition(both)
    torch.testing.assert_close(values[0], torch.tensor([1.0, 3.0], dtype=torch.float64))
    torch.testing.assert_close(vectors[0] @ values[0].diag() @ vectors[0].T, good)
    assert values[1].isnan().all()
    assert (values[2] == 0).all()
    torch.testing.assert_close(spectra(both), values, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_long_vectors_are_not_kept_orthogonal_and_the_top_is_found_all_the_same(dtype):
    """A spectrum of both signs whose other end converges first, and long after that: copies harm nothing."""
    spectrum = torch.linspace(-1, 0.5, 20_000, dtype=torch.float64)
    spectrum[:2] = torch.tensor([-100.0, -50.0])
    spectrum[-3:] = torch.tensor([0.9, 1.5, 1.502])
    both = torch.stack([spectrum, 3 * spectrum.flip(0)]).to(dtype)
    tolerance = 1e-9 if dtype == torch.float64 else 1e-4
    top = top_eigenvalue(lambda v: both * v, both, tolerance=tolerance)
    torch.testing.assert_close(top.double(), both.double().amax(1), rtol=10 * tolerance, atol=0)


def test_wide_matrices_of_low_rank_of_zeros_and_not_finite():
    """Beyond the size that is decomposed at once."""
    assert FEW_COLUMNS < 90
    m = matrices(4, 120, 90)
    m[1] = m[1, :, :2] @ m[1, :2]
    m[2] = 0
    m[3, 5, 5] = float("nan")
    norm = spectral_norm(m)
    torch.testing.assert_close(norm[:3], torch.linalg.svdvals(m[:3])[:, 0], rtol=1e-7, atol=0)
    assert norm[3].isnan()
