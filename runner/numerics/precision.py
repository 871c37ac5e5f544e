"""How float32 matrices are multiplied: what the ``dtype`` of a cell means on a GPU, and by whom on a CPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from runner.numerics.processor import processor_vendor

DTYPES = {"float32": torch.float32, "float64": torch.float64, "tf32": torch.float32}

_SHAPES = ((8, 64, 32, 32), (3, 100, 37, 53), (2, 64, 256, 256))
"""Cells, rows, inner and columns of the products that are tried."""
ROUNDING = 1e-5
"""Largest relative error of a product in float32; bfloat16 and TF32 are off by 1e-4."""
_LEAST_MULTIPLICATIONS = 16**3
"""Below which torch leaves a product to MKL all the same."""

_fast = False


def set_precision(dtype: str, multiplications: int) -> None:
    """Set how the float32 matrices of a pack are multiplied.

    TF32 keeps 10 bits of the 23 of a mantissa: errors of 1e-3, as large as the movements by which the lazy
    regime is told. On a GPU it is off but for the dtype of that name, also for convolutions, where torch's
    own default is on. On a CPU, see :func:`set_cpu_products`: packs of the smallest nets are left to MKL,
    since the number of their cells would decide who multiplies, and with it the last bit.

    Args:
        multiplications: Of a hidden layer of one cell.
    """
    mode = "tf32" if dtype == "tf32" else "ieee"
    torch.backends.cuda.matmul.fp32_precision = mode
    torch.backends.cudnn.conv.fp32_precision = mode  # type: ignore[attr-defined]
    _allow(_fast and multiplications > _LEAST_MULTIPLICATIONS)


def set_cpu_products(fast: bool = True) -> None:
    """Have oneDNN multiply float32 matrices on the CPU where it is faster than MKL and as precise.

    On AMD's processors MKL leaves half of each vector unit idle: 100 GFLOP/s a core where oneDNN, which torch
    brings, too, reaches 200. But torch asks oneDNN for float32 products only where they may be rounded to
    bfloat16, and only processors with units for that (AMX) do round. So it is allowed where, and only where,
    products of numbers that bfloat16 cannot hold come out in full precision. That depends on processor and
    torch alone, so that the same machine gives the same bits.
    """
    global _fast
    _fast = fast and processor_vendor() == "AuthenticAMD" and float32_all_the_same()
    _allow(_fast)


def batch_product(
    left: Float[Tensor, "#cell row inner"],
    right: Float[Tensor, "#cell inner column"],
    out: Float[Tensor, "cell row column"] | None = None,
) -> Float[Tensor, "cell row column"]:
    """Return the product of every cell's matrices; an axis of length 1 stands for all cells.

    As ``@`` does, which copies what is transposed, or part of a larger tensor, where there is a single cell:
    that takes half as long as the product.

    Args:
        out: Where to put it; new memory by default.
    """
    cells = len(right) if len(left) == 1 else len(left)
    matrices = dense_batch(left).expand(cells, -1, -1), dense_batch(right).expand(cells, -1, -1)
    return torch.bmm(*matrices, out=out) if out is not None else torch.bmm(*matrices)


def add_product_(
    out: Float[Tensor, "cell row column"],
    left: Float[Tensor, "cell row inner"],
    right: Float[Tensor, "cell inner column"],
    *,
    beta: float = 1.0,
    alpha: float = 1.0,
) -> Float[Tensor, "cell row column"]:
    """Overwrite ``out`` by ``beta * out + alpha * left @ right`` and return it.

    Of a single column MKL computes the transpose: four times as fast as oneDNN, seven times as MKL itself.
    """
    if out.shape[2] != 1:
        return out.baddbmm_(left, right, beta=beta, alpha=alpha)
    with vector_products():
        out.mT.baddbmm_(right.mT, left.mT, beta=beta, alpha=alpha)
    return out


def dense_batch(matrices: Float[Tensor, "cell row column"]) -> Float[Tensor, "cell row column"]:
    """Return the same memory, as a batch that oneDNN takes for dense if there is a single cell.

    How far the next cell would be has no meaning then, yet it is what oneDNN looks at.
    """
    if len(matrices) != 1:
        return matrices
    _, rows, columns = matrices.shape
    return matrices.as_strided(matrices.shape, (rows * columns, *matrices.stride()[1:]))


@contextmanager
def vector_products() -> Iterator[None]:
    """Leave to MKL what is multiplied inside: for a single row it is up to twenty times as fast as oneDNN."""
    before = torch.backends.mkldnn.matmul.fp32_precision  # type: ignore[attr-defined]
    torch.backends.mkldnn.matmul.fp32_precision = "none"  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = before  # type: ignore[attr-defined]


def _allow(rounding: bool) -> None:
    torch.backends.mkldnn.matmul.fp32_precision = "bf16" if rounding else "none"  # type: ignore[attr-defined]


@lru_cache(maxsize=1)
def float32_all_the_same() -> bool:
    """Say whether products are in float32 although they may be rounded; leaves them so."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    _allow(True)
    return all(error <= ROUNDING for error in product_errors())


def product_errors() -> list[float]:
    """Return relative errors of some products of 1 and 1 + 2^-12, which is 1 in TF32, in every layout."""
    found = []
    generator = torch.Generator().manual_seed(0)
    for cells, rows, inner, columns in _SHAPES:

        def draw(*shape: int) -> torch.Tensor:
            return 1 + 2.0**-12 * torch.randint(2, shape, generator=generator)

        for left in (draw(cells, rows, inner), draw(cells, inner, rows).mT):
            for right in (draw(cells, inner, columns), draw(cells, columns, inner).mT):
                exact = left.double() @ right.double()
                added = torch.zeros(cells, rows, columns).baddbmm_(left, right, beta=1, alpha=0.5)
                for product, truth in (
                    (left @ right, exact),
                    (left[0] @ right[0], exact[0]),
                    (added, exact / 2),
                ):
                    found.append(float((product / truth - 1).abs().max()))
    return found
