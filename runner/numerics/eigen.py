"""Eigenvalues and singular values of whole matrices, a batch of them at a time."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from runner.numerics.lanczos import top_eigenpair
from runner.numerics.precision import batch_product, vector_products

FEW_COLUMNS = 32
"""Columns of a matrix whose Gram matrix is decomposed at once."""


def spectral_norm(matrix: Float[Tensor, "cell row column"]) -> Float[Tensor, "cell"]:
    """Return the largest singular value of one matrix per cell; see :func:`top_singular`."""
    return top_singular(matrix)[0]


def top_singular(
    matrix: Float[Tensor, "cell row column"], guess: Float[Tensor, "cell shorter"] | None = None
) -> tuple[Float[Tensor, "cell"], Float[Tensor, "cell shorter"] | None]:
    """Return the largest singular value of one matrix per cell, and its vector on the shorter side.

    Returns:
        sqrt of the top eigenvalue of M^T M (or M M^T, whichever is smaller), NaN where M is not finite; the
        vectors where they were found by iteration, as a guess for a matrix that is like this one.
    """
    if matrix.shape[1] < matrix.shape[2]:
        matrix = matrix.mT
    # Squares of a small movement would underflow in float32 otherwise.
    scale = torch.maximum(matrix.amax((1, 2), keepdim=True), -matrix.amin((1, 2), keepdim=True))
    inverse = 1 / torch.where(scale > 0, scale, 1.0)
    if matrix.shape[2] <= FEW_COLUMNS:
        scaled = matrix * inverse
        top, vector = spectra(scaled.mT @ scaled)[:, -1], None
    else:

        def product(vector: Tensor) -> Tensor:
            # The vector is scaled, not the matrix, which is larger.
            with vector_products():
                scaled = batch_product(vector[:, None], matrix.mT) * inverse
                return (batch_product(scaled, matrix) * inverse)[:, 0]

        top, vector = top_eigenpair(product, matrix[:, 0], guess=guess)
    return top.clamp_min(0).sqrt() * scale[:, 0, 0], vector


def spectra(matrix: Float[Tensor, "cell n n"]) -> Float[Tensor, "cell n"]:
    """Return the ascending eigenvalues of positive semi-definite matrices, as :func:`decomposition` does."""
    finite, symmetric = _finite(matrix)
    return torch.where(finite, torch.linalg.eigvalsh(symmetric).clamp_min(0), torch.nan)


def decomposition(
    matrix: Float[Tensor, "cell n n"],
) -> tuple[Float[Tensor, "cell n"], Float[Tensor, "cell n n"]]:
    """Return ascending eigenvalues and eigenvectors of positive semi-definite matrices.

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
