"""Krylov spaces, their Ritz pairs, and where an iteration begins."""

import pytest
import torch

from runner.numerics.lanczos import lanczos, ritz, top_eigenpair

SIZE = 40


def operators(dtype=torch.float64):
    m = torch.randn(3, SIZE, SIZE, generator=torch.Generator().manual_seed(1), dtype=dtype)
    return m @ m.mT / SIZE


def times(matrix):
    return lambda v: (matrix @ v[:, :, None])[:, :, 0]


@pytest.mark.parametrize("keep", [True, False])
def test_the_relation_that_defines_it_holds(keep):
    matrix = operators()
    start = torch.ones(3, SIZE, dtype=torch.float64) / SIZE**0.5
    vectors = []
    for space in lanczos(times(matrix), start, 7, keep=keep):
        vectors.append(space.basis[:, -1])
    v = torch.stack(vectors, 2)
    torch.testing.assert_close(
        v.mT @ v, torch.eye(7, dtype=torch.float64).expand(3, -1, -1), atol=1e-10, rtol=0
    )
    t = v.mT @ matrix @ v
    torch.testing.assert_close(t.diagonal(dim1=1, dim2=2), space.diagonal)
    torch.testing.assert_close(t.diagonal(1, 1, 2), space.offdiagonal[:, :-1])
    left = matrix @ v - v @ t
    torch.testing.assert_close(left[:, :, :-1], torch.zeros_like(left[:, :, :-1]), atol=1e-10, rtol=0)
    torch.testing.assert_close(left[:, :, -1].norm(dim=1), space.offdiagonal[:, -1])


def test_all_steps_give_the_whole_spectrum():
    matrix = operators()
    start = torch.randn(3, SIZE, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    *_, space = lanczos(times(matrix), start / start.norm(dim=1, keepdim=True), SIZE, keep=True)
    found = ritz(space)
    torch.testing.assert_close(found.values, torch.linalg.eigvalsh(matrix), atol=1e-10, rtol=1e-8)


def test_an_exhausted_space_and_a_start_of_zero_change_nothing():
    matrix = torch.diag_embed(torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], dtype=torch.float64))
    start = torch.tensor([[0.0, 0.6, 0.8], [0.0, 0.0, 0.0]], dtype=torch.float64)
    *_, space = lanczos(times(matrix), start, 3, keep=True)
    found = ritz(space)
    assert found.values[0].tolist() == pytest.approx([0, 2, 3])
    assert found.values[1].tolist() == [0, 0, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_guess_may_be_right_near_wrong_or_no_vector(dtype):
    matrix = operators(dtype)
    values, vectors = torch.linalg.eigh(matrix)
    tolerance = 1e-9 if dtype == torch.float64 else 2e-5
    for guess in (
        vectors[:, :, -1],
        vectors[:, :, -1] + 0.1 * vectors[:, :, 3],
        vectors[:, :, -2],  # an eigenvector, of another eigenvalue
        torch.zeros_like(vectors[:, :, 0]),
        torch.full_like(vectors[:, :, 0], torch.nan),
    ):
        top, vector = top_eigenpair(times(matrix), matrix[:, 0], guess=guess)
        torch.testing.assert_close(top, values[:, -1], rtol=tolerance, atol=0)
        overlap = (vector * vectors[:, :, -1]).sum(1).abs()
        torch.testing.assert_close(overlap, torch.ones_like(overlap), rtol=1e-2, atol=0)


def test_a_good_guess_takes_fewer_products():
    matrix = operators()
    counts = []
    for guess in (None, torch.linalg.eigh(matrix)[1][:, :, -1]):
        calls = []
        top_eigenpair(lambda v, calls=calls: calls.append(0) or times(matrix)(v), matrix[:, 0], guess=guess)
        counts.append(len(calls))
    assert counts[1] < counts[0]
