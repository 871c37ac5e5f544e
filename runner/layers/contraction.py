r"""From recorded inputs and output gradients to blocks of the tangent kernel, without a Jacobian of it all.

With A the inputs of a dense layer at its T positions (one for a vector; tokens; patches of a convolution)
and G = df/dz there, the gradient with respect to its weight is ``sum_t A_t G_t^T``. For T = 1 its Gram
matrix is a Hadamard product, ``(A A^T) * (G G^T)``. For T > 1 there are two ways, and the cheaper is taken:

- per-sample gradients: M T f_in f_out products to form them, M^2 f_in f_out to pair them;
- pairs of positions: M^2 T^2 (f_in + f_out) to form A A^T and G G^T over positions, whose product is summed.

References:
    Novak, Sohl-Dickstein & Schoenholz (2022), "Fast Finite Width Neural Tangent Kernel", arXiv 2206.08720,
    sections 3.2 and 3.3.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from runner.layers.memory import kernel_bytes
from runner.numerics.precision import batch_product

_STRIP = 128
"""Rows of a large Gram matrix that are multiplied at a time with themselves and those below."""
LARGE_PRODUCT = 1 << 27
"""Multiplications of a cell's from which on it is large."""


@dataclass(frozen=True)
class Pairing:
    """Which entries of the kernel are wanted.

    Attributes:
        columns: Pair all samples with so many of them, the first; with all if None.
        full: Every pair of outputs, ``[cell, output, sample, output, column]``; otherwise the sum over equal
            outputs, ``[cell, sample, column]``.
    """

    columns: int | None = None
    full: bool = False

    def gram(self, jacobian: Float[Tensor, "cell output sample parameter"]) -> Float[Tensor, "cell *pair"]:
        """Return the inner products of gradients."""
        cells, outputs, samples, _ = jacobian.shape
        if self.full:
            rows = jacobian.flatten(1, 2)
            if self.columns is None:
                return symmetric_product(rows).view(cells, outputs, samples, outputs, samples)
            flat = batch_product(rows, jacobian[:, :, : self.columns].flatten(1, 2).mT)
            return flat.view(cells, outputs, samples, outputs, -1)
        # All outputs side by side: their sum is part of the one product.
        rows = jacobian[:, 0] if outputs == 1 else jacobian.transpose(1, 2).flatten(2)
        return (
            symmetric_product(rows)
            if self.columns is None
            else batch_product(rows, rows[:, : self.columns].mT)
        )


def dense_kernel(
    columns: Float[Tensor, "#cell sample position fan_in"],
    rows: Float[Tensor, "cell output sample position fan_out"],
    pairing: Pairing,
    factor: Float[Tensor, "cell"] | None = None,
) -> Float[Tensor, "cell *pair"]:
    """Return the Gram matrix of gradients with respect to a dense weight.

    Args:
        rows: G, gradients of the network's outputs with respect to the layer's.
        factor: Multiplies each cell's; 1 by default.
    """
    _, outputs, samples, positions, fan_out = rows.shape
    if pairing.full and positions == 1 and rows.stride(2) == 0:  # the last layer's, the same for all samples
        outer = rows[:, :, 0, 0] @ rows[:, :, 0, 0].mT
        outer = outer if factor is None else outer * factor.view(-1, 1, 1)
        return pairing.gram(columns[:, None, :, 0]) * outer[:, :, None, :, None]
    if factor is not None and positions * outputs * fan_out < samples:
        # Fewer numbers than the entries that it would multiply.
        rows, factor = rows * factor.sqrt().view(-1, 1, 1, 1, 1), None
    scale = None if factor is None else factor.view(-1, *(1,) * (4 if pairing.full else 2))
    if positions == 1:
        shared = pairing.gram(columns[:, None, :, 0])
        # Their product takes the place of the larger.
        return pairing.gram(rows[:, :, :, 0]).mul_(shared if scale is None else shared * scale)
    by_sample, by_pair = contraction_costs(columns, rows, pairing)
    kernel = (_by_sample if by_sample <= by_pair else _by_pair)(columns, rows, pairing)
    return kernel if scale is None else kernel.mul_(scale)


def symmetric_product(
    rows: Float[Tensor, "cell row parameter"], out: Float[Tensor, "cell row row"] | None = None
) -> Float[Tensor, "cell row row"]:
    """Return rows times their transpose, where large by half of the products.

    Args:
        out: Where to put it; new memory by default.
    """
    cells, count, length = rows.shape
    step = _STRIP if count > 2 * _STRIP else _STRIP // 2
    if count**2 * length < LARGE_PRODUCT:
        return batch_product(rows, rows.mT, out)
    product = rows.new_empty(cells, count, count) if out is None else out
    # Cell by cell: some rows of one cell are dense, those of a batch would be copied to be multiplied.
    for one, square in zip(rows, product, strict=True):
        for start in range(0, count, step):
            stop = start + step
            strip = one[start:stop] @ one[start:].mT
            square[start:stop, start:] = strip
            square[stop:, start:stop] = strip[:, step:].mT
    return product


def contraction_costs(columns: Tensor, rows: Tensor, pairing: Pairing) -> tuple[int, int]:
    """Return the multiplications per cell of per-sample gradients and of pairs of positions."""
    _, outputs, samples, positions, fan_out = rows.shape
    fan_in = columns.shape[3]
    others = samples if pairing.columns is None else min(samples, pairing.columns)
    pairs = samples * others
    # In the trace, outputs lie side by side: G G^T is formed once for all of them.
    squared = outputs**2 if pairing.full else outputs
    by_sample = fan_in * fan_out * (outputs * samples * positions + squared * pairs)
    products = squared if pairing.full else 1
    by_pair = pairs * positions**2 * (fan_in + squared * fan_out + products)
    return by_sample, by_pair


def _by_sample(columns: Tensor, rows: Tensor, pairing: Pairing) -> Tensor:
    """Form gradients for some inputs of the layer after the others: the kernel is a sum over them."""
    cells, outputs, samples, positions, fan_out = rows.shape
    side_by_side = rows.permute(0, 2, 3, 1, 4).reshape(cells, samples, positions, outputs * fan_out)
    size = (2 if pairing.full else 1) * cells * samples * outputs * fan_out * rows.element_size()

    def gram(part: Tensor) -> Tensor:
        gradients = part @ side_by_side
        if pairing.full:
            split = gradients.view(cells, samples, -1, outputs, fan_out)
            return pairing.gram(split.permute(0, 3, 1, 2, 4).flatten(3))
        # The order of what the trace sums over does not matter: nothing is copied.
        return pairing.gram(gradients.flatten(2).unsqueeze(1))

    first, *others = torch.split(columns.mT, max(1, kernel_bytes() // 2 // size), dim=2)
    kernel = gram(first)
    for part in others:
        kernel += gram(part)
    return kernel


def _by_pair(columns: Tensor, rows: Tensor, pairing: Pairing) -> Tensor:
    """Multiply the Gram matrices over (sample, position) and sum over positions, some samples at a time."""
    cells, outputs, samples, positions, _ = rows.shape
    others = columns[:, : pairing.columns]
    count = others.shape[1]
    width = outputs if pairing.full else 1
    # The trace needs G G^T summed over outputs, the full kernel every pair of them.
    folded = rows if pairing.full else rows.permute(0, 2, 3, 1, 4).flatten(3).unsqueeze(1)
    right = folded[:, :, : pairing.columns].flatten(1, 3).mT
    size = 2 * cells * width**2 * positions**2 * count * rows.element_size()
    step = max(1, kernel_bytes() // 2 // size)

    def block(start: int) -> Tensor:
        some = slice(start, start + step)
        left = folded[:, :, some]
        gradients = (left.flatten(1, 3) @ right).view(
            cells, width, left.shape[2], positions, width, count, positions
        )
        inputs = (columns[:, some].flatten(1, 2) @ others.flatten(1, 2).mT).view(
            columns.shape[0], 1, left.shape[2], positions, 1, count, positions
        )
        return gradients.mul_(inputs).sum((3, 6))

    kernel = torch.cat([block(start) for start in range(0, samples, step)], 2)
    return kernel if pairing.full else kernel[:, 0, :, 0]
