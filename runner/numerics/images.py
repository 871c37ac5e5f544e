"""What compiled code can do with images; see :mod:`runner.numerics.operations`."""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor


class Convolve(NamedTuple):
    """A convolution of images, channels in rows, each with a margin of zeros, which keeps their sides.

    Attributes:
        out: Written, but for the margins.
        left: Images.
        right: Kernels, a row for each pixel of a patch and channel of it.
        inner: Channels.
        height: Of an image, without its margins.
        breadth: Likewise.
        side: Of the patch, odd.
        factor: As of :class:`runner.numerics.operations.Operation`; so are the others.
        tiled: Whether in tiles of 2 x 2 pixels, with fewer products; for side 3, an even height and breadth.
    """

    out: Float[Tensor, "cell place column"]
    left: Float[Tensor, "cell place channel"]
    right: Float[Tensor, "cell side*side*channel column"]
    inner: int
    height: int
    breadth: int
    side: int
    factor: float = 1.0
    each: Float[Tensor, "cell 1 1"] | None = None
    also: Float[Tensor, "cell 1 1"] | None = None
    add: bool = False
    rectify: bool = False
    above: Float[Tensor, "cell place column"] | None = None
    times: bool = False
    tiled: bool = False


class ConvolveBack(NamedTuple):
    """The gradient of the kernels of :class:`Convolve`.

    Attributes:
        out: Written, as ``right`` there.
        left: As there.
        right: Gradient with respect to what it wrote, with margins of zeros.
        inner: Rows of either.
        height: As there; so are the others.
        sums: Whether it is a sum over the blocks of a step.
        tiled: As there.
    """

    out: Float[Tensor, "cell side*side*channel column"]
    left: Float[Tensor, "cell place channel"]
    right: Float[Tensor, "cell place column"]
    inner: int
    height: int
    breadth: int
    side: int
    factor: float = 1.0
    each: Float[Tensor, "cell 1 1"] | None = None
    also: Float[Tensor, "cell 1 1"] | None = None
    sums: bool = False
    tiled: bool = False


class Pool(NamedTuple):
    """``factor`` times the sums over squares of pixels; what is left over at the edges is dropped.

    Attributes:
        out: Written, but for the margins.
        left: Images, as in :class:`Convolve`.
        inner: Their margin, and that of ``out``.
        height: Of an image, without its margins.
        breadth: Likewise.
        side: Of a square.
        factor: Of all cells.
    """

    out: Float[Tensor, "cell small column"]
    left: Float[Tensor, "cell place column"]
    inner: int
    height: int
    breadth: int
    side: int
    factor: float


class PoolBack(NamedTuple):
    """The gradient of what :class:`Pool` was given.

    Attributes:
        out: Written, but for the margins.
        left: Gradient with respect to what it wrote.
        inner: As there; so are the next.
        above: As of :class:`runner.numerics.operations.Operation`; so are the others.
    """

    out: Float[Tensor, "cell place column"]
    left: Float[Tensor, "cell small column"]
    inner: int
    height: int
    breadth: int
    side: int
    factor: float
    add: bool = False
    above: Float[Tensor, "cell place column"] | None = None
    times: bool = False
