"""Eigenvalues: of operators known only by their products with a vector, and of whole matrices."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from runner.layers import generator

_CHECK_EVERY = 2
"""Lanczos steps between two looks at the residual: a look costs more than a step on small problems."""
_LEAST_STEPS = 4
"""Before the first look: two Ritz values alone know too little of the distance between eigenvalues."""
_FEW = 64
"""Columns of a matrix whose Gram matrix is decomposed at once."""
_SHORT = 10_000
"""Numbers in the longest vectors that are kept orthogonal to all before them."""
_RANDOM_SHARE = 0.1
"""Of a random vector, in a start that is a guess."""
_ROOM = 16
"""Lanczos vectors for which there is room at first; it is doubled where they are more."""


def top_eigenvalue(
    product: Callable[[Float[Tensor, "cell n"]], Float[Tensor, "cell n"]],
    like: Float[Tensor, "cell n"],
    *,
    guess: Float[Tensor, "cell n"] | None = None,
    tolerance: float | None = None,
    max_steps: int = 200,
) -> Float[Tensor, "cell"]:
    """Return the largest eigenvalue of one symmetric operator per cell; see :func:`top_eigenpair`."""
    return top_eigenpair(product, like, guess=guess, tolerance=tolerance, max_steps=max_steps)[0]


def top_eigenpair(
    product: Callable[[Float[Tensor, "cell n"]], Float[Tensor, "cell n"]],
    like: Float[Tensor, "cell n"],
    *,
    guess: Float[Tensor, "cell n"] | None = None,
    tolerance: float | None = None,
    max_steps: int = 200,
) -> tuple[Float[Tensor, "cell"], Float[Tensor, "cell n"] | None]:
    """Return the largest eigenvalue of one symmetric operator per cell and its vector, by Lanczos iteration.

    It stops once the error of every cell's top Ritz value is bounded by ``tolerance`` times that value: by
    the norm of the residual, r = |beta_k s_k|, or by r^2 over the distance to the next Ritz value. Vectors of
    at most ``_SHORT`` numbers are reorthogonalised, so that in at most n steps the answer is exact to
    rounding. Longer ones are not: that would cost more than the products, and the loss of orthogonality,
    which comes with the convergence of a Ritz pair, only adds copies of what has converged.

    Args:
        product: Multiplies one vector per cell by that cell's operator.
        like: Gives the shape, dtype and device of the vectors; its values are not used.
        guess: Near the eigenvectors sought, to begin from; a tenth of a random vector is added, so that an
            eigenvector to which it is orthogonal is found all the same.
        tolerance: Relative; default 1e-5 in float32 and 1e-10 in float64.
        max_steps: Limit of iterations.

    Returns:
        One eigenvalue per cell, NaN where a product is not finite, and the Ritz vectors; None for long ones.

    References:
        Golub & Van Loan, "Matrix Computations", 4th ed., section 10.1; Paige (1980), "Accuracy and
        effectiveness of the Lanczos algorithm for the symmetric eigenproblem", theorem 3.1; Parlett, "The
        Symmetric Eigenvalue Problem", section 11.7, for the bound with the gap.
    """
    if tolerance is None:
        tolerance = 1e-10 if like.dtype == torch.float64 else 1e-5
    cells, size = like.shape
    limit = min(max_steps, size)
    epsilon = torch.finfo(like.dtype).eps
    vector = _lanczos_start(like, guess)
    room = min(limit, _ROOM) if size <= _SHORT else 2
    basis = like.new_empty(cells, room, size)
    diagonal: list[Tensor] = []
    offdiagonal: list[Tensor] = []
    largest = like.new_zeros(cells)
    for step in range(1, limit + 1):
        if size > _SHORT:
            basis = torch.stack([basis[:, -1], vector], 1)
        elif step > basis.shape[1]:
            basis = torch.cat([basis, torch.empty_like(basis)], 1)
        known = basis[:, :step]
        known[:, -1] = vector
        # Rows times matrices: a product with a column is many times slower in a batch.
        residual = product(vector).unsqueeze(1)
        overlap = residual @ known.mT
        diagonal.append(overlap[:, 0, -1])
        residual = torch.baddbmm(residual, overlap, known, alpha=-1)
        # Twice is enough (Kahan & Parlett).
        residual = torch.baddbmm(residual, residual @ known.mT, known, alpha=-1)
        norm = residual[:, 0].norm(dim=1)
        offdiagonal.append(norm)
        if step == limit or (step >= _LEAST_STEPS and step % _CHECK_EVERY == 0):
            value, error, weights = _top_ritz(diagonal, offdiagonal)
            done = error <= tolerance * value.abs()
            if step == limit or bool((done | value.isnan()).all()):
                ritz = (weights.to(like).unsqueeze(1) @ known)[:, 0] if size <= _SHORT else None
                return value.to(like), ritz
        # An exhausted Krylov space leaves nothing to normalise; zeros then change nothing.
        largest = torch.maximum(largest, diagonal[-1].abs())
        vector = residual[:, 0] * torch.where(norm <= epsilon * largest, 0.0, 1 / norm)[:, None]
    raise AssertionError("unreachable: the last step returns")


def spectral_norm(matrix: Float[Tensor, "cell row column"]) -> Float[Tensor, "cell"]:
    """Return the largest singular value of one matrix per cell.

    Args:
        matrix: One per cell.

    Returns:
        sqrt of the top eigenvalue of M^T M (or M M^T, whichever is smaller); NaN where M is not finite.
    """
    if matrix.shape[1] < matrix.shape[2]:
        matrix = matrix.mT
    # Squares of a small movement would underflow in float32 otherwise.
    scale = matrix.abs().amax((1, 2), keepdim=True)
    inverse = 1 / torch.where(scale > 0, scale, 1.0)
    if matrix.shape[2] <= _FEW:
        scaled = matrix * inverse
        top = spectra(scaled.mT @ scaled)[:, -1]
    else:

        def product(vector: Tensor) -> Tensor:
            # The vector is scaled, not the matrix, which is larger.
            return (vector[:, None] @ matrix.mT * inverse @ matrix * inverse)[:, 0]

        top = top_eigenvalue(product, matrix[:, 0]).clamp_min(0)
    return top.sqrt() * scale[:, 0, 0]


def spectra(matrix: Float[Tensor, "cell n n"]) -> Float[Tensor, "cell n"]:
    """Return the ascending eigenvalues of positive semi-definite matrices, as :func:`decomposition` does."""
    finite, symmetric = _finite(matrix)
    return torch.where(finite, torch.linalg.eigvalsh(symmetric).clamp_min(0), torch.nan)


def decomposition(
    matrix: Float[Tensor, "cell n n"],
) -> tuple[Float[Tensor, "cell n"], Float[Tensor, "cell n n"]]:
    """Return ascending eigenvalues and eigenvectors of positive semi-definite matrices.

    Args:
        matrix: One per cell, symmetric to rounding.

    Returns:
        Eigenvalues, none below 0, and eigenvectors as columns; NaN eigenvalues where a matrix is not finite,
        so that one such cell does not end the others.
    """
    finite, symmetric = _finite(matrix)
    values, vectors = torch.linalg.eigh(symmetric)
    return torch.where(finite, values.clamp_min(0), torch.nan), vectors


def _finite(matrix: Float[Tensor, "cell n n"]) -> tuple[Bool[Tensor, "cell 1"], Float[Tensor, "cell n n"]]:
    """Which matrices are finite, and all of them symmetric, with zeros for the others."""
    finite = matrix.isfinite().flatten(1).all(1)[:, None]
    return finite, torch.where(finite[:, :, None], (matrix + matrix.mT) / 2, 0.0)


def _lanczos_start(like: Float[Tensor, "cell n"], guess: Tensor | None) -> Float[Tensor, "cell n"]:
    """A random unit vector, the same in every cell, so that its answer does not depend on its pack."""
    drawn = torch.randn(like.shape[1], generator=generator(0, "lanczos"), dtype=torch.float64).to(like)
    random = (drawn / drawn.norm()).expand_as(like)
    if guess is None:
        return random
    norm = guess.norm(dim=1, keepdim=True)
    usable = norm.isfinite() & (norm > 0)
    start = torch.where(usable, guess / norm, 0.0) + _RANDOM_SHARE * random
    return start / start.norm(dim=1, keepdim=True)


def _top_ritz(diagonal: list[Tensor], offdiagonal: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Top eigenvalue of the tridiagonal matrix so far, its error's bound, its vector; NaN where not finite."""
    main = torch.stack(diagonal, 1).double().cpu()
    off = torch.stack(offdiagonal, 1).double().cpu()
    finite = (main.isfinite() & off.isfinite()).all(1)
    main = torch.where(finite[:, None], main, 0.0)
    off = torch.where(finite[:, None], off, 0.0)
    tridiagonal = torch.diag_embed(main)
    if main.shape[1] > 1:
        tridiagonal = tridiagonal + torch.diag_embed(off[:, :-1], 1) + torch.diag_embed(off[:, :-1], -1)
    values, vectors = torch.linalg.eigh(tridiagonal)
    error = (off[:, -1] * vectors[:, -1, -1]).abs()
    if main.shape[1] > 1:
        error = error * (error / (values[:, -1] - values[:, -2])).nan_to_num(nan=1.0).clamp_max(1.0)
    nan = torch.tensor(float("nan"), dtype=torch.float64)
    return torch.where(finite, values[:, -1], nan), torch.where(finite, error, 0.0), vectors[:, :, -1]
