"""Lanczos iteration: what follows of an operator from its products with a few vectors.

Vectors are ``[cell, n]``, one symmetric operator per cell, all of them at the same step.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from runner.numerics.generators import generator
from runner.numerics.precision import batch_product, vector_products

Product = Callable[[Float[Tensor, "cell n"]], Float[Tensor, "cell n"]]

_CHECK_EVERY = 2
"""Steps between two looks at the residual where a look costs more than a step, on small problems."""
_SMALL = 2_000
"""Numbers in the longest vectors of a small problem."""
_LEAST_STEPS = 4
"""Before the first look: two Ritz values alone know too little of the distance between eigenvalues."""
_RANDOM_SHARE = 0.1
"""Of a random vector, in a start that is a guess."""
KEPT_NUMBERS = 10_000
"""Numbers in the longest vectors that are kept orthogonal to all before them."""
_REMEMBERED = 1 << 20
"""Numbers in the longest random vectors that are kept for the next search."""
_ROOM = 16
"""Vectors for which there is room at first; it is doubled where they are more."""


class Krylov(NamedTuple):
    """A Krylov space after some steps, ``K V = V T + beta v e_last^T`` with T tridiagonal.

    Attributes:
        basis: V, the vectors, as rows; only the last two of long ones that are not kept.
        diagonal: Of T.
        offdiagonal: Of T, and beta as the last.
    """

    basis: Float[Tensor, "cell step n"]
    diagonal: Float[Tensor, "cell step"]
    offdiagonal: Float[Tensor, "cell step"]


class Ritz(NamedTuple):
    """Eigenvalues and eigenvectors of T, in float64; zeros where it is not finite.

    Attributes:
        values: Ascending.
        vectors: As columns.
        beta: Norm of what the last step left.
        finite: Whether T is.
    """

    values: Float[Tensor, "cell mode"]
    vectors: Float[Tensor, "cell step mode"]
    beta: Float[Tensor, "cell"]
    finite: Bool[Tensor, "cell"]


def lanczos(product: Product, start: Float[Tensor, "cell n"], limit: int, *, keep: bool) -> Iterator[Krylov]:
    """Yield the Krylov spaces of ``start``, one step larger each time.

    Args:
        product: Multiplies one vector per cell by that cell's operator.
        start: One per cell, of unit norm or zero.
        limit: Steps, at most n.
        keep: Orthogonalise each vector against all before it, so that in n steps everything is exact to
            rounding. That may cost more than the products. Without it orthogonality is lost with the
            convergence of a Ritz pair, which only adds copies of what has converged.

    References:
        Golub & Van Loan, "Matrix Computations", 4th ed., section 10.1; Paige (1980), "Accuracy and
        effectiveness of the Lanczos algorithm for the symmetric eigenproblem", theorem 3.1.
    """
    cells, size = start.shape
    epsilon = torch.finfo(start.dtype).eps
    basis = start.new_empty(cells, min(limit, _ROOM) if keep else 2, size)
    diagonal: list[Tensor] = []
    offdiagonal: list[Tensor] = []
    largest = start.new_zeros(cells)
    vector = start
    for step in range(1, limit + 1):
        if not keep:
            basis = torch.stack([basis[:, -1], vector], 1)
        elif step > basis.shape[1]:
            basis = torch.cat([basis, torch.empty_like(basis)], 1)
        known = basis[:, :step]
        known[:, -1] = vector
        # Rows times matrices: a product with a column is many times slower in a batch.
        residual = product(vector).unsqueeze(1)
        with vector_products():
            overlap = batch_product(residual, known.mT)
            diagonal.append(overlap[:, 0, -1])
            residual = torch.baddbmm(residual, overlap, known, alpha=-1)
            # Twice is enough (Kahan & Parlett).
            residual = torch.baddbmm(residual, batch_product(residual, known.mT), known, alpha=-1)
        norm = residual[:, 0].norm(dim=1)
        offdiagonal.append(norm)
        yield Krylov(known, torch.stack(diagonal, 1), torch.stack(offdiagonal, 1))
        # An exhausted Krylov space leaves nothing to normalise; zeros then change nothing.
        largest = torch.maximum(largest, diagonal[-1].abs())
        vector = residual[:, 0] * torch.where(norm <= epsilon * largest, 0.0, 1 / norm)[:, None]


def ritz(space: Krylov) -> Ritz:
    """Return the eigenvalues and eigenvectors of a Krylov space's T, on the CPU."""
    main, off = space.diagonal.double().cpu(), space.offdiagonal.double().cpu()
    finite = (main.isfinite() & off.isfinite()).all(1)
    main, off = (torch.where(finite[:, None], part, 0.0) for part in (main, off))
    tridiagonal = torch.diag_embed(main)
    if main.shape[1] > 1:
        tridiagonal = tridiagonal + torch.diag_embed(off[:, :-1], 1) + torch.diag_embed(off[:, :-1], -1)
    values, vectors = torch.linalg.eigh(tridiagonal)
    return Ritz(values, vectors, off[:, -1], finite)


def top_eigenvalue(
    product: Product, like: Float[Tensor, "cell n"], *, guess: Float[Tensor, "cell n"] | None = None,
    tolerance: float | None = None, max_steps: int = 200,
) -> Float[Tensor, "cell"]:  # fmt: skip
    """Return the largest eigenvalue of one symmetric operator per cell; see :func:`top_eigenpair`."""
    return top_eigenpair(product, like, guess=guess, tolerance=tolerance, max_steps=max_steps)[0]


def top_eigenpair(
    product: Product, like: Float[Tensor, "cell n"], *, guess: Float[Tensor, "cell n"] | None = None,
    tolerance: float | None = None, max_steps: int = 200,
) -> tuple[Float[Tensor, "cell"], Float[Tensor, "cell n"] | None]:  # fmt: skip
    """Return the largest eigenvalue of one symmetric operator per cell, and its vector.

    It stops once the error of every cell's top Ritz value is bounded by ``tolerance`` times that value: by
    the norm of the residual, r = |beta_k s_k|, or by r^2 over the distance to the next Ritz value. Vectors of
    at most ``KEPT_NUMBERS`` numbers are kept orthogonal, see :func:`lanczos`.

    Args:
        product: Multiplies one vector per cell by that cell's operator.
        like: Gives the shape, dtype and device of the vectors; its values are not used.
        guess: Near the eigenvectors sought, to begin from; a tenth of a random vector is added, so that an
            eigenvector to which it is orthogonal is found all the same.
        tolerance: Relative; default 1e-5 in float32 and 1e-10 in float64.

    Returns:
        One eigenvalue per cell, NaN where a product is not finite, and the Ritz vectors; None for long ones.

    References:
        Parlett, "The Symmetric Eigenvalue Problem", section 11.7, for the bound with the distance.
    """
    if tolerance is None:
        tolerance = 1e-10 if like.dtype == torch.float64 else 1e-5
    keep = like.shape[1] <= KEPT_NUMBERS
    limit = min(max_steps, like.shape[1])
    every = _CHECK_EVERY if like.shape[1] <= _SMALL else 1
    for step, space in enumerate(lanczos(product, _start(like, guess), limit, keep=keep), 1):
        if step == limit or (step >= _LEAST_STEPS and step % every == 0):
            found = ritz(space)
            value, error = found.values[:, -1], (found.beta * found.vectors[:, -1, -1]).abs()
            if step > 1:
                distance = value - found.values[:, -2]
                error = error * torch.where(error < distance, error / distance, 1.0)
            if step == limit or bool(((error <= tolerance * value.abs()) | ~found.finite).all()):
                break
    weights = found.vectors[:, :, -1].to(like)
    vector = (weights.unsqueeze(1) @ space.basis)[:, 0] if keep else None
    return torch.where(found.finite, value, torch.nan).to(like), vector


def _start(like: Float[Tensor, "cell n"], guess: Tensor | None) -> Float[Tensor, "cell n"]:
    """Unit vectors; without a guess the same in every cell, so that no answer depends on the pack."""
    size = like.shape[1]
    # To draw it takes as long as a step, and cells are searched one after the other.
    drawn = (_remembered if size <= _REMEMBERED else _drawn)(size)
    start: Tensor = drawn.to(like).expand_as(like)
    if guess is not None:
        norm = guess.norm(dim=1, keepdim=True)
        usable = norm.isfinite() & (norm > 0)
        start = torch.where(usable, guess / norm, 0.0) + _RANDOM_SHARE * start
        start = start / start.norm(dim=1, keepdim=True)
    return start


def _drawn(size: int) -> Float[Tensor, "n"]:
    """A random direction."""
    drawn = torch.randn(size, generator=generator(0, "lanczos"), dtype=torch.float64)
    direction: Tensor = drawn / drawn.norm()
    return direction


_remembered = lru_cache(maxsize=2)(_drawn)
