r"""What a random weight matrix does to the few vectors that it has met, and nothing else of it.

A matrix W of independent draws of variance 1 / n maps an orthonormal vector to fresh Gaussian numbers, so
long as these are conditioned on what it did before. With orthonormal frames p_k of the vectors that it was
applied to and q_j of those that its transpose was applied to, in the inner product <a, b> = mean of a_i b_i,

    W phi   = sum_k <phi, p_k> w_k + sum_j <phi, v_j> q_j        w_k: fresh Gaussians of the upper layer
    W^T g   = sum_j <g, q_j> v_j   + sum_k <g, w_k> p_k          v_j: fresh Gaussians of the lower layer

The first sum is the Gaussian process of the mean-field theory, the second its response: by Stein's lemma
<phi, v_j> is the mean derivative of phi with respect to v_j. Vectors are rows, ``[vector, unit]``.

References:
    Bolthausen (2014), "An iterative construction of solutions of the TAP equations", arXiv 1201.2891;
    Bayati & Montanari (2011), arXiv 1001.3448, lemma 10.
"""

import torch
from jaxtyping import Float64
from torch import Tensor

Vectors = Float64[Tensor, "_vector unit"]

_RANGE = 1e-6
"""Eigenvalues of a Gram matrix that far below its largest wait for the next pass: they are rounding now."""
_SEEN = 1e-5
"""What is this small of a vector of an exact frame may be rounding."""
_COARSE = 1e-4
"""Tolerance from which on a frame is orthonormal enough as it comes: to 1e-16 / tolerance."""


class Rows:
    """A matrix that grows by rows, in place as long as there is room.

    Args:
        units: Length of a row.
    """

    def __init__(self, units: int) -> None:
        self._memory = torch.empty(0, units, dtype=torch.float64)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def rows(self) -> Vectors:
        """What there is."""
        return self._memory[: self._count]

    def append(self, rows: Vectors) -> None:
        """Add rows."""
        need = self._count + len(rows)
        if need > len(self._memory):
            memory = self._memory.new_empty(max(need, 2 * len(self._memory), 32), rows.shape[1])
            memory[: self._count] = self.rows
            self._memory = memory
        self._memory[self._count : need] = rows
        self._count = need


class Frame:
    """An orthonormal frame that grows until vectors are combinations of it to a tolerance.

    Args:
        units: Length of a vector.
        tolerance: Root mean square of what may be left out of vectors, relative to theirs.
        most: Vectors at most; what is left out then is in ``dropped``.

    Attributes:
        dropped: Largest share left out so far.
    """

    def __init__(self, units: int, tolerance: float, most: int) -> None:
        self.basis = Rows(units)
        self.tolerance = tolerance
        self.most = most
        self.dropped = 0.0

    def extend(self, vectors: Vectors) -> tuple[Float64[Tensor, "basis _vector"], Vectors]:
        """Grow the frame by what is missing of some vectors.

        Returns:
            Coordinates of the vectors in the frame, and the rows that are new in it.

        Raises:
            OverflowError: If their products are not finite.
        """
        before, units = len(self.basis), vectors.shape[1]
        size = float(_finite(vectors.square().mean()).sqrt())
        found = [self.basis.rows @ vectors.mT / units]
        rest = vectors - found[0].mT @ self.basis.rows
        while size > 0:
            values, directions = torch.linalg.eigh(_finite(rest @ rest.mT / units))
            left = float(values.clamp_min(0).mean().sqrt()) / size
            keep = values > max((self.tolerance * size) ** 2, _RANGE * float(values[-1]))
            keep[: max(0, len(keep) - (self.most - len(self.basis)))] = False
            if not bool(keep.any()):
                self.dropped = max(self.dropped, left)
                break
            new = (directions[:, keep] / values[keep].sqrt()).mT @ rest
            if self.tolerance < _COARSE:
                # Rounding, divided by what is small, is no longer small.
                new = orthonormal(new, self.basis.rows)
            self.basis.append(new)
            found.append(new @ vectors.mT / units)
            rest = rest - (rest @ new.mT / units) @ new
        return torch.cat(found), self.basis.rows[before:]


def _finite(products: Tensor) -> Tensor:
    """Return products, unless fields have grown beyond what floats hold."""
    if not bool(products.isfinite().all()):
        raise OverflowError
    return products


def orthonormal(vectors: Vectors, basis: Vectors, passes: int = 2) -> Vectors:
    """Return independent vectors made orthonormal, to a basis, too.

    Args:
        passes: One for vectors of which little lies in the basis, two for rounding errors alone to remain.
    """
    units = vectors.shape[1]
    for _ in range(passes):
        vectors = vectors - (vectors @ basis.mT / units) @ basis
        root = torch.linalg.cholesky(vectors @ vectors.mT / units)
        vectors = torch.linalg.solve_triangular(root, vectors, upper=False)
    return vectors


class Population:
    """The sampled units of a layer: the vectors that fresh Gaussian numbers must have no part in.

    In the limit a fresh number has no correlation with anything before it. A sample has one, of order
    1 / sqrt(units): it is taken out, by which averages of second order are exact, and those of linear
    networks all there is.

    Args:
        units: How many.
        exact: Whether the units are coordinates of a space and no draws: then fresh numbers are new
            directions, and means are inner products.
        generator: Of the draws.
    """

    def __init__(self, units: int, exact: bool, generator: torch.Generator) -> None:
        self.units = units
        self._room = units if exact else units // 2
        self._seen = Frame(units, _SEEN if exact else _COARSE, self._room)
        self._exact = exact
        self._generator = generator
        if not exact:
            self._seen.extend(torch.ones(1, units, dtype=torch.float64))

    def meet(self, vectors: Vectors) -> None:
        """Take note of vectors that later draws have no part in."""
        if len(vectors) and len(self._seen.basis) < self._room:
            self._seen.extend(vectors)

    def fresh(self, count: int) -> Vectors:
        """Return independent standard Gaussian vectors, orthonormal, and orthogonal to what was met."""
        draws = torch.randn(count, self.units, dtype=torch.float64, generator=self._generator)
        if count:
            draws = orthonormal(draws, self._seen.basis.rows, 2 if self._exact else 1)
            if len(self._seen.basis) + count <= self._room:
                self._seen.basis.append(draws)
        return draws
